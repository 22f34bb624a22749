"""StudySpec: what to tune, on what data, with what budget. Read from YAML or JSON, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote

from pydantic import AfterValidator, Field, ValidationError, field_serializer, field_validator, model_validator

from rlhpo_core import addresses
from rlhpo_core.errors import UserError, describe, suggestion
from rlhpo_core.frozen import Frozen
from rlhpo_core.space.search_space import SearchSpace, builtin_space
from rlhpo_core.strict_yaml import parse_yaml, to_yaml
from rlhpo_core.study.cluster_settings import ClusterSpec
from rlhpo_core.study.durations import Duration
from rlhpo_core.study.evaluator_specs import EvaluatorSpec
from rlhpo_core.study.production_settings import AlertsSpec, GateSpec, RetuneSpec
from rlhpo_core.study.stopping_settings import NoStopping, StoppingSpec
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import Config, Direction

#: Metrics that the built-in evaluators compute, with the direction that is better.
METRICS: dict[str, Direction] = {
    "accuracy": "maximize",
    "balanced_accuracy": "maximize",
    "auc": "maximize",
    "log_loss": "minimize",
    "f1": "maximize",
    "average_precision": "maximize",
    "r2": "maximize",
    "rmse": "minimize",
    "mae": "minimize",
    "mape": "minimize",
    "pinball_10": "minimize",
    "pinball_25": "minimize",
    "pinball_50": "minimize",
    "pinball_75": "minimize",
    "pinball_90": "minimize",
}
CLASSIFICATION_METRICS = ("accuracy", "balanced_accuracy", "auc", "log_loss", "f1", "average_precision")
REGRESSION_METRICS = (
    "r2", "rmse", "mae", "mape", "pinball_10", "pinball_25", "pinball_50", "pinball_75", "pinball_90",
)  # fmt: skip

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

StoreAddress = Annotated[str, AfterValidator(addresses.as_store)]
"""A folder, ``file:///…`` or ``s3://bucket/prefix``."""


