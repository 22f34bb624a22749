from __future__ import annotations

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor

from rlhpo_core.evaluators.metrics import constant_scores, measure, score
from tests.helpers.tables import EXAMPLES, build


def test_binary_and_two_column_probabilities_score_the_same() -> None:
    rng = np.random.default_rng(0)
    target, share = rng.integers(0, 2, 200).astype(float), rng.uniform(0.01, 0.99, 200)
    both = np.column_stack([1 - share, share])
    for metric in ("accuracy", "balanced_accuracy", "log_loss"):
        assert score(metric, target, share, 2) == pytest.approx(score(metric, target, both, 2), abs=1e-9)


@pytest.mark.parametrize("name", ["car", "german_credit"])
def test_the_constant_answer_is_the_share_of_each_class(name: str) -> None:
    evaluator = build(EXAMPLES / f"{name}.csv")
    table, parts = evaluator.table, evaluator.split
    dummy = DummyClassifier(strategy="prior").fit(table.features.iloc[parts.train], table.target[parts.train])
    shares = dummy.predict_proba(table.features.iloc[parts.holdout])
    found = constant_scores(table, parts.train, parts.holdout)
    expected = measure(table, parts.holdout, shares if len(table.classes) > 2 else shares[:, 1])
    assert found == pytest.approx(expected)
    assert (found["auc"], found["balanced_accuracy"]) == (0.5, pytest.approx(1 / len(table.classes)))


def test_the_constant_answer_to_numbers_is_the_mean_and_for_the_mean_absolute_error_the_median() -> None:
    evaluator = build(EXAMPLES / "winequality_white.csv", "rmse", data={"task": "regression"})
    table, parts = evaluator.table, evaluator.split
    found = constant_scores(table, parts.train, parts.holdout)
    for strategy, metrics in (("mean", ("r2", "rmse")), ("median", ("mae",))):
        dummy = DummyRegressor(strategy=strategy).fit(table.features.iloc[parts.train], table.target[parts.train])
        expected = measure(table, parts.holdout, dummy.predict(table.features.iloc[parts.holdout]))
        assert {name: found[name] for name in metrics} == pytest.approx({name: expected[name] for name in metrics})
