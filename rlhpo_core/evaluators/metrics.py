"""Scores of predictions, by name."""

from __future__ import annotations

import numpy as np
from sklearn import metrics as scores

from rlhpo_core.arrays import Floats
from rlhpo_core.data.labelled import Labelled, Rows
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import CLASSIFICATION_METRICS, REGRESSION_METRICS


def score(metric: str, target: Floats, output: Floats, classes: int) -> float:
    """One metric of some rows.

    Args:
        metric: One of ``study.spec.METRICS``.
        target: (N,) numbers, or indices of classes.
        output: (N,) numbers, or probabilities of the second class, or (N, K) probabilities.
        classes: How many there are; 0 for regression.
    """
    if metric in REGRESSION_METRICS:
        if metric == "r2":
            return float(scores.r2_score(target, output))
        error = scores.root_mean_squared_error if metric == "rmse" else scores.mean_absolute_error
        return float(error(target, output))
    chosen = output.argmax(1) if output.ndim == 2 else output > 0.5
    if metric == "accuracy":
        return float(np.mean(chosen == target))
    if metric == "balanced_accuracy":
        return float(scores.balanced_accuracy_score(target, chosen))
    # XGBoost's float32 rows do not sum to 1 exactly enough for scikit-learn.
    output = output.astype(np.float64)
    output = output / output.sum(1, keepdims=True) if output.ndim == 2 else output
    labels = np.arange(classes)
    if metric == "auc":
        multi = {"multi_class": "ovr", "labels": labels} if output.ndim == 2 else {}
        return float(scores.roc_auc_score(target, output, **multi))
    return float(scores.log_loss(target, output, labels=labels))


def measure(data: Labelled, rows: Rows, output: Floats) -> dict[str, float]:
    """All metrics of the task.

    Args:
        rows: Row numbers (N,) in the data.
        output: What a model answers to these rows, as for ``score``.

    Returns: Metric to score.
    """
    names = CLASSIFICATION_METRICS if data.task == "classification" else REGRESSION_METRICS
    return {name: score(name, data.target[rows], output, len(data.classes)) for name in names}


def constant_scores(data: Labelled, trained: Rows, rows: Rows) -> dict[str, float]:
    """All metrics of the best answer that looks at no column: the mean (for ``mae`` the median), or each class's share.

    Args:
        trained: Row numbers that the answer is taken from.
        rows: Row numbers (N,) that it is scored on.

    Returns: Metric to score.
    """
    known, target = data.target[trained], data.target[rows]
    if not data.classes:
        answers = {"r2": np.mean(known), "rmse": np.mean(known), "mae": np.median(known)}
        return {name: score(name, target, np.full(len(rows), answer), 0) for name, answer in answers.items()}
    shares = np.bincount(known.astype(np.int64), minlength=len(data.classes)) / len(known)
    output = np.tile(shares, (len(rows), 1)) if len(shares) > 2 else np.full(len(rows), shares[1])
    return measure(data, rows, output)


def check_metric(metric: str, data: Labelled) -> None:
    """Raises: UserError if the metric is of another task than the data's."""
    fitting = CLASSIFICATION_METRICS if data.task == "classification" else REGRESSION_METRICS
    if metric not in fitting:
        raise UserError(
            f"objective.metric: {metric} does not fit {data.task} of {data.target_name!r}; "
            f"choose one of {', '.join(fitting)}, or set data.task"
        )
