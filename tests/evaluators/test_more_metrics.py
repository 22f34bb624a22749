"""F1, average precision, MAPE and pinball losses: the same in trials and at the gate, and trained for where needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data.labelled import Labelled
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.metrics import QUANTILES, constant_scores, score
from rlhpo_core.production.bootstrap import scores
from rlhpo_core.study.spec import CLASSIFICATION_METRICS, REGRESSION_METRICS
from tests.helpers.tables import EXAMPLES, build, quiet


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("metric", CLASSIFICATION_METRICS)
def test_the_gate_scores_classes_as_trials_do(metric: str, classes: int) -> None:
    rng = np.random.default_rng(3)
    target = rng.integers(0, classes, 200).astype(np.float64)
    output = rng.dirichlet(np.ones(classes), 200)
    if classes == 2:  # With ties.
        output[:, 1] = output[:, 1].round(1) * 0.8 + 0.1
        output[:, 0] = 1 - output[:, 1]
    weights = rng.integers(1, 4, 200).astype(np.float64)
    given = output[:, 1] if classes == 2 else output
    for each in (np.ones(200), weights):
        at_the_gate = scores(metric, target, output, each[None, :])[0]
        assert at_the_gate == pytest.approx(score(metric, target, given, classes, each))


@pytest.mark.parametrize("metric", REGRESSION_METRICS)
def test_the_gate_scores_numbers_as_trials_do(metric: str) -> None:
    rng = np.random.default_rng(4)
    target, output = rng.normal(5, 1, 200), rng.normal(5, 1, 200)
    weights = rng.integers(1, 4, 200).astype(np.float64)
    assert scores(metric, target, output, weights[None, :])[0] == pytest.approx(
        score(metric, target, output, 0, weights)
    )


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    target = np.exp(x[:, 0] + rng.normal(size=600) * 0.8) + 0.1
    path = tmp_path_factory.mktemp("skewed") / "table.csv"
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "target": target}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("metric", ["mape", "pinball_10", "pinball_90"])
def test_no_other_constant_scores_better(metric: str, skewed: Path) -> None:
    table: Labelled = build(skewed, metric).table
    rows = np.arange(len(table))
    best = constant_scores(table, rows, rows, metric)[metric]
    for answer in np.quantile(table.target, np.linspace(0.01, 0.99, 60)):
        assert score(metric, table.target, np.full(len(rows), answer), 0) >= best - 1e-9


def test_a_pinball_loss_is_trained_for(skewed: Path) -> None:
    """Of the answers a tenth lies above the truth, or nine tenths do."""
    config = {"max_depth": 3, "n_estimators": 60, "learning_rate": 0.1}
    for metric in ("pinball_10", "pinball_90"):
        evaluator = build(skewed, metric)
        refit = evaluator.refit(config)
        rows = evaluator.split.holdout
        answered = evaluator._predict(_booster(refit.files["model.ubj"]), rows, False)
        assert np.mean(evaluator.table.target[rows] < answered) == pytest.approx(QUANTILES[metric], abs=0.1)
        assert refit.metrics[metric] < refit.constant[metric]
        assert evaluator.evaluate(config, quiet).value == pytest.approx(
            evaluator.evaluate(config, quiet).metrics[metric]
        )


def _booster(model: bytes) -> object:
    import xgboost as xgb

    return xgb.Booster(model_file=bytearray(model))


def test_mape_needs_a_target_that_is_never_zero(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "target": np.arange(60) / 2})
    table.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(UserError, match="mape divides by the target, and 'target' is 0 in row 1"):
        build(tmp_path / "table.csv", "mape")


def test_a_baseline_is_the_majority_and_the_defaults() -> None:
    baseline = build(EXAMPLES / "german_credit.csv", "f1").baseline()
    assert baseline.answer == "always '1'"
    assert 0 < baseline.defaults < 1
    assert baseline.text.startswith("XGBoost as it comes: f1 0.")
