"""Algorithms that people tune, each as it is trained on a table: its space, its defaults and a few picks by hand.

LightGBM is optional: without it everything else works.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlhpo_core.data.labelled import Split, split
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.evaluators.metrics import score
from rlhpo_core.evaluators.protocol import Evaluator
from rlhpo_core.evaluators.xgboost.parameters import DEFAULTS, canonical
from rlhpo_core.space.search_space import SearchSpace, builtin_space
from rlhpo_core.study.spec import DataSpec, StudySpec
from rlhpo_core.trial import Config

Floats = NDArray[np.float64]
CLASSIFICATION, REGRESSION = "classification", "regression"
#: Measured of every training; of a support vector machine, which gives no probabilities, all but ``log_loss``.
METRICS = {CLASSIFICATION: ("accuracy", "log_loss", "auc"), REGRESSION: ("r2", "rmse")}
#: The most rows of a table that are trained on, and that score.
TRAINING, VALIDATION = 400, 600
#: Categories of a column that get a column of their own where an algorithm wants numbers.
MOST_CATEGORIES = 10


class Divided:
    """A table, divided into training and validation rows by a seed, as each algorithm wants it."""

    def __init__(self, path: Path, task: str, seed: int) -> None:
        rows = sum(1 for _ in path.open(encoding="utf-8")) - 1
        share = VALIDATION / (TRAINING + VALIDATION) if rows >= TRAINING + VALIDATION else 0.4
        self.data = DataSpec.model_validate(
            {
                "path": str(path), "target": "target", "task": task, "max_rows": TRAINING + VALIDATION,
                "validation": share, "holdout": 0.001,
            }
        )  # fmt: skip
        self.task, self.seed = task, seed
        self.table: Table = load_table(self.data, seed)
        self.split: Split = split(self.table, self.data, seed)
        self.classes = len(self.table.classes)
        target = self.table.target[self.split.train]
        # As XGBoost's evaluator does it; those that do not care about the unit get the same result.
        self._centre, self._scale = (0.0, 1.0) if self.classes else (float(target.mean()), float(target.std()) or 1.0)

    @property
    def target(self) -> Floats:
        """Of the training rows: indices of classes, or standardised numbers."""
        return (self.table.target[self.split.train] - self._centre) / self._scale

    @cached_property
    def frames(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Training and validation rows with numbers and categories, for algorithms that take both."""
        features = self.table.features
        features = features.set_axis([f"c{index}" for index in range(features.shape[1])], axis=1)
        return features.iloc[self.split.train], features.iloc[self.split.validation]

    @cached_property
    def codes(self) -> tuple[Floats, Floats]:
        """The same as numbers: categories as their indices, medians where a cell is missing."""
        train, validation = (
            frame.apply(lambda column: column.cat.codes if column.dtype == "category" else column).to_numpy(np.float64)
            for frame in self.frames
        )
        medians = np.nan_to_num([_median(column) for column in train.T])
        return np.where(np.isnan(train), medians, train), np.where(np.isnan(validation), medians, validation)

    @cached_property
    def standardised(self) -> tuple[Floats, Floats]:
        """Standardised numbers, and a column of zeros and ones for each frequent category."""
        numbers, columns = self.frames[0].dtypes != "category", [[], []]  # type: ignore[var-annotated]
        for index, is_number in enumerate(numbers):
            train, validation = self.codes[0][:, index], self.codes[1][:, index]
            if is_number:
                centre, scale = train.mean(), train.std() or 1.0
                parts = [np.clip((part - centre) / scale, -10, 10)[:, None] for part in (train, validation)]
            else:
                found, counts = np.unique(train, return_counts=True)
                frequent = found[np.argsort(-counts, kind="stable")[:MOST_CATEGORIES]]
                parts = [(part[:, None] == frequent).astype(np.float64) for part in (train, validation)]
            for part, kept in zip(parts, columns, strict=True):
                kept.append(part)
        return np.concatenate(columns[0], axis=1), np.concatenate(columns[1], axis=1)

    @cached_property
    def xgboost(self) -> Evaluator:
        """XGBoost's evaluator of the same rows, which reads the table itself."""
        from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator

        spec = StudySpec.model_validate(
            {
                "name": "bank", "seed": self.seed, "data": self.data.model_dump(), "evaluator": {"kind": "xgboost"},
                "objective": METRICS[self.task][0], "space": "xgboost-wide", "budget": {"trials": 1},
            }
        )  # fmt: skip
        return XGBoostEvaluator(spec, threads=1)

    def scores(self, output: Floats, calibrated: bool = True) -> dict[str, float]:
        """Of the validation rows.

        Args:
            output: Numbers as ``target`` has them, or probabilities (N, K).
            calibrated: Whether the probabilities are more than an order.
        """
        known = self.table.target[self.split.validation]
        if not self.classes:
            output = output * self._scale + self._centre
        elif self.classes == 2:
            output = output[:, 1]
        names = [name for name in METRICS[self.task] if calibrated or name != "log_loss"]
        return {name: score(name, known, output, self.classes) for name in names}


