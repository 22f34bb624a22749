"""The schema for editors: it takes what the reader takes, and finds what a person mistypes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rlhpo_core.study.json_schema import study_schema

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.yaml"))
STUDY: dict[str, Any] = yaml.safe_load(EXAMPLES[0].read_text())


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = json.loads(json.dumps(study_schema()))
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize("study", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(study: Path, validator: jsonschema.Draft7Validator) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(study.read_text()))] == []


@pytest.mark.parametrize(
    "change",
    [
        {"space": "xgboost-wide"},
        {"objective": "accuracy"},
        {"objective": {"metric": "score", "direction": "minimize"}},
        {"stopping": "median"},
        {"stopping": {"rule": "asha", "reduction": 4}},
        {"tuner": "paper"},
        {"warm_start": "runs/earlier"},
        {"warm_start": {"first": {"max_depth": 3}}},
        {"budget": {"wall_time": "2h"}},
        {"budget": {"wall_time": 90}},
        {"cluster": {"trial_cpu": 0.5, "trial_memory": "8G"}},
        {"space": {"hidden": {"type": "categorical", "choices": [[64], [64, 64], None]}, "x": {"type": "bool"}}},
        {"space": {"batch": {"type": "int", "low": 32, "high": 512, "step": 32, "when": {"x": True}}}},
    ],
)
def test_what_may_stand_there_is_valid(change: dict[str, Any], validator: jsonschema.Draft7Validator) -> None:
    assert [error.message for error in validator.iter_errors({**STUDY, **change})] == []


@pytest.mark.parametrize(
    "change",
    [
        {"budgt": {"trials": 3}},
        {"budget": {"trails": 3}},
        {"budget": {"trials": "many"}},
        {"budget": {"trials": 0}},
        {"space": "xgboost-papr"},
        {"space": {}},
        {"space": {"max_depth": {"type": "integer", "low": 1, "high": 9}}},
        {"space": {"max_depth": {"type": "int", "low": 1, "hgh": 9}}},
        {"stopping": "meadian"},
        {"evaluator": {"kind": "xgbost"}},
        {"evaluator": {"kind": "xgboost", "fold": 3}},
        {"data": {"target": "x"}},
    ],
)
def test_what_is_wrong_is_found(change: dict[str, Any], validator: jsonschema.Draft7Validator) -> None:
    assert list(validator.iter_errors({**STUDY, **change}))


def test_fields_carry_their_sentence() -> None:
    schema = study_schema()
    assert "name" not in schema["$defs"]["Int"]["properties"]
    assert schema["properties"]["seed"]["description"] == "All random draws derive from it."
    described = [
        (name, field)
        for name, definition in schema["$defs"].items()
        for field, told in definition["properties"].items()
        if "description" not in told
    ]
    # Names that say all, such as `low` and `kind`.
    assert len(described) < 40, described
