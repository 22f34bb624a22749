"""TunerState on disk: a ``tensor_document``, which also says how to change the format.

What is read back continues bit for bit like the state that was written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhpo_core.atomic_files import write_atomically
from rlhpo_core.errors import UserError
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import History, Inherited, RoundSummary
from rlhpo_core.tuner import ppo, prior_mapping, reward_model, tensor_document
from rlhpo_core.tuner import prior as prior_file
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.algorithm import TunerState

#: Of the document and the names of the tensors.
FORMAT_VERSION = 2
_KIND = "rlhpo"


def to_bytes(state: TunerState) -> bytes:
    """The whole state as the content of one file; equal states give equal bytes."""
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
    return tensor_document.write(_KIND, document, tensors)


def from_bytes(data: bytes) -> TunerState:
    """The state whose ``to_bytes`` this was.

    Raises: UserError if this is not a state, or one of a version that this rlhpo cannot read.
    """
    try:
        document, tensors = tensor_document.read(_KIND, data)
    except ValueError as error:
        raise UserError(f"this is not an rlhpo state file, or it is damaged ({error})") from error
    if (version := document["format_version"]) != FORMAT_VERSION:
        raise UserError(
            f"the state has format version {version}, this rlhpo reads version {FORMAT_VERSION}; "
            "continue with the release that wrote it, or start a new study"
        )
    try:
        return _restore(document, tensors)
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
    """The state in the file at ``path``. Raises: UserError if the file is missing or not a state."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the state: {error}") from error
    try:
        return from_bytes(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
