"""What a study looks like in MLflow: the names, units and limits of its tags, parameters, metrics and data sets."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mlflow.entities import Dataset, Metric, Param, RunTag

from rlhpo_core import __version__
from rlhpo_core.evaluators.protocol import DataDescription
from rlhpo_core.space.parameters import Fixed, Float, Int, Parameter
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.address import redacted
from rlhpo_core.tracking.provenance import user
from rlhpo_core.trial import Config, History, RoundSummary, Trial, TrialStatus, Value, shown, sign

T = TypeVar("T")

#: What MLflow takes in one request: 100 parameters and 100 tags, and 1000 of everything.
MAX_METRICS, MAX_PARAMS = 800, 100

#: MLflow's status of a run for each way in which a trial ends.
RUN_STATUS = {
    TrialStatus.COMPLETE: "FINISHED",
    # It has done what it was to do. KILLED is of studies that were ended from outside.
    TrialStatus.PRUNED: "FINISHED",
    TrialStatus.FAILED: "FAILED",
    TrialStatus.INFEASIBLE: "FAILED",
}
_CONTEXTS = {"train": "training"}
_COLUMN_TYPES = {"int": "long", "uint": "long", "float": "double", "bool": "boolean", "datetime": "datetime"}
#: Servers before MLflow 3 take no more.
_MAX_PARAM_LENGTH, _MAX_TAG_LENGTH = 500, 5000


def study_tags(spec: StudySpec, study_id: str) -> dict[str, str]:
    """What identifies a study, on its own run and on each trial's."""
    return {
        "rlhpo.study_id": study_id,
        "rlhpo.study": spec.name,
        "rlhpo.version": __version__,
        "rlhpo.mode": spec.tuner.mode,
        "rlhpo.seed": str(spec.seed),
        "rlhpo.evaluator": spec.evaluator.kind,
        "rlhpo.objective": spec.objective.metric,
        "rlhpo.direction": spec.objective.direction,
    }


def study_params(spec: StudySpec) -> dict[str, str]:
    """The study's settings with dotted names, without the space and the budget."""
    sections = {"seed", "data", "evaluator", "objective", "tuner", "stopping"}
    flat = _flat(spec.model_dump(mode="json", include=sections, exclude_none=True))
    return {**flat, "space.hyperparameters": str(len(spec.space.steps))}


def budget(spec: StudySpec) -> str:
    """The study's limits with dotted names, such as ``trials 100, wall_time 3600.0``; times are in seconds."""
    limits = _flat(spec.budget.model_dump(mode="json", exclude_none=True))
    return ", ".join(f"{name} {value}" for name, value in limits.items())


def without_password(spec: StudySpec) -> StudySpec:
    """The study with the password in its tracking URI, if there is one, replaced by ``***``."""
    if spec.tracking.uri is None:
        return spec
    tracking = spec.tracking.model_copy(update={"uri": redacted(spec.tracking.uri)})
    return spec.model_copy(update={"tracking": tracking})


def source_tags() -> dict[str, str]:
    """Tags of MLflow's own columns *User* and *Source*."""
    return {"mlflow.user": user(), "mlflow.source.name": "rlhpo"}


def datasets(data: DataDescription, address: str | None = None) -> dict[str, Dataset]:
    """A data set for each part of the table, by MLflow's name of its context (training, validation, holdout).

    Args:
        address: Where the data lies in an object store; ``None`` if it lies where it was read.
    """
    colspec = [{"name": name, "type": _column_type(dtype), "required": True} for name, dtype in data.columns.items()]
    schema = json.dumps({"mlflow_colspec": colspec})
    return {
        _CONTEXTS.get(part, part): Dataset(
            # MLflow takes two data sets of one name and digest for the same.
            name=f"{data.name}-{part}",
            digest=data.digest[:36],
            source_type="local" if address is None else "s3",
            source=json.dumps({"uri": address or str(data.source)}),
            schema=schema if len(schema) < 1_000_000 else None,
            profile=json.dumps({"num_rows": count, "num_columns": len(data.columns)}),
        )
        for part, count in data.rows.items()
    }


def rows(datasets: Mapping[str, Dataset]) -> dict[str, int]:
    """Number of rows of each part (train, validation, holdout), from what ``datasets`` returned."""
    parts = {context: part for part, context in _CONTEXTS.items()}
    return {
        parts.get(context, context): int(json.loads(dataset.profile)["num_rows"])
        for context, dataset in datasets.items()
    }


def trial_params(trial: Trial) -> dict[str, str]:
    """The configuration as MLflow's parameters."""
    return {name: shown(value) for name, value in trial.config.items()}


def trial_tags(trial: Trial) -> dict[str, str]:
    """What a trial's run says of it: number and round, counted from 1, status, and the error if there was one.

    Of a trial that was stopped early, also why, and at which step.
    """
    tags = {
        "rlhpo.trial": str(trial.proposal.number + 1),
        "rlhpo.round": str(trial.proposal.round + 1),
        "rlhpo.status": str(trial.status),
    }
    if trial.stop is not None:
        tags["rlhpo.stopped"] = trial.stop.reason
        if trial.stop.step is not None:
            tags["rlhpo.stopped_step"] = str(trial.stop.step)
    if trial.error and trial.cause:
        tags["rlhpo.error"] = trial.cause[:300]
        tags["mlflow.note.content"] = f"```\n{trial.error[-4900:]}\n```"
    return tags


