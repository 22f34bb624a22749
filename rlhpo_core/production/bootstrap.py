"""Scores of weighted rows, for many sets of weights at once: what a bootstrap needs.

A resample of rows with replacement is a set of whole weights: how often each row was drawn. With all weights 1 a score
is scikit-learn's, and with others as well, if they are given to it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlhpo_core.arrays import Bools, Floats
from rlhpo_core.data.labelled import Rows
from rlhpo_core.evaluators.metrics import QUANTILES

#: Weights held in memory at once.
_CELLS = 4_000_000
_TINY = np.finfo(np.float64).eps


def draws(rows: int, resamples: int, seed: int, groups: Rows | None = None) -> Iterator[Floats]:
    """Weights of bootstrap resamples, a chunk at a time.

    Args:
        rows: How many rows are drawn from, and drawn in each resample.
        resamples: How many there are in all.
        groups: (rows,): the group of each, counted from 0 without gaps. Groups are drawn whole then, as many as there
            are (Davison & Hinkley 1997, section 3.8): rows of one group say less than as many of different ones.

    Yields: (B, rows): how often each row was drawn; B as many as fit into memory easily.
    """
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // rows)
    units = rows if groups is None else int(groups.max()) + 1
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn = rng.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)
        yield times if groups is None else times[:, groups]


def scores(metric: str, target: Floats, output: Floats, weights: Floats) -> Floats:
    """The metric for each set of weights, (B,); NaN where it is not defined (AUC of one class).

    Args:
        metric: One of ``study.spec.METRICS``.
        target: (N,) numbers, or indices of classes.
        output: (N,) numbers, or probabilities (N, K).
        weights: (B, N), at least 0.

    Raises: ValueError if there is no such metric.
    """
    total = weights.sum(1)
    if metric == "mape":
        return np.asarray(weights @ (np.abs(output - target) / np.maximum(np.abs(target), _TINY)) / total)
    if metric in QUANTILES:
        below = target - output
        return np.asarray(weights @ np.maximum(QUANTILES[metric] * below, (QUANTILES[metric] - 1) * below) / total)
    if metric in ("mae", "rmse", "r2"):
        errors = np.abs(output - target) if metric == "mae" else (output - target) ** 2
        mean = weights @ errors / total
        if metric == "r2":
            variance = weights @ target**2 / total - (weights @ target / total) ** 2
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.asarray(np.where(variance > 1e-12, 1 - mean / variance, np.nan))
        return np.asarray(np.sqrt(mean) if metric == "rmse" else mean)
    if metric == "accuracy":
        return np.asarray(weights @ (output.argmax(1) == target).astype(np.float64) / total)
    if metric == "log_loss":
        return np.asarray(weights @ losses(target, output) / total)
    classes = range(output.shape[1])
    if metric == "balanced_accuracy":
        correct = (output.argmax(1) == target).astype(np.float64)
        return _mean_of_known([_share(weights, target == k, correct) for k in classes])
    if metric == "f1":
        chosen = output.argmax(1)
        of_class = [_f1(weights, target == k, chosen == k) for k in classes]
        return of_class[1] if len(classes) == 2 else np.asarray(np.mean(of_class, axis=0))
    if metric == "average_precision":
        if len(classes) == 2:
            return _average_precision(output[:, 1], target == 1, weights)
        return _mean_of_known([_average_precision(output[:, k], target == k, weights) for k in classes])
    if metric == "auc":
        if len(classes) == 2:
            return _auc(output[:, 1], target == 1, weights)
        return _mean_of_known([_auc(output[:, k], target == k, weights) for k in classes])
    raise ValueError(f"unknown metric {metric!r}")


def losses(target: Floats, output: Floats) -> Floats:
    """The log-loss of each row, (N,).

    Args:
        target: (N,) indices of classes.
        output: Probabilities (N, K), which need not add up to 1.
    """
    shares = output / output.sum(1, keepdims=True)
    of_target = shares[np.arange(len(target)), target.astype(np.int64)]
    return np.asarray(-np.log(np.clip(of_target, np.finfo(np.float64).eps, 1.0)))


def _share(weights: Floats, rows: Bools, correct: Floats) -> Floats:
    """Weighted mean of ``correct`` over some rows, (B,)."""
    total = weights[:, rows].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights[:, rows] @ correct[rows] / total)


def _mean_of_known(values: list[Floats]) -> Floats:
    """The mean of those that are defined, (B,); NaN if none is."""
    table = np.stack(values)
    known = np.isfinite(table)
    count = known.sum(0)
    return np.asarray(np.where(count > 0, np.where(known, table, 0.0).sum(0) / np.maximum(count, 1), np.nan))


def _auc(score: Floats, positive: Bools, weights: Floats) -> Floats:
    """Area under the ROC curve, (B,); ties count half."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    sorted_weights, sorted_positive = weights[:, order], positive[order]
    gains = np.add.reduceat(sorted_weights * sorted_positive, starts, axis=1)
    others = np.add.reduceat(sorted_weights * ~sorted_positive, starts, axis=1)
    below = np.cumsum(others, axis=1) - others / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((gains * below).sum(1) / (gains.sum(1) * others.sum(1)))


def _f1(weights: Floats, positive: Bools, chosen: Bools) -> Floats:
    """Harmonic mean of precision and recall, (B,); 0 where nothing is right."""
    right = weights @ (positive & chosen).astype(np.float64)
    both = weights @ positive.astype(np.float64) + weights @ chosen.astype(np.float64)
    return np.asarray(2 * right / np.maximum(both, _TINY))


def _average_precision(score: Floats, positive: Bools, weights: Floats) -> Floats:
    """Precision at each threshold, weighted by the recall that it adds, (B,); NaN without positive rows."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    ends = np.flatnonzero(np.concatenate([ranked[1:] != ranked[:-1], [True]]))
    drawn, hits = weights[:, order], weights[:, order] * positive[order]
    chosen, right = np.cumsum(drawn, axis=1)[:, ends], np.cumsum(hits, axis=1)[:, ends]
    gained = np.diff(right, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(chosen > 0, right / np.maximum(chosen, _TINY), 0.0)
        return np.asarray((precision * gained).sum(1) / right[:, -1])