class ColumnSpec(Frozen):
    """What a column is declared to hold, whatever it looks like; the kind alone will do."""

    kind: Literal["number", "boolean", "category", "time", "drop"]
    """``boolean``: truth values, 0 and 1; ``drop``: the column is not used."""
    format: str | None = None
    """Of times: as ``strptime`` has it, such as ``%d/%m/%Y``; recognised if not set."""
    decimal: Literal[".", ","] | None = None
    """Of numbers: the sign before decimals; ``data.decimal`` if not set."""
    exact: bool = False
    """Of categories: whether spellings that differ by blanks, case or a dot at the end are different ones."""

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, data: Any) -> Any:
        return {"kind": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        for name, kind in (("format", "time"), ("decimal", "number"), ("exact", "category")):
            if getattr(self, name) and self.kind != kind:
                raise ValueError(f"{name} is for columns of kind {kind}, and this one is declared {self.kind}")
        return self


class SplitSpec(Frozen):
    """By what rows are divided into training, validation and holdout."""

    by: Literal["time", "group"]
    """``time``: the holdout has the latest rows; ``group``: rows with the same value stay together."""
    column: str
    """Of times (or numbers that ascend), or of groups such as customers. A column of groups is no feature unless
    ``columns`` declares its kind."""


class DataSpec(Frozen):
    """A table or images, and how they are divided. The holdout is used once, after tuning, to score the winner."""

    path: Path
    """CSV, Parquet or NPZ, a folder of Parquet parts, or one of class folders with images; relative to the study file,
    or an address in an object store (``s3://bucket/key``)."""
    target: str | None = None
    """Column to predict. NPZ files with ``x_train``/``y_train`` need none, nor do folders of images."""
    image: str | None = None
    """Column of a Parquet file that has the encoded images; if not set, the only one that holds bytes."""
    drop: tuple[str, ...] = ()
    """Columns that are not to be used, such as identifiers."""
    columns: dict[str, ColumnSpec] = Field(default_factory=dict)
    """What columns hold, where it is not what they look like: ``{zip: category, price: number, note: drop}``."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Between the fields of a CSV file; recognised if not set."""
    decimal: Literal[".", ","] | None = None
    """The sign before decimals in the text of the file; recognised if not set."""
    encoding: str | None = None
    """Of a CSV file; recognised (UTF-8, UTF-16 with its mark, else Windows-1252) if not set."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """``auto``: text, truth values and integers of few values are classes, other numbers are regressed on."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of all rows that scores the trials."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of all rows that no trial sees."""
    split: SplitSpec | None = None
    """By what rows are divided; at random, each class in proportion, if not set."""
    weight: str | None = None
    """Column that says how much each row counts, in training and in scores; it is no feature."""
    max_rows: Annotated[int, Field(ge=50)] | None = None
    """Use at most this many rows, drawn by seed and stratified; all if not set."""

    @model_validator(mode="before")
    @classmethod
    def _name_columns(cls, data: Any) -> Any:
        """Names of columns that YAML takes for numbers are text."""
        if not isinstance(data, dict):
            return data
        named = dict(data)
        if isinstance(target := named.get("target"), int) and not isinstance(target, bool):
            named["target"] = str(target)
        if isinstance(drop := named.get("drop"), list):
            named["drop"] = [str(name) if type(name) is int else name for name in drop]
        if isinstance(columns := named.get("columns"), dict):
            named["columns"] = {str(name) if type(name) is int else name: kind for name, kind in columns.items()}
        return named

    @field_validator("path", mode="before")
    @classmethod
    def _check_address(cls, path: Any) -> Any:
        """An address in the one form that a path may have without losing what it says."""
        if not isinstance(path, str | Path) or (begin := addresses.BEGIN.match(text := str(path))) is None:
            return path
        if isinstance(path, Path):
            slashes = ":///" if begin[1].lower() == "file" else "://"
            text = begin[1] + slashes + text[begin.end() :]
        address = addresses.as_store(text, "data")
        return Path(unquote(address.removeprefix("file://"))) if address.startswith("file:") else Path(address)

    @field_serializer("path")
    def _written(self, path: Path) -> str:
        return self.address or str(path)

    @property
    def address(self) -> str | None:
        """Where the data lies in an object store, ``s3://bucket/key``; ``None`` if it lies in a file system."""
        text = self.path.as_posix()
        return f"s3://{text.removeprefix('s3:/')}" if text.startswith("s3:/") else None

    @property
    def source(self) -> str:
        """Its address, or its path."""
        return self.address or str(self.path)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Columns that are not used: those of ``drop``, and those that are declared so."""
        declared = (name for name, column in self.columns.items() if column.kind == "drop")
        grouped = self.split is not None and self.split.by == "group" and self.split.column not in self.columns
        special = ([self.split.column] if self.split is not None and grouped else []) + (
            [] if self.weight is None else [self.weight]
        )
        return tuple(dict.fromkeys((*self.drop, *declared, *special)))

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> Self:
        if self.validation + self.holdout >= 1:
            raise ValueError("validation + holdout must leave rows to train on (their sum must be below 1)")
        return self


class ObjectiveSpec(Frozen):
    """What a trial is judged by. The direction of built-in metrics is known; a function's has to be given."""

    metric: str
    """One of ``METRICS``, or a name of the user's own where a function is tuned."""
    direction: Direction = "maximize"
    """Which values are better."""

    @model_validator(mode="before")
    @classmethod
    def _fill_direction(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"metric": data}
        if isinstance(data, dict) and "direction" not in data and isinstance(metric := data.get("metric"), str):
            if metric not in METRICS:
                raise ValueError(
                    f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}, or, if it is your own, say which "
                    "direction is better (direction: maximize, or direction: minimize)"
                    f"{suggestion(metric, METRICS, listing=False)}"
                )
            return {**data, "direction": METRICS[metric]}
        return data


class CostSpec(Frozen):
    """A spending limit: hours of trials × rate, in any currency."""

    limit: Annotated[float, Field(gt=0)]
    """In the currency."""
    per_trial_hour: Annotated[float, Field(gt=0)]
    """Rate in the currency per hour of one trial."""


