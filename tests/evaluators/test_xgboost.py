"""The XGBoost evaluator on real tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xgboost as xgb
from sklearn import datasets
from sklearn import metrics as scores

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators import build_evaluator
from rlhpo_core.evaluators.metrics import score
from rlhpo_core.evaluators.protocol import StopTrial
from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import StudySpec

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
CONFIG = {"max_depth": 4, "learning_rate": 0.2, "n_estimators": 40, "subsample": 0.8}


def quiet(step: int, value: float) -> None:
    """A reporter that nobody listens to."""


def build(path: Path, metric: str = "accuracy", **fields: Any) -> XGBoostEvaluator:
    evaluator = {"kind": "xgboost", **fields.pop("evaluator", {})}
    spec = StudySpec.model_validate(
        {
            "name": "test",
            "data": {"path": path, "target": "target", **fields.pop("data", {})},
            "evaluator": evaluator,
            "objective": metric,
            "space": "xgboost-paper",
            **fields,
        }
    )
    built = build_evaluator(spec, threads=1)
    assert isinstance(built, XGBoostEvaluator)
    return built


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regression table that ships with scikit-learn."""
    table = datasets.load_diabetes(as_frame=True).frame
    path = tmp_path_factory.mktemp("data") / "diabetes.csv"
    table.to_csv(path, index=False)
    return path


def test_scores_are_those_of_a_booster_trained_by_hand(diabetes: Path) -> None:
    evaluator = build(diabetes, "rmse")
    found = evaluator.evaluate(CONFIG, quiet)
    features, target, parts = evaluator.table.features, evaluator.table.target, evaluator.split
    booster = xgb.train(
        {"max_depth": 4, "learning_rate": 0.2, "subsample": 0.8, "tree_method": "hist", "seed": 0, "nthread": 1},
        xgb.QuantileDMatrix(features.iloc[parts.train], target[parts.train]),
        40,
    )
    output = booster.predict(xgb.DMatrix(features.iloc[parts.validation]))
    assert found.value == pytest.approx(scores.root_mean_squared_error(target[parts.validation], output), rel=1e-6)
    assert found.metrics["mae"] == pytest.approx(scores.mean_absolute_error(target[parts.validation], output), rel=1e-6)
    assert found.metrics["r2"] == pytest.approx(scores.r2_score(target[parts.validation], output), rel=1e-6)


def test_a_trial_run_again_scores_the_same(diabetes: Path) -> None:
    evaluator = build(diabetes, "rmse")
    first = evaluator.evaluate(CONFIG, quiet)
    evaluator.evaluate({**CONFIG, "max_depth": 2, "n_estimators": 7}, quiet)
    assert evaluator.evaluate(CONFIG, quiet) == first
    assert build(diabetes, "rmse").evaluate(CONFIG, quiet) == first


def test_intermediate_values_end_at_the_final_one() -> None:
    curve: list[tuple[int, float]] = []
    evaluator = build(EXAMPLES / "car.csv", evaluator={"report_every": 10})
    found = evaluator.evaluate(CONFIG, lambda step, value: curve.append((step, value)))
    assert [step for step, _ in curve] == [10, 20, 30, 40]
    assert curve[-1][1] == found.value
    shorter = evaluator.evaluate({**CONFIG, "n_estimators": 20}, quiet)
    assert curve[1][1] == shorter.value


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
    found = evaluator.evaluate(CONFIG, lambda step, value: curve.append((step, value)))
    assert [step for step, _ in curve] == [1, 2, 3]
    assert curve[-1][1] == found.value
    assert found.metrics["auc_fold_std"] > 0
    assert 0.6 < found.value < 0.9


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
    found = evaluator.evaluate(CONFIG, quiet)
    assert found.metrics[metric] == found.value
    assert set(found.metrics) == {"accuracy", "balanced_accuracy", "auc", "log_loss"}
    assert all(np.isfinite(value) for value in found.metrics.values())


def test_binary_and_two_column_probabilities_score_the_same() -> None:
    rng = np.random.default_rng(0)
    target, share = rng.integers(0, 2, 200).astype(float), rng.uniform(0.01, 0.99, 200)
    both = np.column_stack([1 - share, share])
    for metric in ("accuracy", "balanced_accuracy", "log_loss"):
        assert score(metric, target, share, 2) == pytest.approx(score(metric, target, both, 2), abs=1e-9)


def test_missing_values_and_unseen_categories_are_served(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "german_credit.csv")
    raw.loc[::7, "duration"] = np.nan
    raw.loc[::5, "purpose"] = None
    raw.to_csv(tmp_path / "gaps.csv", index=False)
    refit = build(tmp_path / "gaps.csv").refit(CONFIG)
    rows = refit.input_example.copy()
    rows.loc[0, "purpose"] = "a purpose never seen"
    served = serve(tmp_path, refit.files)(rows)
    assert served["prediction"].isin([1, 2]).all()
    np.testing.assert_allclose(served[["probability_1", "probability_2"]].sum(axis=1), 1, atol=1e-6)
    again = serve(tmp_path, refit.files)(refit.input_example)
    pd.testing.assert_frame_equal(again, refit.output_example, check_exact=False, rtol=1e-5)


LINEAR = {"booster": "gblinear", "n_estimators": 30, "learning_rate": 0.5, "reg_alpha": 0.001, "reg_lambda": 0.001}


