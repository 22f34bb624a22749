"""Scores of predictions, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import metrics as scores

from rlhpo_core.arrays import Floats
from rlhpo_core.data.labelled import Labelled, Rows
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import CLASSIFICATION_METRICS, REGRESSION_METRICS

#: The quantile that each pinball loss asks for.
QUANTILES = {"pinball_10": 0.1, "pinball_25": 0.25, "pinball_50": 0.5, "pinball_75": 0.75, "pinball_90": 0.9}
#: Metrics that are measured only where they are the objective.
_ON_DEMAND = {*QUANTILES, "mape"}


def score(metric: str, target: Floats, output: Floats, classes: int, weights: Floats | None = None) -> float:
    """One metric of some rows.

    Of two classes, ``f1`` and ``average_precision`` are those of the second; of more, the mean over the classes.

    Args:
        metric: One of ``study.spec.METRICS``.
        target: (N,) numbers, or indices of classes.
        output: (N,) numbers, or probabilities of the second class, or (N, K) probabilities.
        classes: How many there are; 0 for regression.
        weights: (N,) of the rows; ``None`` if all count alike.
    """
    weighted: dict[str, Any] = {"sample_weight": weights}
    if metric in REGRESSION_METRICS:
        if metric in QUANTILES:
            return float(scores.mean_pinball_loss(target, output, alpha=QUANTILES[metric], **weighted))
        error = {
            "r2": scores.r2_score,
            "rmse": scores.root_mean_squared_error,
            "mae": scores.mean_absolute_error,
            "mape": scores.mean_absolute_percentage_error,
        }[metric]
        return float(error(target, output, **weighted))
    chosen = output.argmax(1) if output.ndim == 2 else output > 0.5
    if metric == "accuracy":
        return float(np.average(chosen == target, weights=weights))
    if metric == "balanced_accuracy":
        return float(scores.balanced_accuracy_score(target, chosen, **weighted))
    labels = np.arange(classes)
    if metric == "f1":
        average = {"average": "binary"} if classes == 2 else {"average": "macro", "labels": labels}
        return float(scores.f1_score(target, chosen, zero_division=0.0, **average, **weighted))
    # XGBoost's float32 rows do not sum to 1 exactly enough for scikit-learn.
    output = output.astype(np.float64)
    output = output / output.sum(1, keepdims=True) if output.ndim == 2 else output
    if metric == "auc":
        multi = {"multi_class": "ovr", "labels": labels} if output.ndim == 2 else {}
        return float(scores.roc_auc_score(target, output, **multi, **weighted))
    if metric == "average_precision":
        if output.ndim == 1:
            return float(scores.average_precision_score(target, output, **weighted))
        present = [k for k in labels if (target == k).any()]
        each = [scores.average_precision_score(target == k, output[:, k], **weighted) for k in present]
        return float(np.mean(each))
    return float(scores.log_loss(target, output, labels=labels, **weighted))


def measure(data: Labelled, rows: Rows, output: Floats, objective: str | None = None) -> dict[str, float]:
    """The usual metrics of the task.

    Args:
        rows: Row numbers (N,) in the data.
        output: What a model answers to these rows, as for ``score``.
        objective: Is among them.

    Returns: Metric to score.
    """
    names = [name for name in _of_task(data) if name not in _ON_DEMAND or name == objective]
    weights = data.weights_of(rows)
    return {name: score(name, data.target[rows], output, len(data.classes), weights) for name in names}


def constant_scores(data: Labelled, trained: Rows, rows: Rows, objective: str | None = None) -> dict[str, float]:
    """The usual metrics of the best answer that looks at no column: the mean (for ``mae`` the median), a quantile, or
    each class's share.

    Args:
        trained: Row numbers that the answer is taken from.
        rows: Row numbers (N,) that it is scored on.
        objective: Is among them.

    Returns: Metric to score.
    """
    known, weights = data.target[trained], data.weights_of(trained)
    if not data.classes:
        names = [name for name in _of_task(data) if name not in _ON_DEMAND or name == objective]
        target, counted = data.target[rows], data.weights_of(rows)
        answers = {name: np.full(len(rows), _best_number(name, known, weights)) for name in names}
        return {name: score(name, target, answer, 0, counted) for name, answer in answers.items()}
    shares = np.bincount(known.astype(np.int64), weights, minlength=len(data.classes))
    shares = shares / shares.sum()
    output = np.tile(shares, (len(rows), 1)) if len(shares) > 2 else np.full(len(rows), shares[1])
    return measure(data, rows, output, objective)


def constant_answer(data: Labelled, trained: Rows, metric: str) -> str:
    """That answer, for a person to read."""
    known, weights = data.target[trained], data.weights_of(trained)
    if not data.classes:
        named = {"mae": "the median", "mape": "the median by 1 / target"}
        called = f"the {QUANTILES[metric]:.0%} quantile" if metric in QUANTILES else named.get(metric, "the mean")
        return f"always {called}, {_best_number(metric, known, weights):.4g},"
    if metric not in ("accuracy", "balanced_accuracy", "f1"):
        return "the share of each class"
    shares = np.bincount(known.astype(np.int64), weights, minlength=len(data.classes))
    return f"always {str(data.classes[int(shares.argmax())])!r}"


def _best_number(metric: str, known: Floats, weights: Floats | None) -> float:
    """The constant that scores best on (N,) numbers."""
    if metric in ("r2", "rmse"):
        return float(np.average(known, weights=weights))
    counted = np.ones(len(known)) if weights is None else weights
    if metric == "mape":
        counted = counted / np.maximum(np.abs(known), np.finfo(np.float64).eps)
    return (
        float(np.quantile(known, QUANTILES.get(metric, 0.5), method="inverted_cdf", weights=counted))
        if (weights is not None or metric == "mape")
        else float(np.quantile(known, QUANTILES.get(metric, 0.5)))
    )


def _of_task(data: Labelled) -> tuple[str, ...]:
    return CLASSIFICATION_METRICS if data.task == "classification" else REGRESSION_METRICS


def check_metric(metric: str, data: Labelled) -> None:
    """Raises: UserError if the metric is of another task than the data's."""
    fitting = _of_task(data)
    if metric not in fitting:
        raise UserError(
            f"objective.metric: {metric} does not fit {data.task} of {data.target_name!r}; "
            f"choose one of {', '.join(fitting)}, or set data.task"
        )
    if metric == "mape" and (zeros := np.flatnonzero(data.target == 0)).size:
        raise UserError(
            f"objective.metric: mape divides by the target, and {data.target_name!r} is 0 in row {zeros[0] + 1}; "
            "choose mae, or take these rows out"
        )
