from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from rlhpo_core.evaluators.metrics import score
from rlhpo_core.production.bootstrap import draws, scores
from rlhpo_core.study.spec import CLASSIFICATION_METRICS, REGRESSION_METRICS


def answers(classes: int, rows: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets, and probabilities with ties that have something to do with them."""
    rng = np.random.default_rng(seed)
    target = rng.integers(classes, size=rows).astype(float)
    raw = rng.random((rows, classes)).round(1) + 0.1
    raw[np.arange(rows), target.astype(int)] += 0.4
    return target, raw / raw.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("metric", CLASSIFICATION_METRICS)
def test_weighted_scores_of_classes_are_scikit_learns_on_the_drawn_rows(metric: str, classes: int) -> None:
    target, output = answers(classes)
    weights = np.concatenate([np.ones((1, 60)), *draws(60, 5, seed=1)])
    values = scores(metric, target, output, weights)
    for value, row in zip(values, weights, strict=True):
        drawn = np.repeat(np.arange(60), row.astype(int))
        shown = output[drawn] if classes > 2 else output[drawn][:, 1]
        # Of more than two classes our own score rounds once more, which breaks ties.
        if metric == "auc" and classes > 2:
            expected = roc_auc_score(target[drawn], shown, multi_class="ovr", labels=range(classes))
        elif metric == "average_precision" and classes > 2:
            present = np.unique(target[drawn]).astype(int)
            expected = np.mean([average_precision_score(target[drawn] == k, shown[:, k]) for k in present])
        else:
            expected = score(metric, target[drawn], shown, classes)
        assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", REGRESSION_METRICS)
def test_weighted_scores_of_numbers_are_scikit_learns_on_the_drawn_rows(metric: str) -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(3, 2, 40)
    output = target + rng.normal(0, 1, 40)
    weights = np.concatenate(list(draws(40, 5, seed=1)))
    for value, row in zip(scores(metric, target, output, weights), weights, strict=True):
        drawn = np.repeat(np.arange(40), row.astype(int))
        assert value == pytest.approx(score(metric, target[drawn], output[drawn], 0), abs=1e-9)


def test_resamples_draw_as_many_rows_as_there_are() -> None:
    weights = np.concatenate(list(draws(50, 30, seed=0)))
    assert weights.shape == (30, 50)
    assert (weights.sum(1) == 50).all()
    assert 0.5 < (weights > 0).mean() < 0.75, "about 1 − 1/e of the rows are in a resample"
    assert np.array_equal(weights, np.concatenate(list(draws(50, 30, seed=0))))


def test_a_score_that_is_not_defined_is_nan() -> None:
    _, output = answers(2)
    assert np.isnan(scores("auc", np.zeros(60), output, np.ones((1, 60)))).all()
    assert np.isnan(scores("r2", np.ones(60), output[:, 0], np.ones((1, 60)))).all()


@pytest.mark.parametrize("metric", [*CLASSIFICATION_METRICS, *REGRESSION_METRICS])
def test_weighted_scores_are_those_of_the_study(metric: str) -> None:
    rng = np.random.default_rng(3)
    weights = rng.uniform(0.1, 5, 60)
    target, output = answers(2)
    if metric in REGRESSION_METRICS:
        output = target + rng.normal(2, 1, 60)
        target = target + 2.0
    shown = output if output.ndim == 1 else output[:, 1]
    classes = 0 if metric in REGRESSION_METRICS else 2
    (value,) = scores(metric, target, output, weights[None])
    assert value == pytest.approx(score(metric, target, shown, classes, weights), abs=1e-9)


def test_groups_are_drawn_whole() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    weights = np.concatenate(list(draws(6, 200, seed=0, groups=groups)))
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all(), "as many groups as there are"