def test_a_linear_booster_is_trained_and_served_with_categories_and_gaps(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "german_credit.csv")
    raw.loc[::7, "duration"] = np.nan
    raw.to_csv(tmp_path / "gaps.csv", index=False)
    evaluator = build(tmp_path / "gaps.csv", evaluator={"report_every": 10})
    steps: list[int] = []
    scored = evaluator.evaluate(LINEAR, lambda step, value: steps.append(step)).value
    assert scored == evaluator.evaluate({**LINEAR, "max_depth": 3}, quiet).value, "it has no trees"
    assert scored > raw["target"].value_counts(normalize=True).max() - 0.05
    assert steps == [10, 20, 30]
    trees = evaluator.evaluate(CONFIG, quiet).value
    assert evaluator.evaluate(LINEAR, quiet).value == scored, "after another booster's rows"
    assert evaluator.evaluate(CONFIG, quiet).value == trees
    refit = evaluator.refit(LINEAR)
    served = serve(tmp_path, refit.files)(refit.input_example)
    pd.testing.assert_frame_equal(served, refit.output_example, check_exact=False, rtol=1e-5)


def test_early_stopping_takes_a_linear_booster_at_its_best(diabetes: Path) -> None:
    config = {**LINEAR, "n_estimators": 300}
    curve: list[tuple[int, float]] = []
    build(diabetes, "rmse", evaluator={"report_every": 1}).evaluate(config, lambda *point: curve.append(point))
    best = next(i for i, (_, v) in enumerate(curve) if v < min([w for _, w in curve[i + 1 : i + 6]], default=np.inf))
    stopping = build(diabetes, "rmse", evaluator={"early_stopping_rounds": 5})
    assert stopping.evaluate(config, quiet).value == pytest.approx(curve[best][1], rel=1e-6)


def serve(folder: Path, files: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The winner behind the script that MLflow would run."""
    from mlflow.pyfunc import PythonModelContext

    from rlhpo_core.evaluators.xgboost.serving import XGBoostTableModel

    for name, content in files.items():
        (folder / name).write_bytes(content)
    context = PythonModelContext({name: str(folder / name) for name in files}, None)
    model = XGBoostTableModel()
    model.load_context(context)
    return lambda rows: model.predict(context, rows)


def test_the_holdout_scores_a_model_that_never_saw_it() -> None:
    evaluator = build(EXAMPLES / "car.csv")
    refit = evaluator.refit(CONFIG)
    data = evaluator.data()
    assert sum(data.rows.values()) == 1728
    assert data.rows["holdout"] == len(evaluator.split.holdout)
    assert set(refit.metrics) == {"accuracy", "balanced_accuracy", "auc", "log_loss"}
    assert 0.8 < refit.metrics["accuracy"] <= 1
    # Trained on more rows than a trial: a different booster.
    assert refit.metrics["accuracy"] != evaluator.evaluate(CONFIG, quiet).value


def test_awkward_column_names_are_no_hindrance(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "car.csv").rename(
        columns={"doors": "doors [n]", "persons": "persons<n>", "safety": "doors (n]"}
    )
    raw.to_csv(tmp_path / "table.csv", index=False)
    refit = build(tmp_path / "table.csv").refit(CONFIG)
    assert "doors [n]" in refit.input_example
    served = serve(tmp_path, refit.files)(refit.input_example)
    pd.testing.assert_frame_equal(served, refit.output_example, check_exact=False, rtol=1e-5)


# -- refusing --------------------------------------------------------------------------------------------------------


def test_the_papers_space_is_known() -> None:
    evaluator = build(EXAMPLES / "car.csv")
    evaluator.check_space(SearchSpace.model_validate({"eta": {"type": "float", "low": 0.1, "high": 0.3}}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"max_dept": {"type": "int", "low": 1, "high": 9}}, r"space\.max_dept: .*did you mean max_depth\?"),
        ({"hidden_units": {"type": "int", "low": 1, "high": 9}}, r"space\.hidden_units: .*known are n_estimators"),
        ({"subsample": {"type": "float", "low": 0.5, "high": 1.5}}, r"space\.subsample: 1\.5 is outside"),
        ({"max_depth": {"type": "float", "low": 1, "high": 9}}, r"space\.max_depth: .*use type int"),
        ({"gamma": {"type": "categorical", "choices": ["a", "b"]}}, r"space\.gamma: 'a' is not a number"),
        ({"grow_policy": {"type": "categorical", "choices": ["depthwise", "up"]}}, r"'up' is not one of depthwise"),
        (
            {
                "eta": {"type": "float", "low": 0.1, "high": 0.3},
                "learning_rate": {"type": "float", "low": 0.1, "high": 0.3},
            },
            r"space\.learning_rate: this is another name of eta",
        ),
    ],
)
def test_a_space_that_xgboost_does_not_know_is_refused(space: dict[str, Any], message: str) -> None:
    evaluator = build(EXAMPLES / "car.csv")
    with pytest.raises(UserError, match=message):
        evaluator.check_space(SearchSpace.model_validate(space))


def test_a_parameter_both_set_and_tuned_is_refused() -> None:
    evaluator = build(EXAMPLES / "car.csv", evaluator={"params": {"max_depth": 3}})
    with pytest.raises(UserError, match=r"evaluator\.params sets max_depth as well"):
        evaluator.check_space(SearchSpace.model_validate({"max_depth": {"type": "int", "low": 1, "high": 9}}))


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
