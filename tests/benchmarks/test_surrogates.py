from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.surrogates import SurrogateTask, load_tasks, space_from_configspace


@pytest.fixture(scope="session")
def yahpo() -> Path:
    pytest.importorskip("onnxruntime", reason="the surrogates need the extra `benchmarks`")
    folder = os.environ.get("RLHPO_YAHPO")
    if not folder:
        pytest.skip("RLHPO_YAHPO does not say where YAHPO Gym's surrogates are")
    return Path(folder)


def test_conditions_and_scales_of_configspace_are_kept():
    space = space_from_configspace(
        {
            "hyperparameters": [
                {"name": "task", "type": "categorical", "choices": ["a", "b"]},
                {"name": "depth", "type": "uniform_int", "lower": 1, "upper": 15, "log": False},
                {"name": "booster", "type": "categorical", "choices": ["linear", "tree", "dart"]},
                {"name": "rate", "type": "uniform_float", "lower": 0.001, "upper": 1.0, "log": True},
            ],
            "conditions": [
                {"child": "depth", "parent": "booster", "type": "IN", "values": ["tree", "dart"]},
                {"child": "rate", "parent": "booster", "type": "EQ", "value": "dart"},
            ],
        },
        leave_out=["task"],
    )
    assert space.model_dump() == {
        "depth": {"type": "int", "low": 1, "high": 15, "when": {"booster": ["tree", "dart"]}},
        "booster": {"type": "categorical", "choices": ["linear", "tree", "dart"]},
        "rate": {"type": "float", "low": 0.001, "high": 1.0, "log": True, "when": {"booster": ["dart"]}},
    }


def test_regret_is_0_at_the_best_and_1_at_the_median():
    task = SurrogateTask(Path(), "lcbench", "x", best=0.9, median=0.5)
    assert task.regret(np.array([0.9, 0.7, 0.5])) == pytest.approx([0.0, 0.5, 1.0])


def test_a_missing_folder_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lcbench.model\.onnx"):
        load_tasks("suite", folder=tmp_path)


def test_the_suite_and_the_source_tasks_are_disjoint():
    suite, source = load_tasks("suite"), load_tasks("source")
    assert (len(suite), len(source)) == (101, 52)
    assert len(load_tasks("suite", "rbv2_xgboost")) == 67
    assert all(task.median < task.best <= 1 for task in suite)
    assert not {task.name for task in suite} & {task.name for task in source}


def test_random_configurations_score_as_the_suite_says(yahpo):
    """The reference median lies in the middle of our own draws: the columns, codes and inactive values are right."""
    for task in load_tasks("suite", folder=yahpo)[::10]:
        values = task.evaluate_many(task.random_configs(1000, seed=0))
        assert 0.42 < np.mean(values < task.median) < 0.58
        assert values.min() >= 0
        assert values.max() <= task.best + 1e-6


def test_one_at_a_time_is_the_same(yahpo):
    task = load_tasks("suite", "rbv2_xgboost", folder=yahpo)[0]
    configs = task.random_configs(5, seed=1)
    assert [task.evaluate(config) for config in configs] == pytest.approx(task.evaluate_many(configs), abs=1e-6)
    assert configs == task.random_configs(5, seed=1)


def test_a_smaller_trainsize_is_another_task(yahpo):
    full = load_tasks("suite", "rbv2_xgboost", folder=yahpo)[0]
    half = full.at_trainsize(0.5)
    configs = full.random_configs(50, seed=0)
    assert not np.allclose(full.evaluate_many(configs), half.evaluate_many(configs))
    assert half.name == full.name + "@0.5"
    with pytest.raises(ValueError, match="cannot be asked"):
        load_tasks("suite", "lcbench", folder=yahpo)[0].at_trainsize(0.5)


def test_references_can_be_measured(yahpo):
    task = load_tasks("source", folder=yahpo)[0]
    configs = task.random_configs(200, seed=0)
    measured = task.measured(configs)
    values = task.evaluate_many(configs)
    assert measured.regret(values.max()) == 0
    assert measured.regret(float(np.median(values))) == 1