def config_of(params: Mapping[str, str], space: SearchSpace) -> Config:
    """The configuration of a trial by the parameters of its run. Raises: ValueError if one is not in the space."""
    texts = [(parameter, params.get(_key(parameter.name))) for parameter in space.parameters]
    config = {parameter.name: _value(parameter, text) for parameter, text in texts if text is not None}
    space.encode([config])
    return config


def _value(parameter: Parameter, text: str) -> Value:
    if isinstance(parameter, Int):
        return int(text)
    if isinstance(parameter, Float):
        return float(text)
    choices = (parameter.value,) if isinstance(parameter, Fixed) else parameter.values
    for choice in choices:
        if _text(shown(choice)) == text:
            return choice
    raise ValueError(f"{parameter.name}: {text!r} is not one of {list(choices)}")


def curve_key(spec: StudySpec) -> str:
    """Name of the metric with a trial's learning curve."""
    return f"curve.{_key(spec.objective.metric)}"


def trial_metrics(trial: Trial, spec: StudySpec) -> list[Metric]:
    """``objective`` (the same key in every study), what else was measured, the prediction, and the learning curve.

    All in the user's units: the reward model's view of a loss is its reward with the sign turned.
    """
    if trial.curve is None:
        raise ValueError(f"the curve of trial {trial.trial_id} is not at hand; read its file")
    predicted = trial.proposal.predicted
    values: dict[str, float | None] = {
        **{_key(name): value for name, value in trial.metrics.items()},
        _key(spec.objective.metric): trial.value,
        "objective": trial.value,
        "predicted": None if predicted is None else sign(spec.objective.direction) * predicted,
        "predicted_std": trial.proposal.predicted_std,
        "seconds": trial.seconds,
    }
    time = ended_at(trial)
    curve = curve_key(spec)
    return [
        *(Metric(key, float(value), time, 0) for key, value in values.items() if value is not None),
        *(Metric(curve, value, time, step) for step, value in trial.curve),
    ]


def best_metrics(history: History, after: int) -> list[Metric]:
    """Best value after each trial, as steps of the metric ``best``, up to the first trial that is still running.

    Args:
        after: the step, a trial's number counted from 1, up to which they are logged already
    """
    metrics = []
    for step, (trial, best) in enumerate(zip(history.trials, history.best_so_far(), strict=True), start=1):
        if trial.proposal.number + 1 != step:
            break
        if step > after and best is not None:
            metrics.append(Metric("best", best, ended_at(trial), step))
    return metrics


def round_metrics(summary: RoundSummary, time: int) -> list[Metric]:
    """A round's point on each of the study's curves; what is not known is left out.

    Args:
        time: Unix time in milliseconds
    """
    values = {
        "round.trials": summary.trials,
        "round.best": summary.best,
        "model.r2": summary.model_r2,
        "model.rank_correlation": summary.model_rank_correlation,
        "model.coverage": summary.model_coverage,
        "model.imagined_updates": summary.imagined_updates,
        "policy.kl": summary.kl,
        "policy.entropy": summary.entropy,
    }
    return [Metric(key, float(value), time, summary.round + 1) for key, value in values.items() if value is not None]


def param_entities(params: Mapping[str, str]) -> list[Param]:
    """Parameters with names and values that MLflow accepts; values are cut to 500 characters."""
    clean = {_key(name): _text(value) for name, value in params.items()}
    return [Param(name, value) for name, value in clean.items()]


def _text(value: str) -> str:
    """A parameter's value as MLflow takes it: not empty, and not too long."""
    return value[:_MAX_PARAM_LENGTH] or '""'


def tag_entities(tags: Mapping[str, str]) -> list[RunTag]:
    """Tags with values that MLflow and its databases accept, cut to 5000 characters."""
    # PostgreSQL takes no NUL, which the output of a crashed program may hold.
    return [RunTag(name, value.replace("\0", "")[:_MAX_TAG_LENGTH]) for name, value in tags.items()]


def taken(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags by name, with their values as ``tag_entities`` has them."""
    return {tag.key: tag.value for tag in tag_entities(tags)}


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in their order, in parts of ``size``; the last may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def millis(seconds: float) -> int:
    """Unix time in milliseconds, as MLflow keeps it, from seconds."""
    return int(seconds * 1000)


def ended_at(trial: Trial) -> int:
    """When the trial ended, as Unix time in milliseconds."""
    return millis(trial.started_at + trial.seconds)


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in mapping.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: str(value)}
    return flat


def _column_type(dtype: str) -> str:
    """MLflow's name for a pandas dtype."""
    return next((name for prefix, name in _COLUMN_TYPES.items() if dtype.lower().startswith(prefix)), "string")


def _key(name: str) -> str:
    """A name as MLflow takes it for parameters and metrics."""
    key = re.sub(r"[^\w.\- :/]", "_", name)[:250]
    return key if posixpath.normpath(key) == key and not key.startswith(("/", ".")) else re.sub(r"[/.]", "_", key)
