"""Regression whatever unit the target has: the same study on a·y + b finds the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.xgboost.evaluator import TargetUnit, XGBoostEvaluator
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import Trial
from rlhpo_core.tuner.state import initial_state
from tests.helpers.studies import after_rounds, small_settings
from tests.helpers.tables import CONFIG, LINEAR, build, quiet

#: (a, b); the last three are powers of two, which change no bit but the exponent.
COPIES = [(1e-5, 0), (1e-2, 0), (1e3, 0), (1, 1e7), (-1, 0), (1.8, 32), (2.0**20, 0), (2.0**-30, 0), (-0.25, 0)]
POWERS = COPIES[6:]
SPACE = SearchSpace.model_validate(
    {
        "n_estimators": {"type": "int", "low": 5, "high": 40},
        "max_depth": {"type": "int", "low": 1, "high": 6},
        "learning_rate": {"type": "float", "low": 0.05, "high": 0.5, "log": True},
        "gamma": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    }
)


def evaluator(folder: Path, a: float, b: float, metric: str = "r2", **fields: object) -> XGBoostEvaluator:
    table = datasets.load_diabetes(as_frame=True).frame
    path = folder / "table.parquet"
    table.assign(target=a * table["target"] + b).to_parquet(path)
    return build(path, metric, data={"task": "regression"}, **fields)


def study(judge: XGBoostEvaluator) -> tuple[Trial, ...]:
    """The trials of three rounds of four."""
    settings = small_settings(model={"kind": "gp"})
    state = initial_state("unit", 0, SPACE, "maximize" if judge.maximize else "minimize", settings)
    return after_rounds(state, lambda config: judge.evaluate(config, quiet).value, 3).history.trials


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, ...]:
    trials = study(evaluator(tmp_path_factory.mktemp("unit"), 1, 0))
    assert max(trial.value for trial in trials if trial.value is not None) > 0.3, "there is something to find"
    return trials


@pytest.mark.parametrize(("a", "b"), COPIES)
def test_the_same_study_on_another_unit_finds_the_same(
    a: float, b: float, original: tuple[Trial, ...], tmp_path: Path
) -> None:
    copy = study(evaluator(tmp_path, a, b))
    assert [trial.config for trial in copy[:4]] == [trial.config for trial in original[:4]]
    for trial, other in zip(copy[:4], original[:4], strict=True):
        assert trial.value == pytest.approx(other.value, abs=1e-4)
    best, other = (max(trial.value or -1.0 for trial in trials) for trials in (copy, original))
    assert best == pytest.approx(other, abs=1e-4)
    if (a, b) in POWERS:
        assert [(trial.config, trial.value) for trial in copy] == [(trial.config, trial.value) for trial in original]


@pytest.mark.parametrize("power", [2.0**20, 2.0**-30])
def test_errors_are_in_the_targets_unit(power: float, tmp_path: Path) -> None:
    plain, scaled = study(evaluator(tmp_path, 1, 0, "rmse")), study(evaluator(tmp_path, power, 0, "rmse"))
    assert [trial.config for trial in scaled] == [trial.config for trial in plain]
    assert [trial.value for trial in scaled] == [power * trial.value for trial in plain if trial.value is not None]


@pytest.mark.parametrize("settings", [{"folds": 3}, {"early_stopping_rounds": 5}, {"report_every": 10}])
@pytest.mark.parametrize("config", [CONFIG, LINEAR], ids=["trees", "linear"])
def test_so_it_is_with_folds_early_stopping_and_a_linear_booster(
    settings: dict[str, int], config: dict[str, object], tmp_path: Path
) -> None:
    curves: list[list[tuple[int, float]]] = [[], []]
    values = [
        evaluator(tmp_path, *unit, evaluator=settings).evaluate(config, lambda *point, to=curve: to.append(point)).value
        for unit, curve in zip(((1, 0), (1e-5, 40)), curves, strict=True)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-4)
    assert values[0] > 0.3


@pytest.mark.parametrize(("a", "b"), [(1, 0), (1e-5, 0), (1, 1e7)])
def test_the_served_model_answers_in_the_targets_unit(a: float, b: float, tmp_path: Path) -> None:
    judge = evaluator(tmp_path, a, b)
    refit = judge.refit(CONFIG)
    assert refit.metrics["r2"] > 0.3
    rows = np.sort(np.concatenate([judge.split.train, judge.split.validation]))[:5]
    spread = judge.table.target.std()
    assert np.abs(refit.output_example["prediction"] - judge.table.target[rows]).max() < 2 * spread


def test_the_holdout_has_no_part_in_the_unit(tmp_path: Path) -> None:
    judge = evaluator(tmp_path, 1, 0)
    training = judge.table.target[judge.split.train]
    assert judge.unit == TargetUnit(training.mean(), training.std())


def test_classes_are_left_alone(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(40), "target": [2, 3] * 20})
    frame.to_csv(tmp_path / "table.csv", index=False)
    assert build(tmp_path / "table.csv").unit is None


def test_a_target_that_is_constant_in_training_is_no_division_by_zero() -> None:
    unit = TargetUnit.of(np.full(9, 7.0))
    np.testing.assert_array_equal(unit.undone(unit.standardised(np.array([7.0, 8.0]))), [7.0, 8.0])


@pytest.mark.parametrize("objective", ["reg:gamma", "count:poisson", "reg:tweedie", "reg:squaredlogerror"])
def test_an_objective_whose_target_has_bounds_is_refused(objective: str, tmp_path: Path) -> None:
    """It could not be standardised."""
    with pytest.raises(UserError, match=r"evaluator\.params\.objective: XGBoost's evaluator does not know"):
        evaluator(tmp_path, 1, 0, evaluator={"params": {"objective": objective}})
