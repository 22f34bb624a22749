"""TunerState on disk: a ``tensor_document``, which also says how to change the format.

What grows with the study (trials, what it has inherited, summaries of rounds) is kept as ``columns``, so the document
stays small. What is read back continues bit for bit like the state that was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from rlhpo_core import tensor_document
from rlhpo_core.atomic_files import write_atomically
from rlhpo_core.errors import UserError
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import Config, EarlierTrial, History, Inherited, Proposal, RoundSummary, Trial, Value, trial_id
from rlhpo_core.tuner import prior as prior_file
from rlhpo_core.tuner import prior_mapping, reward_model
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.columns import from_columns, to_columns
from rlhpo_core.tuner.state import TunerState

#: Of the document and the names of the tensors.
FORMAT_VERSION = 5
_KIND = "rlhpo"
#: Of a trial's fields, those that its proposal has.
_PROPOSED = ("number", "round", "index", "predicted", "predicted_std")
#: Before the name of each field of a trial's ``stop``, among those that the trial has itself.
_STOP = "stop."

T = TypeVar("T")
Part = tuple[dict[str, Any], dict[str, Tensor]]


def to_bytes(state: TunerState) -> bytes:
    """The whole state as the content of one file; equal states give equal bytes.

    Raises: ValueError if a trial is not of the state's study.
    """
    tensors = {f"agent/{name}": tensor for name, tensor in state.agent.state_dict().items()}
    for index, moments in state.moments.items():
        tensors |= {f"optimizer/{index}/{name}": moment for name, moment in moments.items()}
    model = None
    if state.model is not None:
        tensors |= {f"model/{name}": tensor for name, tensor in state.model.state().items()}
        model = {"kind": state.model.kind, "trials": state.model_trials}
    history, summaries = _of_history(state), [s.model_dump(mode="json", exclude_none=True) for s in state.summaries]
    names, columns = to_columns(summaries)
    tensors |= _above("history", history[1]) | _above("summaries", columns)
    document = {
        "format_version": FORMAT_VERSION,
        "study_id": state.study_id,
        "seed": state.seed,
        "settings": state.settings.model_dump(mode="json"),
        "space": state.space.model_dump(mode="json"),
        "round": state.round,
        "history": history[0],
        "model": model,
        "summaries": {"count": len(summaries), "names": names},
        "first": state.first,
    }
    if state.promising is not None:
        tensors["promising"] = torch.tensor(state.promising)
    if state.prior is not None:
        document["prior"] = state.prior.document()
        tensors |= _above("prior", state.prior.tensors)
    if state.inherited is not None:
        document["inherited"], columns = _of_inherited(state.inherited, state.space)
        tensors |= _above("inherited", columns)
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
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise UserError(
            f"this rlhpo state is damaged or was changed by hand; take it from a backup or start a new study ({error})"
        ) from error


def _restore(document: dict[str, Any], tensors: dict[str, Tensor]) -> TunerState:
    settings = TunerSettings.model_validate(document["settings"])
    space = SearchSpace.model_validate(document["space"])
    agent = Agent(space, settings.agent, one_step=settings.mode == "rl_doc", seed=0)
    agent.load_state_dict(_below(tensors, "agent/"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer/").items():
        index, moment = name.split("/")
        moments.setdefault(int(index), {})[moment] = tensor
    model = document["model"]
    prior = prior_file.from_document(document["prior"], _below(tensors, "prior/")) if "prior" in document else None
    expect = None if prior is None else prior_mapping.expectation(prior, space)
    rounds, inherited = document["summaries"], document.get("inherited")
    summaries = from_columns(rounds["count"], rounds["names"], _below(tensors, "summaries/"))
    return TunerState(
        study_id=document["study_id"],
        seed=document["seed"],
        settings=settings,
        space=space,
        round=document["round"],
        history=_history(document, _below(tensors, "history/")),
        agent=agent,
        moments=moments,
        model=None if model is None else reward_model.from_state(model["kind"], _below(tensors, "model/"), expect),
        model_trials=0 if model is None else model["trials"],
        summaries=tuple(RoundSummary.model_validate({"best": None, **summary}) for summary in summaries),
        inherited=None if inherited is None else _inherited(inherited, _below(tensors, "inherited/")),
        prior=prior,
        first=_config(document["first"]),
        promising=tensors["promising"].numpy() if "promising" in tensors else None,
    )


# -- trials as columns -----------------------------------------------------------------------------------------------


def _of_history(state: TunerState) -> Part:
    """Direction, number of trials and names; outcomes, configurations, metrics, actions (N, n) and curves."""
    trials = state.history.trials
    for trial in trials:
        if trial.trial_id != trial_id(state.study_id, trial.proposal.round, trial.proposal.index):
            raise ValueError(f"trial {trial.trial_id} is not of study {state.study_id}")
    outcomes, tensors = _columns("outcomes", [_outcome(trial) for trial in trials])
    configs, of_configs = _configs([trial.config for trial in trials], state.space)
    metrics, of_metrics = _columns("metrics", [trial.metrics for trial in trials])
    tensors |= of_configs | of_metrics | _of_curves(trials)
    if trials:
        rows = [[np.nan if action is None else action for action in trial.proposal.actions] for trial in trials]
        tensors["actions"] = torch.from_numpy(np.array(rows, dtype=np.float64))
    names = {"outcomes": outcomes, "configs": configs, "metrics": metrics}
    return {"direction": state.history.direction, "trials": len(trials), **names}, tensors


def _outcome(trial: Trial) -> dict[str, Value]:
    """What a trial has once, as far as it has it. Its id follows from its place in the study."""
    proposed = trial.proposal.model_dump(include=set(_PROPOSED), exclude_none=True)
    own = trial.model_dump(mode="json", exclude={"proposal", "metrics", "curve", "stop"}, exclude_none=True)
    stop = {} if trial.stop is None else trial.stop.model_dump(exclude_none=True)
    return {**proposed, **own, **{f"{_STOP}{name}": value for name, value in stop.items()}}


def _history(document: Mapping[str, Any], tensors: dict[str, Tensor]) -> History:
    known = document["history"]
    count = known["trials"]
    outcomes, configs, metrics = (
        from_columns(count, known[name], _below(tensors, f"{name}/")) for name in ("outcomes", "configs", "metrics")
    )
    actions = tensors["actions"].tolist() if count else []
    trials = [
        Trial(
            proposal=Proposal(
                trial_id=trial_id(document["study_id"], outcome["round"], outcome["index"]),
                config=config,
                actions=tuple(None if np.isnan(action) else action for action in row),
                **{name: outcome.pop(name) for name in _PROPOSED if name in outcome},
            ),
            metrics=measured,
            curve=curve,
            stop=_below(outcome, _STOP) or None,
            **{name: value for name, value in outcome.items() if not name.startswith(_STOP)},
        )
        for outcome, config, measured, row, curve in zip(
            outcomes, configs, metrics, actions, _curves(count, tensors), strict=True
        )
    ]
    return History(direction=known["direction"], trials=tuple(trials))


def _of_curves(trials: Sequence[Trial]) -> dict[str, Tensor]:
    """The curves that are at hand, which are those of the round under way: whose they are, lengths, steps, values."""
    at_hand = {row: trial.curve for row, trial in enumerate(trials) if trial.curve is not None}
    if not at_hand:
        return {}
    points = [point for curve in at_hand.values() for point in curve]
    return {
        "curves/rows": torch.tensor(list(at_hand), dtype=torch.int64),
        "curves/lengths": torch.tensor([len(curve) for curve in at_hand.values()], dtype=torch.int64),
        "curves/steps": torch.tensor([step for step, _ in points], dtype=torch.int64),
        "curves/values": torch.tensor([value for _, value in points], dtype=torch.float64),
    }


def _curves(count: int, tensors: Mapping[str, Tensor]) -> list[list[tuple[int, float]] | None]:
    curves: list[list[tuple[int, float]] | None] = [None] * count
    if "curves/rows" in tensors:
        steps, values = tensors["curves/steps"].tolist(), tensors["curves/values"].tolist()
        points = list(zip(steps, values, strict=True))
        ends = pairwise(accumulate(tensors["curves/lengths"].tolist(), initial=0))
        for row, (start, end) in zip(tensors["curves/rows"].tolist(), ends, strict=True):
            curves[row] = points[start:end]
    return curves


def _of_inherited(inherited: Inherited, space: SearchSpace) -> Part:
    outcomes, tensors = _columns(
        "outcomes", [trial.model_dump(include={"reward", "weight"}, exclude_none=True) for trial in inherited.trials]
    )
    configs, of_configs = _configs([trial.config for trial in inherited.trials], space)
    document = inherited.model_dump(mode="json", exclude={"trials"})
    counted = {"trials": len(inherited.trials), "outcomes": outcomes, "configs": configs}
    return document | counted, tensors | of_configs


def _inherited(document: Mapping[str, Any], tensors: dict[str, Tensor]) -> Inherited:
    outcomes, configs = (
        from_columns(document["trials"], document[name], _below(tensors, f"{name}/"))
        for name in ("outcomes", "configs")
    )
    trials = [
        EarlierTrial(config=config, reward=outcome.get("reward"), weight=outcome["weight"])
        for outcome, config in zip(outcomes, configs, strict=True)
    ]
    return Inherited(source=document["source"], first=_config(document["first"]), trials=tuple(trials))


def _config(found: Mapping[str, Any] | None) -> Config | None:
    """A configuration from JSON, which has lists where a configuration has tuples."""
    return None if found is None else TypeAdapter(Config).validate_python(found)


def _configs(configs: Sequence[Config], space: SearchSpace) -> tuple[list[str], dict[str, Tensor]]:
    return _columns("configs", configs, [parameter.name for parameter in space.parameters])


def _columns(
    folder: str, records: Sequence[Mapping[str, Value]], names: Sequence[str] = ()
) -> tuple[list[str], dict[str, Tensor]]:
    found, tensors = to_columns(records, names)
    return found, _above(folder, tensors)


def _above(folder: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{folder}/{name}": tensor for name, tensor in tensors.items()}


def _below(named: Mapping[str, T], prefix: str) -> dict[str, T]:
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


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
