"""Which edits of a study file are refused once the study has begun."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlhpo_core.study.changes import FIXED, FREE, beginning, changed
from rlhpo_core.study.spec import StudySpec, dump_study, parse_study

STUDY: dict[str, Any] = {
    "name": "wine",
    "data": {"path": "wine.csv", "target": "quality"},
    "evaluator": {"kind": "xgboost", "params": {"gamma": 0.5}},
    "objective": "accuracy",
    "space": {
        "depth": {"type": "int", "low": 1, "high": 9},
        "rate": {"type": "float", "low": 0.01, "high": 0.5, "log": True},
    },
    "budget": {"trials": 9},
}
BEGAN = json.loads(json.dumps(beginning(StudySpec.model_validate(STUDY))))


def edited(**fields: Any) -> list[str]:
    return changed(BEGAN, StudySpec.model_validate({**STUDY, **fields}))


def test_each_field_is_either_fixed_or_free() -> None:
    assert sorted([*FIXED, *FREE]) == sorted(StudySpec.model_fields)


def test_what_was_written_and_read_again_has_not_changed() -> None:
    spec = StudySpec.model_validate(STUDY)
    assert changed(BEGAN, parse_study(dump_study(spec), "here")) == []
    assert edited(seed=0, tuner={"single_rounds": 5}) == [], "a default that is spelt out"


@pytest.mark.parametrize(
    "fields",
    [
        {"budget": {"trials": 90, "wall_time": "1h", "failures": None}},
        {"execution": {"workers": 3, "device": "cuda", "drill": [2]}},
        {"tracking": {"uri": "http://mlflow:5000", "experiment": "wines"}},
        {"registry": {"model": "wine"}},
        {"gate": {"margin": 0.1}},
        {"retune": {"when": "drifted"}},
        {"alerts": {"url": "https://hooks.example"}},
        {"data": {"path": "/moved/wine.csv", "target": "quality"}},
    ],
)
def test_free_fields_may_be_edited(fields: dict[str, Any]) -> None:
    assert edited(**fields) == []


DEPTH, RATE = STUDY["space"]["depth"], STUDY["space"]["rate"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "beer"}, "name (was wine, is beer)"),
        ({"seed": 1}, "seed (was 0, is 1)"),
        ({"data": {"path": "wine.csv", "target": "price"}}, "data.target (was quality, is price)"),
        ({"evaluator": {"kind": "xgboost", "params": {"gamma": 1}}}, "evaluator.params.gamma (was 0.5, is 1)"),
        ({"evaluator": {"kind": "xgboost"}}, "evaluator.params.gamma (was 0.5, is not there)"),
        ({"objective": "auc"}, "objective.metric (was accuracy, is auc)"),
        ({"space": {"depth": {**DEPTH, "high": 20}, "rate": RATE}}, "space.depth.high (was 9, is 20)"),
        ({"space": {"rate": RATE, "depth": DEPTH}}, "space (the order of its hyperparameters)"),
        ({"warm_start": "runs/old"}, "warm_start (was not set, is {"),
        ({"prior": "none"}, "prior (was auto, is none)"),
        ({"tuner": {"trials_per_round": 9, "single_rounds": 5}}, "tuner.trials_per_round (was 5, is 9)"),
        ({"tuner": {"trials_per_round": 5}}, "tuner.single_rounds (was 5, is 0)"),
    ],
)
def test_fixed_fields_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    (difference,) = edited(**fields)
    assert difference.startswith(message)


def test_the_rule_that_stops_trials_is_fixed() -> None:
    assert edited(stopping="median")[0] == "stopping.rule (was none, is median)"
    assert edited(stopping="none") == []