class BudgetSpec(Frozen):
    """The study ends at whichever comes first. Limits hold over resumes."""

    trials: Annotated[int, Field(ge=1)] = 100
    """Those that failed or were stopped early count."""
    wall_time: Duration | None = None
    """Of the study, without the time between an interruption and its resume."""
    cost: CostSpec | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    """End when this many trials in a row brought no improvement."""
    failures: Annotated[int, Field(ge=1)] | None = 10
    """End when this many trials in a row have failed and none has succeeded yet; infeasible ones have not failed."""


class ExecutionSpec(Frozen):
    """How trials run on this machine."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Trials at once, each in a process of its own; as many as there are cores if not set."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of one trial; cores / workers if not set."""
    trial_timeout: Duration | None = None
    """A trial that takes longer is ended and has failed; no limit if not set."""
    trial_memory_mb: Annotated[int, Field(ge=256)] | None = None
    """A trial that takes more megabytes is ended and has failed; no limit if not set."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What a training run uses; ``cuda`` is refused where there is no GPU."""
    drill: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Trials, counted from 1, that are made to fail: a drill, to see how failures are reported."""


class TrackingSpec(Frozen):
    """Where MLflow is, and under which experiment the study is logged."""

    uri: Annotated[str, AfterValidator(addresses.as_mlflow)] | None = None
    """If not set: ``MLFLOW_TRACKING_URI``; if that is not set: a database in the folder that holds the study's."""
    experiment: str = "rlhpo"
    """Created if there is none of this name."""


class RegistrySpec(Frozen):
    """Under which name the winner is registered; no name, no registration."""

    model: Annotated[str, AfterValidator(addresses.as_model_name)] | None = None
    """Name of a registered model, which is created if there is none."""
    store: StoreAddress | None = None
    """Where promotions are serialised and recorded: a folder, relative to the study file, or the address of a store."""
    must_beat_constant: bool = True
    """Register no winner that is, by the objective, no better on the holdout than the mean or the majority class."""


