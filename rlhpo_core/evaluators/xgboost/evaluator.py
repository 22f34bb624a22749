"""XGBoost on a table, by its native API: score a configuration on validation rows, or train the winner for serving."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xgboost as xgb

from rlhpo_core.arrays import Floats
from rlhpo_core.data import conversions, drift, holdout
from rlhpo_core.data.labelled import Rows, check_folds, folds, split
from rlhpo_core.data.schema import SCHEMA, TableSchema
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.metrics import QUANTILES, check_metric, constant_answer, constant_scores, measure, score
from rlhpo_core.evaluators.protocol import (
    NO_CHECKPOINT,
    Baseline,
    Checkpoint,
    DataDescription,
    Evaluation,
    Evaluator,
    Refit,
    Reporter,
)
from rlhpo_core.evaluators.xgboost.parameters import LINEAR, VOCABULARY, canonical
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.evaluator_specs import XGBoostSpec
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Config

DEFAULT_TREES = 100
DEFAULT_BINS = 256


@dataclass(frozen=True)
class TargetUnit:
    """How a target of numbers is standardised for XGBoost, and how its output is undone.

    XGBoost holds labels in float32 and asks of each split a least gain that is fixed, so in another unit, or with
    another zero, the same target would be learnt worse or not at all.
    """

    centre: float
    scale: float

    @classmethod
    def of(cls, target: Floats) -> TargetUnit:
        """Mean and standard deviation of (N,) numbers."""
        return cls(float(np.mean(target)), float(np.std(target)) or 1.0)

    def standardised(self, target: Floats) -> Floats:
        """(N,) numbers as XGBoost gets them."""
        return (target - self.centre) / self.scale

    def undone(self, output: Floats) -> Floats:
        """XGBoost's output for (N,) rows in the target's own unit, float64."""
        return output.astype(np.float64) * self.scale + self.centre


class XGBoostEvaluator(Evaluator):
    """Keeps the table and its quantised matrices between trials, nothing that changes a score."""

    has_model: ClassVar[bool] = True

    def __init__(self, spec: StudySpec, threads: int, schema: TableSchema | None = None) -> None:
        """Load and divide the table.

        Args:
            schema: By which it is read; ``None`` to infer it.

        Raises: UserError if the table or a setting cannot be used.
        """
        assert isinstance(spec.evaluator, XGBoostSpec)
        assert spec.data is not None
        self.settings = spec.evaluator
        self.metric = spec.objective.metric
        self.maximize = spec.objective.direction == "maximize"
        self.seed = spec.seed
        VOCABULARY.check_params(self.settings.params)
        self.source = spec.data.path
        self.table = self.read(spec, schema)
        check_metric(self.metric, self.table)
        self.split = split(self.table, spec.data, spec.seed)
        if self.settings.folds is not None:
            # What is too rare for them is said before the first trial.
            check_folds(self.table, holdout.training_rows(self.split), self.settings.folds)
            self._folds()
        self.unit = None if self.table.classes else TargetUnit.of(self.table.target[self.split.train])
        self.device = _check_device(spec.execution.device)
        self.params: dict[str, Any] = {
            "tree_method": "hist",
            "nthread": threads,
            "device": self.device,
            "seed": spec.seed % 2**31,
            "disable_default_eval_metric": True,
            **_objective(self.table, self.metric),
        }
        self._matrices: dict[tuple[str, int], xgb.DMatrix] = {}

    @staticmethod
    def read(spec: StudySpec, schema: TableSchema | None = None) -> Table:
        """The table. Raises: UserError if it cannot be used."""
        assert spec.data is not None
        return load_table(spec.data, spec.seed, schema)

    @staticmethod
    def defaults(spec: StudySpec) -> Config:
        """What is closest to XGBoost's own defaults."""
        return VOCABULARY.default_in(spec.space)

    @staticmethod
    def canonical(config: Config) -> Config:
        """``gbtree`` for ``dart`` that drops no tree, and no two linear models that differ in what is about trees."""
        return canonical(config)

    def check_space(self, space: SearchSpace) -> None:
        """Raises: UserError, naming each hyperparameter that XGBoost does not have or that leaves its range."""
        VOCABULARY.check_space(space, self.settings.params)

    @staticmethod
    def check_unread(spec: StudySpec) -> None:
        """As ``check_space`` does it, and ``evaluator.params``. Raises: UserError, naming each."""
        assert isinstance(spec.evaluator, XGBoostSpec)
        VOCABULARY.check_params(spec.evaluator.params)
        VOCABULARY.check_space(spec.space, spec.evaluator.params)

    def data(self) -> DataDescription:
        """The table, its parts and its columns as they were read."""
        dtypes = {str(name): str(dtype) for name, dtype in self.table.features.dtypes.items()}
        parts = {"train": self.split.train, "validation": self.split.validation, "holdout": self.split.holdout}
        return DataDescription(
            name=self.source.name.split(".")[0],
            source=self.source,
            digest=self.table.digest,
            rows={name: len(rows) for name, rows in parts.items()},
            columns={**dtypes, self.table.target_name: "category" if self.table.classes else "float64"},
            schema=self.table.schema,
            notes=self.table.notes,
        )

    def evaluate(self, config: Config, report: Reporter, checkpoint: Checkpoint = NO_CHECKPOINT) -> Evaluation:
        """Train on the training rows and score the validation rows; with ``folds``, the mean over the folds.

        Reports the objective every ``report_every`` trees, or, with folds, the mean so far after each fold; not at the
        end.
        """
        if self.settings.folds is None:
            _, measured = self._train(config, self.split.train, self.split.validation, report, cache=True)
            # Early stopping goes back to the best number of trees, which the curve may have passed.
            trees = self._native(config)[1] if self.settings.early_stopping_rounds is None else None
            return Evaluation(measured[self.metric], measured, trees)
        results: list[dict[str, float]] = []
        for training, validation in self._folds():
            _, measured = self._train(config, training, validation, None, cache=False)
            results.append(measured)
            if len(results) < self.settings.folds:
                report(len(results), float(np.mean([result[self.metric] for result in results])))
        means = {name: float(np.mean([result[name] for result in results])) for name in results[0]}
        spread = float(np.std([result[self.metric] for result in results]))
        return Evaluation(means[self.metric], {**means, f"{self.metric}_fold_std": spread}, self.settings.folds)

    def baseline(self) -> Baseline:
        """XGBoost's own defaults, and the answer that looks at no column, scored as trials are."""
        pairs = [(self.split.train, self.split.validation)]
        if self.settings.folds is not None:
            pairs = self._folds()
        constants = [constant_scores(self.table, *pair, self.metric)[self.metric] for pair in pairs]
        return Baseline(
            metric=self.metric,
            constant=float(np.mean(constants)),
            answer=constant_answer(self.table, self.split.train, self.metric),
            defaults=self.evaluate({}, lambda step, value: None).value,
            library="XGBoost",
        )

    def refit(self, config: Config) -> Refit:
        """Train on train + validation and score the holdout once.

        With early stopping, the number of trees is the one that served validation best.
        """
        # Imports MLflow, which trials do without.
        from rlhpo_core.evaluators.xgboost.serving import answer

        if self.settings.early_stopping_rounds is not None:
            booster, _ = self._train(config, self.split.train, self.split.validation, None, cache=True)
            config = {**config, "n_estimators": booster.num_boosted_rounds()}
        rows = holdout.training_rows(self.split)
        params, trees = self._native(config)
        booster = xgb.train(params, self._matrix(rows, params, None), trees, verbose_eval=False)
        linear = _is_linear(params)
        output = self._predict(booster, self.split.holdout, linear)
        packages = ("mlflow", "numpy", "pandas", "xgboost")
        return Refit(
            files={
                "model.ubj": bytes(booster.save_raw("ubj")),
                "table.json": json.dumps(self._signature(), indent=1).encode(),
                # Not for serving: by what a later retuning reads its table, and what it compares that with.
                SCHEMA: self.table.schema.model_dump_json().encode(),
                holdout.PROFILE: drift.profile(self.table).model_dump_json().encode(),
                holdout.SEEN: holdout.to_bytes(holdout.training_keys(self.table, self.split)),
            },
            serving=Path(__file__).with_name("serving.py"),
            # What turns cells into numbers, as it is now: served, it stays so whatever rlhpo makes of it.
            modules=(Path(conversions.__file__),),
            requirements=tuple(f"{name}=={metadata.version(name)}" for name in packages),
            input_example=self.table.raw(rows[:5]),
            output_example=answer(self._predict(booster, rows[:5], linear), self.table.classes),
            metrics=measure(self.table, self.split.holdout, output, self.metric),
            constant=constant_scores(self.table, rows, self.split.holdout, self.metric),
        )

    def _folds(self) -> list[tuple[Rows, Rows]]:
        assert self.settings.folds is not None
        return folds(self.table, holdout.training_rows(self.split), self.settings.folds, self.seed)

    def _train(
        self, config: Config, training: Rows, validation: Rows, report: Reporter | None, cache: bool
    ) -> tuple[xgb.Booster, dict[str, float]]:
        """A booster trained on some rows, and all metrics on others."""
        params, trees = self._native(config)
        train_matrix = self._matrix(training, params, "train" if cache else None)
        watched = self._matrix(validation, params, "validation" if cache else None, reference=train_matrix)
        target, weights = self.table.target[validation], self.table.weights_of(validation)

        def objective(output: Floats) -> float:
            return score(self.metric, target, self._undone(output), len(self.table.classes), weights)

        callbacks: list[xgb.callback.TrainingCallback] = []
        if report is not None:
            callbacks.append(_Report(self.settings.report_every, trees, watched, objective, report))
        early: dict[str, Any] = {}
        if self.settings.early_stopping_rounds is not None:
            callbacks.append(
                xgb.callback.EarlyStopping(
                    rounds=self.settings.early_stopping_rounds,
                    metric_name=self.metric,
                    maximize=self.maximize,
                    save_best=not _is_linear(params),
                )
            )
            early = {"custom_metric": lambda output, _: (self.metric, objective(output))}
        booster = xgb.train(
            params,
            train_matrix,
            trees,
            evals=[(watched, "validation")],
            callbacks=callbacks,
            verbose_eval=False,
            **early,
        )
        if early and _is_linear(params):
            # It has no trees that could be cut off: trained again up to its best.
            booster = xgb.train(params, train_matrix, booster.best_iteration + 1, verbose_eval=False)
        return booster, measure(self.table, validation, self._undone(booster.predict(watched)), self.metric)

    def last_step(self, config: Config) -> int:
        """The number of boosting rounds."""
        return self._native(config)[1]

    def _native(self, config: Config) -> tuple[dict[str, Any], int]:
        """XGBoost's parameters and the number of boosting rounds."""
        given: dict[str, Any] = {
            VOCABULARY.native(name): value for name, value in {**self.settings.params, **config}.items()
        }
        trees = int(given.pop("n_estimators", DEFAULT_TREES))
        if _is_linear(given):
            shared = {name: value for name, value in self.params.items() if name not in ("tree_method", "device")}
            kept = {name: value for name, value in given.items() if name in LINEAR}
            # Its other updater, shotgun, comes out differently each time.
            return {**shared, **kept, "updater": "coord_descent"}, trees
        return {**self.params, **given}, trees

    def _matrix(
        self, rows: Rows, params: Mapping[str, Any], name: str | None, reference: xgb.DMatrix | None = None
    ) -> xgb.DMatrix:
        """Quantised rows, or plain ones for a linear booster; kept under a name, one per name, since quantising costs
        as much as many trees.
        """
        bins = 0 if _is_linear(params) else int(params.get("max_bin", DEFAULT_BINS))
        if name is not None and (name, bins) in self._matrices:
            return self._matrices[name, bins]
        frame, target = self._named(self.table.features.iloc[rows]), self.table.target[rows]
        target = target if self.unit is None else self.unit.standardised(target)
        weights = self.table.weights_of(rows)
        if _is_linear(params):
            matrix = xgb.DMatrix(_one_hot(frame), target, weight=weights, nthread=params["nthread"])
        else:
            matrix = xgb.QuantileDMatrix(
                frame, target, weight=weights, ref=reference, max_bin=bins, nthread=params["nthread"],
                enable_categorical=True,
            )  # fmt: skip
        if name is not None:
            self._matrices = {key: kept for key, kept in self._matrices.items() if key[0] != name}
            self._matrices[name, bins] = matrix
        return matrix

    def _predict(self, booster: xgb.Booster, rows: Rows, linear: bool) -> Floats:
        frame = self._named(self.table.features.iloc[rows])
        frame = _one_hot(frame) if linear else frame
        return self._undone(
            booster.predict(xgb.DMatrix(frame, nthread=self.params["nthread"], enable_categorical=True))
        )

    def _undone(self, output: Floats) -> Floats:
        """A booster's output in the target's unit; probabilities as they are."""
        return output if self.unit is None else self.unit.undone(output)

    def _named(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.set_axis(_booster_names([str(name) for name in frame.columns]), axis=1)

    def _signature(self) -> dict[str, Any]:
        """What serving needs to turn raw rows into what the booster was trained on, and its output into an answer."""
        columns = [str(name) for name in self.table.features.columns]
        return {
            "task": self.table.task,
            "target": self.table.target_name,
            "columns": columns,
            "described": {
                name: self.table.schema.columns[name].model_dump(mode="json", exclude={"note"}) for name in columns
            },
            "booster_columns": _booster_names(columns),
            "classes": list(self.table.classes),
            "unit": {"centre": 0.0, "scale": 1.0} if self.unit is None else asdict(self.unit),
        }


class _Report(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Scores validation after every so many trees. XGBoost adds up predictions as trees come, so this stays cheap."""

    def __init__(self, every: int | None, trees: int, watched: xgb.DMatrix, objective: Any, report: Reporter) -> None:
        super().__init__()
        self.every, self.trees = every, trees
        self.watched, self.objective, self.report = watched, objective, report

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: object) -> bool:
        if _is_due(epoch + 1, self.every) and epoch + 1 < self.trees:
            self.report(epoch + 1, self.objective(model.predict(self.watched)))
        return False


def _is_due(trees: int, every: int | None) -> bool:
    """Whether to report after so many trees; ``None`` is every ten up to 200, and from then on every tenth or so."""
    return trees % (10 * max(1, trees // 100) if every is None else every) == 0


def _one_hot(frame: pd.DataFrame) -> pd.DataFrame:
    """A linear booster takes no categories: a column of 0 and 1 for each. ``serving`` does the same."""
    wide = pd.get_dummies(frame, dtype="float64")
    return wide.set_axis([str(i) for i in range(wide.shape[1])], axis=1)


def _is_linear(params: Mapping[str, Any]) -> bool:
    return params.get("booster") == "gblinear"


def _booster_names(names: Sequence[str]) -> list[str]:
    """Distinct names that XGBoost takes: it refuses three characters, and where one is replaced two may collide."""
    taken, made = set(names), []
    for i, name in enumerate(names):
        called = re.sub(r"[\[\]<]", "_", name)
        if called != name:
            called = f"{called}_{i}"
            while called in taken:
                called += "_"
            taken.add(called)
        made.append(called)
    return made


def _objective(table: Table, metric: str) -> dict[str, Any]:
    if metric in QUANTILES:  # The mean would be a poor answer.
        return {"objective": "reg:quantileerror", "quantile_alpha": QUANTILES[metric]}
    if table.task == "regression":
        return {"objective": "reg:squarederror"}
    if len(table.classes) == 2:
        return {"objective": "binary:logistic"}
    return {"objective": "multi:softprob", "num_class": len(table.classes)}


def _check_device(device: str) -> str:
    """Raises: UserError if there is no GPU that XGBoost can use; by itself it would quietly train on the CPU."""
    if device == "cuda":
        with xgb.config_context(verbosity=0):
            probe = xgb.train({"device": "cuda"}, xgb.DMatrix(np.zeros((2, 1)), np.zeros(2)), 1)
        if not json.loads(probe.save_config())["learner"]["generic_param"]["device"].startswith("cuda"):
            raise UserError("execution.device: cuda, but XGBoost finds no GPU here; check nvidia-smi, or set cpu")
    return device
