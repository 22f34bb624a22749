"""The XGBoost evaluator on real tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xgboost as xgb
from sklearn import datasets
from sklearn import metrics as scores

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import StopTrial
from rlhpo_core.study.spec import CLASSIFICATION_METRICS
from tests.helpers.tables import CONFIG, EXAMPLES, LINEAR, build, quiet


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regression table that ships with scikit-learn."""
    table = datasets.load_diabetes(as_frame=True).frame
    path = tmp_path_factory.mktemp("data") / "diabetes.csv"
    table.to_csv(path, index=False)
    return path


def test_scores_are_those_of_a_booster_trained_by_hand(diabetes: Path) -> None:
    evaluator = build(diabetes, "rmse")
    result = evaluator.evaluate(CONFIG, quiet)
    features, target, parts = evaluator.table.features, evaluator.table.target, evaluator.split
    booster = xgb.train(
        {"max_depth": 4, "learning_rate": 0.2, "subsample": 0.8, "tree_method": "hist", "seed": 0, "nthread": 1},
        xgb.QuantileDMatrix(features.iloc[parts.train], target[parts.train]),
        40,
    )
    output = booster.predict(xgb.DMatrix(features.iloc[parts.validation]))
    assert result.value == pytest.approx(scores.root_mean_squared_error(target[parts.validation], output), rel=1e-6)
    assert result.metrics["mae"] == pytest.approx(
        scores.mean_absolute_error(target[parts.validation], output), rel=1e-6
    )
    assert result.metrics["r2"] == pytest.approx(scores.r2_score(target[parts.validation], output), rel=1e-6)


def test_a_trial_run_again_scores_the_same(diabetes: Path) -> None:
    evaluator = build(diabetes, "rmse")
    first = evaluator.evaluate(CONFIG, quiet)
    evaluator.evaluate({**CONFIG, "max_depth": 2, "n_estimators": 7}, quiet)
    assert evaluator.evaluate(CONFIG, quiet) == first
    assert build(diabetes, "rmse").evaluate(CONFIG, quiet) == first


def test_intermediate_values_end_at_the_final_one() -> None:
    curve: list[tuple[int, float]] = []
    evaluator = build(EXAMPLES / "car.csv", evaluator={"report_every": 10})
    result = evaluator.evaluate(CONFIG, lambda step, value: curve.append((step, value)))
    assert [step for step, _ in curve] == [10, 20, 30], "at its end a trial is not to be stopped"
    assert result.step == CONFIG["n_estimators"] == 40
    shorter = evaluator.evaluate({**CONFIG, "n_estimators": 20}, quiet)
    assert curve[1][1] == shorter.value
    assert shorter.step == 20


def test_without_a_setting_reports_become_rarer_at_the_same_steps_in_every_trial(diabetes: Path) -> None:
    def steps(trees: int) -> list[int]:
        found: list[int] = []
        config = {**CONFIG, "max_depth": 1, "n_estimators": trees}
        build(diabetes, "rmse").evaluate(config, lambda step, value: found.append(step))
        return found

    long = steps(700)
    assert long[:20] == list(range(10, 210, 10))
    assert long[20:] == [220, 240, 260, 280, 300, 330, 360, 390, 400, 440, 480, 500, 550, 600, 660]
    assert steps(35) == [10, 20, 30]
    assert steps(260) == [step for step in long if step < 260]


def test_a_stop_is_heeded_in_the_middle() -> None:
    seen = []

    def stop(step: int, value: float) -> None:
        seen.append(step)
        raise StopTrial

    evaluator = build(EXAMPLES / "car.csv", evaluator={"report_every": 5})
    with pytest.raises(StopTrial):
        evaluator.evaluate(CONFIG, stop)
    assert seen == [5]
    assert evaluator.evaluate(CONFIG, quiet) == build(EXAMPLES / "car.csv").evaluate(CONFIG, quiet)


def test_cross_validation_is_the_mean_over_folds_and_reports_after_each() -> None:
    curve: list[tuple[int, float]] = []
    evaluator = build(EXAMPLES / "german_credit.csv", "auc", evaluator={"folds": 3})
    result = evaluator.evaluate(CONFIG, lambda step, value: curve.append((step, value)))
    assert [step for step, _ in curve] == [1, 2]
    assert result.step == 3
    assert abs(curve[-1][1] - result.value) < 0.1
    assert result.metrics["auc_fold_std"] > 0
    assert 0.6 < result.value < 0.9