class WarmStartSpec(Frozen):
    """An earlier study of the same hyperparameters to start from; an address alone will do."""

    study: StoreAddress | None = None
    """Its folder, relative to the study file, or the address of its store."""
    moved: Annotated[float, Field(ge=0)] = 0.0
    """How far the data has moved since (mean population stability index); earlier trials count the less."""
    first: Config | None = None
    """The first configuration to try; the earlier study's best if not set."""

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, data: Any) -> Any:
        return {"study": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.study is None and self.first is None:
            raise ValueError("name the earlier study, or the first configuration to try")
        return self


def _prior(text: str) -> str:
    """As ``StudySpec.prior`` has it; its form alone is checked."""
    return text if text.startswith("models:") else addresses.as_store(text, "a prior")


class StudySpec(Frozen):
    """One study. See examples/ for commented files."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Letters, digits, ``.``, ``_`` and ``-``; names the study's folder and its run."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """All random draws derive from it."""
    data: DataSpec | None = None
    """The table or the images; ``None`` if the evaluator needs none."""
    evaluator: EvaluatorSpec
    objective: ObjectiveSpec
    space: SearchSpace
    """In a file also the name of a space that comes with rlhpo."""
    warm_start: WarmStartSpec | None = None
    prior: Annotated[str, AfterValidator(_prior)] = "auto"
    """What other studies have taught: a file, an address (``s3://…``), a version in MLflow's registry
    (``models:/NAME@ALIAS``), the name of a prior that comes with rlhpo, ``none``, or ``auto``: the one that comes with
    rlhpo for this evaluator and space, if there is one."""
    budget: BudgetSpec = BudgetSpec()
    tuner: TunerSettings = TunerSettings()
    stopping: StoppingSpec = NoStopping()
    """When a trial is stopped early; the name of a rule alone will do."""
    execution: ExecutionSpec = ExecutionSpec()
    cluster: ClusterSpec = ClusterSpec()
    tracking: TrackingSpec = TrackingSpec()
    registry: RegistrySpec = RegistrySpec()
    gate: GateSpec = GateSpec()
    retune: RetuneSpec = RetuneSpec()
    alerts: AlertsSpec = AlertsSpec()

    @model_validator(mode="before")
    @classmethod
    def _resolve_space(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("space"), str):
            return {**data, "space": builtin_space(data["space"])}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError("\n".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        """What does not fit together though each field is sound, all of it."""
        if not _NAME.fullmatch(self.name):
            allowed = "letters, digits, '.', '_' and '-', and starts with a letter or digit"
            yield f"name: {self.name!r} is not a name; it holds {allowed}"
        if self.registry.model is not None and not self.evaluator.has_model:
            yield (
                f"registry.model: there is no model to register of a {self.evaluator.kind}, whose score alone is "
                "known; leave registry.model out, and register what it has trained in the function itself"
            )
        if (needed := self.evaluator.reads) is None:
            return
        if self.data is None:
            what = {"table": "a table", "images": "images"}[needed]
            yield f"data: the {self.evaluator.kind} evaluator needs {what}; add `data: {{path: …, target: …}}`"
        metric = self.objective.metric
        if metric not in METRICS:
            hint = suggestion(metric, METRICS, listing=False)
            yield f"objective.metric: unknown metric {metric!r}; choose one of {', '.join(METRICS)}{hint}"
        elif self.objective.direction != METRICS[metric]:
            yield f"objective.direction: {metric} is better when it is {METRICS[metric]}d; leave the direction out"


def load_study(path: Path, overrides: dict[str, Any] | None = None) -> StudySpec:
    """Read a study file. Relative paths in it start from its folder.

    Args:
        overrides: Replaces fields, as in ``parse_study``.

    Raises: UserError, as ``parse_study`` does, and if the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read the study file {path}: it is no text in UTF-8; save it as that") from error
    except OSError as error:
        raise UserError(f"cannot read the study file {path}: {error}") from error
    return parse_study(text, str(path), path.parent, overrides)


def parse_study(text: str, where: str, base: Path | None = None, overrides: dict[str, Any] | None = None) -> StudySpec:
    """A study from its YAML or JSON.

    Args:
        where: What an error calls the text: a path, or words.
        base: The folder from which relative paths start; ``None`` leaves them as they are.
        overrides: Replaces fields (``seed``), inside mappings too (``budget: {trials: 5}`` keeps the other limits).

    Raises: UserError, naming ``where`` and each wrong field.
    """
    try:
        data = parse_yaml(text)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{where}: a study file is a mapping (name:, data:, evaluator:, …); `rlhpo init` writes one")
    try:
        spec = StudySpec.model_validate(_merged(data, overrides or {}))
    except ValidationError as error:
        told = describe(error, StudySpec)
        raise UserError(f"{where}:\n{told}\n(docs/guide.md describes each field; so does `rlhpo schema`)") from error
    return spec if base is None else located(spec, base)


def located(spec: StudySpec, base: Path) -> StudySpec:
    """With the paths of the study, which are relative to its file, made absolute.

    Args:
        base: The file's folder.
    """
    changes: dict[str, Any] = {}
    if spec.data is not None and spec.data.address is None:
        changes["data"] = spec.data.model_copy(update={"path": (base / spec.data.path).resolve()})
    if spec.warm_start is not None and spec.warm_start.study is not None and "://" not in spec.warm_start.study:
        earlier = str((base / spec.warm_start.study).resolve())
        changes["warm_start"] = spec.warm_start.model_copy(update={"study": earlier})
    if spec.registry.store is not None and "://" not in spec.registry.store:
        store = str((base / spec.registry.store).resolve())
        changes["registry"] = spec.registry.model_copy(update={"store": store})
    if spec.prior.endswith(addresses.PRIOR_FILE) and "://" not in spec.prior:
        changes["prior"] = str((base / spec.prior).resolve())
    return spec.model_copy(update=changes)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        held = merged.get(key)
        merged[key] = _merged(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return merged


def dump_study(spec: StudySpec) -> str:
    """YAML that ``load_study`` reads back to an equal spec."""
    return to_yaml(spec.model_dump(mode="json", exclude_unset=True))