def _median(column: Floats) -> float:
    present = column[~np.isnan(column)]
    return float(np.median(present)) if len(present) else 0.0


@dataclass(frozen=True)
class Algorithm:
    """An algorithm with its hyperparameters."""

    space_name: str
    """Of the space that comes with rlhpo."""
    train: Callable[[Config, Divided], dict[str, float]]
    """Trains with a configuration and scores it. What is left out of the configuration is as the library has it."""
    defaults: Mapping[str, Any]
    """The library's, for what the space tunes; the nearest there is, where that is no value of the space."""
    by_hand: Sequence[Mapping[str, Any]]
    """What somebody who knows the algorithm would try after the defaults, as changes to them."""
    of_task: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Defaults that differ by task."""
    wants: str = "standardised"
    """What it takes of ``Divided``, which is made ready before the clock starts."""
    tasks: Sequence[str] = (CLASSIFICATION, REGRESSION)
    expressed: bool = True
    """Whether the library's defaults are a configuration of the space."""
    earlier: Sequence[Config] = ()
    """What another prior would have tried first, for comparison."""

    @cached_property
    def space(self) -> SearchSpace:
        return builtin_space(self.space_name)

    def default(self, task: str) -> Config:
        """The library's defaults as a configuration of the space, or the nearest."""
        return self.space.nearest({**self.defaults, **self.of_task.get(task, {})})

    def picks(self, task: str) -> list[Config]:
        """The defaults, and then those by hand."""
        base = {**self.defaults, **self.of_task.get(task, {})}
        return [self.default(task), *(self.space.nearest({**base, **change}) for change in self.by_hand)]


# -- how each is trained -----------------------------------------------------------------------------------------------


def _xgboost(config: Config, rows: Divided) -> dict[str, float]:
    measured = rows.xgboost.evaluate(config, lambda step, value: None).metrics
    return {name: float(measured[name]) for name in METRICS[rows.task]}


def _lightgbm(config: Config, rows: Divided) -> dict[str, float]:
    import lightgbm

    kind = lightgbm.LGBMClassifier if rows.classes else lightgbm.LGBMRegressor
    return _fitted(kind(**config, n_jobs=1, random_state=rows.seed, verbosity=-1), rows, rows.frames)


def _hist_gradient_boosting(config: Config, rows: Divided) -> dict[str, float]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if rows.classes else HistGradientBoostingRegressor
    return _fitted(kind(**config, random_state=rows.seed), rows, rows.frames)


def _random_forest(config: Config, rows: Divided) -> dict[str, float]:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if rows.classes else RandomForestRegressor
    return _fitted(kind(**config, n_jobs=1, random_state=rows.seed), rows, rows.codes)


def _extra_trees(config: Config, rows: Divided) -> dict[str, float]:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    kind = ExtraTreesClassifier if rows.classes else ExtraTreesRegressor
    return _fitted(kind(**config, n_jobs=1, random_state=rows.seed), rows, rows.codes)


def _adaboost(config: Config, rows: Divided) -> dict[str, float]:
    from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    kind, tree = (
        (AdaBoostClassifier, DecisionTreeClassifier) if rows.classes else (AdaBoostRegressor, DecisionTreeRegressor)
    )
    return _fitted(kind(estimator=tree(), random_state=rows.seed).set_params(**config), rows, rows.codes)


def _mlp(config: Config, rows: Divided) -> dict[str, float]:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPClassifier if rows.classes else MLPRegressor
    fitting = {**config, "batch_size": min(int(str(config["batch_size"])), len(rows.target))}
    return _fitted(kind(**fitting, random_state=rows.seed), rows, rows.standardised)