def test_early_stopping_ends_at_the_best_number_of_trees(diabetes: Path) -> None:
    stopping = build(diabetes, "rmse", evaluator={"early_stopping_rounds": 10})
    config = {"max_depth": 3, "learning_rate": 0.3, "n_estimators": 400}
    curve: list[tuple[int, float]] = []
    full = build(diabetes, "rmse", evaluator={"report_every": 1})
    full.evaluate(config, lambda step, value: curve.append((step, value)))
    # The first minimum that stays unbeaten for ten trees.
    best = next(i for i, (_, v) in enumerate(curve) if v < min([w for _, w in curve[i + 1 : i + 11]], default=np.inf))
    assert stopping.evaluate(config, quiet).value == pytest.approx(curve[best][1], rel=1e-6)
    trees = json.loads(xgb.Booster(model_file=bytearray(stopping.refit(config).files["model.ubj"])).save_config())
    count = int(trees["learner"]["gradient_booster"]["gbtree_model_param"]["num_trees"])
    assert count == curve[best][0]


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "auc", "log_loss"])
@pytest.mark.parametrize("name", ["car", "german_credit"])
def test_metrics_agree_with_scikit_learn(metric: str, name: str) -> None:
    evaluator = build(EXAMPLES / f"{name}.csv", metric)
    result = evaluator.evaluate(CONFIG, quiet)
    assert result.metrics[metric] == result.value
    assert set(result.metrics) == set(CLASSIFICATION_METRICS)
    assert all(np.isfinite(value) for value in result.metrics.values())


def test_a_linear_booster_is_trained_on_categories_and_gaps(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "german_credit.csv")
    raw.loc[::7, "duration"] = np.nan
    raw.to_csv(tmp_path / "gaps.csv", index=False)
    evaluator = build(tmp_path / "gaps.csv", evaluator={"report_every": 10})
    steps: list[int] = []
    scored = evaluator.evaluate(LINEAR, lambda step, value: steps.append(step)).value
    assert scored == evaluator.evaluate({**LINEAR, "max_depth": 3}, quiet).value, "it has no trees"
    assert scored > raw["target"].value_counts(normalize=True).max() - 0.05
    assert steps == [10, 20]
    trees = evaluator.evaluate(CONFIG, quiet).value
    assert evaluator.evaluate(LINEAR, quiet).value == scored, "after another booster's rows"
    assert evaluator.evaluate(CONFIG, quiet).value == trees


def test_early_stopping_takes_a_linear_booster_at_its_best(diabetes: Path) -> None:
    config = {**LINEAR, "n_estimators": 300}
    curve: list[tuple[int, float]] = []
    build(diabetes, "rmse", evaluator={"report_every": 1}).evaluate(config, lambda *point: curve.append(point))
    best = next(i for i, (_, v) in enumerate(curve) if v < min([w for _, w in curve[i + 1 : i + 6]], default=np.inf))
    stopping = build(diabetes, "rmse", evaluator={"early_stopping_rounds": 5})
    assert stopping.evaluate(config, quiet).value == pytest.approx(curve[best][1], rel=1e-6)


def test_the_holdout_scores_a_model_that_never_saw_it() -> None:
    evaluator = build(EXAMPLES / "car.csv")
    refit = evaluator.refit(CONFIG)
    data = evaluator.data()
    assert sum(data.rows.values()) == 1728
    assert data.rows["holdout"] == len(evaluator.split.holdout)
    assert set(refit.metrics) == set(CLASSIFICATION_METRICS)
    assert 0.8 < refit.metrics["accuracy"] <= 1
    # Trained on more rows than a trial: a different booster.
    assert refit.metrics["accuracy"] != evaluator.evaluate(CONFIG, quiet).value


# -- refusing --------------------------------------------------------------------------------------------------------


def test_an_unknown_fixed_parameter_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluator\.params\.tree_metod"):
        build(EXAMPLES / "car.csv", evaluator={"params": {"tree_metod": "hist"}})


def test_a_metric_of_the_other_task_is_refused() -> None:
    with pytest.raises(UserError, match="rmse does not fit classification of 'target'; choose one of accuracy"):
        build(EXAMPLES / "car.csv", "rmse")


def test_a_gpu_that_is_not_there_is_refused_and_not_replaced_in_silence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="XGBoost finds no GPU here"):
        build(EXAMPLES / "car.csv", execution={"device": "cuda"})
