"""TunerState on disk: one safetensors file whose header carries the rest as JSON.

One file, so that it is replaced in one atomic step and travels as one artifact. Nothing in it is executable. What is
read back continues bit for bit like the state that was written.

Changing the format: raise ``FORMAT_VERSION``; keep a reader for every version that a release has written, as a function
from its JSON and tensors to those of the next version; add a file of the old version to tests/fixtures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from rlhpo_core.atomic_files import write_atomically
from rlhpo_core.errors import UserError
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import History, Inherited, RoundSummary
from rlhpo_core.tuner import ppo, prior_mapping, reward_model
from rlhpo_core.tuner import prior as prior_file
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.algorithm import TunerState

FORMAT_VERSION = 1
_HEADER = "rlhpo"


def to_bytes(state: TunerState) -> bytes:
    """The whole state as one safetensors file; equal states give equal bytes."""
    tensors = {f"agent/{name}": tensor for name, tensor in state.agent.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(moment) for name, moment in moments.items()}
    model = None
    if state.model is not None:
        tensors |= {f"model/{name}": tensor for name, tensor in state.model.state().items()}
        model = {"kind": state.model.kind, "trials": state.model_trials}
    document = {
        "format_version": FORMAT_VERSION,
        "study_id": state.study_id,
        "seed": state.seed,
        "settings": state.settings.model_dump(mode="json"),
        "space": state.space.model_dump(mode="json"),
        "round": state.round,
        "history": state.history.model_dump(mode="json"),
        "model": model,
        "summaries": [summary.model_dump(mode="json") for summary in state.summaries],
    }
    if state.prior is not None:
        document["prior"] = state.prior.document()
        tensors |= {f"prior/{name}": tensor for name, tensor in state.prior.tensors.items()}
    if state.inherited is not None:
        document["inherited"] = state.inherited.model_dump(mode="json")
    contiguous = {name: tensor.detach().contiguous() for name, tensor in sorted(tensors.items())}
    return save_tensors(contiguous, metadata={_HEADER: json.dumps(document)})


def from_bytes(data: bytes) -> TunerState:
    """Raises: UserError if this is not a state, or one of a version that this rlhpo cannot read."""
    try:
        tensors = load_tensors(data)
        length = int.from_bytes(data[:8], "little")
        document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
        version = document["format_version"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"this is not an rlhpo state file, or it is damaged ({error})") from error
    if version != FORMAT_VERSION:
        raise UserError(
            f"the state has format version {version}, this rlhpo reads version {FORMAT_VERSION}; "
            "continue with the release that wrote it, or start a new study"
        )
    try:
        # Clones: what lies anywhere in a buffer may be summed in another order than what torch has aligned.
        return _restore(document, {name: tensor.clone() for name, tensor in tensors.items()})
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"this rlhpo state is damaged or was changed by hand; take it from a backup or start a new study ({error})"
        ) from error


def _restore(document: dict[str, Any], tensors: dict[str, Tensor]) -> TunerState:
    settings = TunerSettings.model_validate(document["settings"])
    space = SearchSpace.model_validate(document["space"])
    agent = Agent(space, settings.agent, one_step=settings.mode == "rl_doc", seed=0)
    agent.load_state_dict(_below(tensors, "agent/"))
    optimizer = ppo.make_optimizer(agent, settings.ppo)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer/").items():
        index, moment = name.split("/")
        moments.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    model = document["model"]
    prior = prior_file.from_document(document["prior"], _below(tensors, "prior/")) if "prior" in document else None
    expect = None if prior is None else prior_mapping.expectation(prior, space)
    return TunerState(
        study_id=document["study_id"],
        seed=document["seed"],
        settings=settings,
        space=space,
        round=document["round"],
        history=History.model_validate(document["history"]),
        agent=agent,
        optimizer=optimizer,
        model=None if model is None else reward_model.from_state(model["kind"], _below(tensors, "model/"), expect),
        model_trials=0 if model is None else model["trials"],
        summaries=tuple(RoundSummary.model_validate(summary) for summary in document["summaries"]),
        inherited=Inherited.model_validate(document["inherited"]) if "inherited" in document else None,
        prior=prior,
    )


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def save(state: TunerState, path: Path) -> None:
    """Replace the file at ``path`` in one step: a reader, or a crash, sees the old state or the new one."""
    write_atomically(path, to_bytes(state))


def load(path: Path) -> TunerState:
    """Raises: UserError if the file is missing or not a state."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the state: {error}") from error
    try:
        return from_bytes(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