def _svm(config: Config, rows: Divided) -> dict[str, float]:
    from scipy.special import softmax
    from sklearn.svm import SVC, SVR

    train, validation = rows.standardised
    # Without an end it may go on for hours.
    limits = {"max_iter": 50_000, "cache_size": 100}
    if not rows.classes:
        return rows.scores(SVR(**config, **limits).fit(train, rows.target).predict(validation))
    output = SVC(**config, **limits).fit(train, rows.target).decision_function(validation)
    output = np.stack([-output, output], axis=1) if output.ndim == 1 else output
    return rows.scores(softmax(output, axis=1), calibrated=False)


def _logistic_regression(config: Config, rows: Divided) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    return _fitted(LogisticRegression(**config, random_state=rows.seed), rows, rows.standardised)


def _knn(config: Config, rows: Divided) -> dict[str, float]:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    kind = KNeighborsClassifier if rows.classes else KNeighborsRegressor
    return _fitted(kind(**config, n_jobs=1), rows, rows.standardised)


def _fitted(model: Any, rows: Divided, features: tuple[Any, Any]) -> dict[str, float]:
    with warnings.catch_warnings():
        # That a training has not converged is what its score says.
        warnings.simplefilter("ignore")
        model.fit(features[0], rows.target)
        output = model.predict_proba(features[1]) if rows.classes else model.predict(features[1])
    return rows.scores(np.asarray(output, dtype=np.float64))


# -- all of them -------------------------------------------------------------------------------------------------------

_FOREST = {"n_estimators": 100, "max_depth": 50, "min_samples_split": 2, "min_samples_leaf": 1}
_FOREST_BY_HAND = (
    {"n_estimators": 500}, {"max_features": 0.5, "n_estimators": 300}, {"min_samples_leaf": 3, "n_estimators": 300},
    {"max_features": 0.25, "min_samples_leaf": 5, "n_estimators": 300},
)  # fmt: skip
_FOREST_OF_TASK = {CLASSIFICATION: {"max_features": "sqrt"}, REGRESSION: {"max_features": 1.0}}
#: The portfolio of the prior from the surrogates of YAHPO Gym (``shipped_prior``), in canonical form: all are gbtree.
_FROM_SURROGATES = tuple(
    dict(zip(
        ("booster", "n_estimators", "reg_lambda", "reg_alpha", "subsample", "learning_rate", "gamma", "max_depth",
         "min_child_weight", "colsample_bytree", "colsample_bylevel"),
        ("gbtree", *values), strict=True,
    ))
    for values in (
        (65, 0.2797292, 0.02738912, 0.9604816, 0.3361943, 0.0002647968, 6, 2.718282, 0.9427438, 0.9779611),
        (81, 0.001135124, 0.1394145, 0.9914105, 0.1443079, 0.0002037846, 13, 2.895932, 1.0, 1.0),
        (48, 0.002191266, 0.09034083, 1.0, 0.7708949, 0.003053309, 11, 4.227068, 0.9983802, 1.0),
        (63, 0.002016277, 0.2310508, 1.0, 0.612843, 0.003892427, 13, 7.951339, 1.0, 0.9994414),
        (48, 26.29471, 0.01975418, 1.0, 0.7388957, 0.02825358, 2, 3.25951, 1.0, 1.0),
    )
)  # fmt: skip
#: By the name of its space: what to take with its defaults.
ALGORITHMS: dict[str, Algorithm] = {
    algorithm.space_name: algorithm
    for algorithm in (
        Algorithm(
            "xgboost-wide", _xgboost, DEFAULTS,
            (
                {"n_estimators": 300, "learning_rate": 0.05},
                {"n_estimators": 500, "learning_rate": 0.03, "max_depth": 4, "subsample": 0.8, "colsample_bytree": 0.8},
                {"n_estimators": 300, "learning_rate": 0.1, "max_depth": 3},
                {"n_estimators": 300, "learning_rate": 0.05, "max_depth": 8, "min_child_weight": 5, "subsample": 0.7,
                 "colsample_bytree": 0.7},
            ),
            wants="xgboost", earlier=_FROM_SURROGATES,
        ),
        Algorithm(
            "lightgbm", _lightgbm,
            {"n_estimators": 100, "learning_rate": 0.1, "num_leaves": 31, "min_child_samples": 20, "subsample": 1.0,
             "colsample_bytree": 1.0, "reg_alpha": 0.0, "reg_lambda": 0.0},
            (
                {"n_estimators": 300, "learning_rate": 0.03},
                {"n_estimators": 300, "learning_rate": 0.05, "num_leaves": 7},
                {"n_estimators": 300, "learning_rate": 0.05, "subsample": 0.8, "colsample_bytree": 0.8,
                 "min_child_samples": 5},
                {"n_estimators": 500, "learning_rate": 0.03, "num_leaves": 15, "colsample_bytree": 0.5,
                 "reg_lambda": 1.0},
            ),
            wants="frames",
        ),
        Algorithm(
            "hist-gradient-boosting", _hist_gradient_boosting,
            {"max_iter": 100, "learning_rate": 0.1, "max_leaf_nodes": 31, "min_samples_leaf": 20,
             "l2_regularization": 0.0, "max_features": 1.0},
            (
                {"max_iter": 300, "learning_rate": 0.03}, {"max_iter": 300, "learning_rate": 0.05, "max_leaf_nodes": 7},
                {"max_iter": 300, "learning_rate": 0.05, "min_samples_leaf": 5, "max_features": 0.5},
                {"max_iter": 200, "learning_rate": 0.05, "max_leaf_nodes": 15, "l2_regularization": 1.0,
                 "max_features": 0.5},
            ),
            wants="frames",
        ),
        Algorithm("random-forest", _random_forest, _FOREST, _FOREST_BY_HAND, _FOREST_OF_TASK, wants="codes"),
        Algorithm("extra-trees", _extra_trees, _FOREST, _FOREST_BY_HAND, _FOREST_OF_TASK, wants="codes"),
        Algorithm(
            "mlp", _mlp,
            {"hidden_layer_sizes": 100, "activation": "relu", "learning_rate_init": 0.001, "alpha": 0.0001,
             "batch_size": 200, "max_iter": 200},
            (
                {"learning_rate_init": 0.01, "batch_size": 64}, {"alpha": 1.0},
                {"learning_rate_init": 0.01, "alpha": 0.1},
                {"activation": "tanh", "learning_rate_init": 0.003, "batch_size": 32, "alpha": 0.01},
            ),
        ),
        Algorithm(
            "svc", _svm, {"C": 1.0, "gamma": 0.05},
            ({"C": 10.0}, {"C": 10.0, "gamma": 0.01}, {"C": 100.0, "gamma": 0.01}, {"C": 1.0, "gamma": 0.2}),
            tasks=(CLASSIFICATION,), expressed=False,
        ),
        Algorithm(
            "svr", _svm, {"C": 1.0, "gamma": 0.05, "epsilon": 0.1},
            ({"C": 10.0}, {"C": 10.0, "gamma": 0.01}, {"C": 100.0, "gamma": 0.01}, {"C": 10.0, "gamma": 0.2}),
            tasks=(REGRESSION,), expressed=False,
        ),
        Algorithm(
            "logistic-regression", _logistic_regression, {"C": 1.0, "l1_ratio": 0.0},
            ({"C": 0.1}, {"C": 10.0}, {"C": 1.0, "l1_ratio": 1.0}, {"C": 0.01}),
            tasks=(CLASSIFICATION,),
        ),
        Algorithm(
            "knn", _knn, {"n_neighbors": 5, "weights": "uniform", "p": 2},
            ({"weights": "distance", "n_neighbors": 10}, {"weights": "distance", "p": 1}, {"n_neighbors": 15},
             {"weights": "distance", "p": 1, "n_neighbors": 20}),
        ),
        Algorithm(
            "adaboost", _adaboost, {"n_estimators": 50, "learning_rate": 1.0, "estimator__max_depth": 1},
            ({"n_estimators": 200}, {"n_estimators": 200, "learning_rate": 0.3, "estimator__max_depth": 3},
             {"n_estimators": 100, "learning_rate": 0.3, "estimator__max_depth": 6},
             {"n_estimators": 200, "estimator__max_depth": 10}),
            {REGRESSION: {"estimator__max_depth": 3}}, wants="codes",
        ),
    )
}  # fmt: skip


def available() -> list[str]:
    """Names of those that are installed."""
    missing = {"lightgbm"} if importlib.util.find_spec("lightgbm") is None else set()
    return [name for name in ALGORITHMS if name not in missing]


def canonical_of(name: str) -> Callable[[Config], Config]:
    """By which two configurations of an algorithm are the same model."""
    return canonical if name == "xgboost-wide" else lambda config: config
