from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.errors import UserError
from rlhpo_core.space.search_space import SearchSpace, builtin_names, builtin_space, load_space
from tests.helpers.studies import RICH_SPACE, random_actions, spaces


@given(spaces(), st.integers(0, 2**32))
def test_conversions_are_lossless(space: SearchSpace, seed: int) -> None:
    actions = random_actions(space, 20, seed)
    actions[0], actions[1] = -1.0, 1.0
    configs = space.decode(actions)
    assert space.decode(space.encode(configs)) == configs
    assert space.from_features(space.features(configs)) == configs
    assert [space.snap(config) for config in configs] == configs
    # Through JSON, as configurations travel.
    assert space.decode(space.encode(json.loads(json.dumps(configs)))) == configs


@given(spaces(), st.integers(0, 2**32))
def test_features_of_actions_are_those_of_their_configurations(space: SearchSpace, seed: int) -> None:
    actions = random_actions(space, 20, seed)
    features = space.features_of_actions(actions)
    assert features.shape == (20, space.feature_count)
    assert np.array_equal(features, space.features(space.decode(actions)))
    assert features.min() >= 0.0
    assert features.max() <= 1.0


@given(spaces(), st.integers(0, 2**32))
def test_active_steps_are_those_in_the_configuration(space: SearchSpace, seed: int) -> None:
    actions = random_actions(space, 10, seed)
    active = space.active(actions)
    for row, config in enumerate(space.decode(actions)):
        assert [step.name in config for step in space.steps] == active[row].tolist()
    stepwise = [space.active_step(step, actions) for step in range(len(space.steps))]
    assert np.array_equal(np.stack(stepwise, axis=1), active)


@given(spaces())
def test_written_and_read_back(space: SearchSpace) -> None:
    assert load_space(space.model_dump_json()) == space
    assert SearchSpace.model_validate(space.model_dump(mode="json")) == space


def test_parents_come_before_children_whatever_the_order() -> None:
    names = [parameter.name for parameter in RICH_SPACE.parameters]
    for order in (names, names[::-1], sorted(names)):
        steps = [step.name for step in RICH_SPACE.reordered(order).steps]
        assert steps.index("booster") < steps.index("one_drop") < steps.index("skip")
        assert "verbosity" not in steps


def test_conditions_decide_what_a_configuration_holds() -> None:
    for config in RICH_SPACE.decode(random_actions(RICH_SPACE, 300)):
        assert ("eta" in config) == (config["booster"] != "gblinear")
        assert ("rate_drop" in config) == (config["booster"] == "dart")
        assert ("skip" in config) == (config.get("one_drop") is True)
        assert config["verbosity"] == 0


def test_ranges_are_reached_at_both_ends() -> None:
    low, high = RICH_SPACE.decode(np.array([[-1.0] * 7, [1.0] * 7]))
    assert (low["depth"], low["rounds"], low["eta"]) == (1, 10, 1e-4)
    assert (high["depth"], high["rounds"], high["booster"]) == (12, 3000, "gblinear")


def test_the_papers_space_is_its_table_1() -> None:
    space = builtin_space("xgboost-paper")
    ranges = {step.name: (step.low, step.high) for step in space.steps if step.type in ("int", "float")}
    assert ranges == {
        "max_depth": (1, 25), "learning_rate": (0.001, 0.1), "n_estimators": (50, 1200), "gamma": (0.05, 0.9),
        "min_child_weight": (1, 9), "subsample": (0.5, 1.0), "colsample_bytree": (0.5, 1.0),
        "colsample_bylevel": (0.5, 1.0), "reg_alpha": (0.1, 0.9), "reg_lambda": (0.01, 0.1),
    }  # fmt: skip


def test_all_builtin_spaces_load() -> None:
    assert "xgboost-paper" in builtin_names()
    for name in builtin_names():
        assert builtin_space(name).steps
    with pytest.raises(ValueError, match="xgboost-paper"):
        builtin_space("xgbost-paper")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {type: int, low: 3, high: 1}", r"^a: empty range: low \(3\) must be below high \(1\)$"),
        ("a: {type: float, low: 1, high: 1}", "a: empty range"),
        ("a: {type: float, low: 0, high: 1, log: true}", "a: a log scale needs low above 0"),
        ("a: {type: float, low: 1, high: 1.0000000000001}", "a: the range from 1.0 to 1.0000000000001 is too narrow"),
        ("a: {type: float, low: 0, high: 1e-200}", "a: the range .* is too narrow; write it in another unit"),
        ("a: {type: float, low: 1e-200, high: 1, log: true}", "a: the range .* is too narrow"),
        ("a: {type: float, low: -1e308, high: 1e308}", r"a: numbers beyond 1e\+12 are not supported"),
        ("a: {type: int, low: 0, high: 10000000000000000}", r"a: numbers beyond 1e\+12 are not supported"),
        ("a: {type: float, low: .nan, high: 1}", r"a\.low: .*finite"),
        ("a: {type: int, low: 1.5, high: 3}", r"a\.low: .*whole number"),
        ("a: {type: flot, low: 0, high: 1}", "a: .*'flot'.*'float'"),
        ("a: {low: 0, high: 1}", "a: .*type"),
        ("a: {type: int, low: 1}", r"a\.high: is missing"),
        ("a: {type: bool, hihg: 1}", r"a\.hihg: there is no such field"),
        ("a: {type: categorical, choices: []}", r"a\.choices"),
        ("a: {type: categorical, choices: [x, x]}", r"a\.choices: 'x' is given twice"),
        ("a: {type: bool}\na: {type: bool}", "line 2: the name 'a' is given twice"),
        ("a: {type: bool, when: {z: 1}}", r"a\.when\.z: no hyperparameter has this name"),
        ("a: {type: bool, when: {a: true}}", "go in a circle: a → a"),
        ("a: {type: bool, when: {b: true}}\nb: {type: bool, when: {a: true}}", "go in a circle: a → b → a"),
        ("a: {type: bool}\nb: {type: bool, when: {a: 2}}", r"b\.when\.a: .*\[False, True\]"),
        ("a: {type: int, low: 1, high: 3}\nb: {type: bool, when: {a: 4}}", r"b\.when\.a: .*int in \[1, 3\]"),
        ("a: {type: float, low: 0, high: 1}\nb: {type: bool, when: {a: 0.5}}", r"b\.when\.a: a float cannot"),
        ("a: {type: fixed, value: 1}\nc: {type: bool}\nb: {type: bool, when: {a: 2}}", r"b\.when\.a: .*fixed at 1"),
        (
            "a: {type: bool}\nb: {type: bool, when: {a: true}}\nc: {type: bool, when: {a: false, b: true}}",
            r"c\.when: can never hold: no value of a",
        ),
        ("a: {type: fixed, value: 1}", "nothing to tune"),
        ("{}", "at least one hyperparameter"),
        ("a: 3", "a: write for example"),
        ("a: {type: [", "not valid YAML"),
    ],
)
def test_bad_spaces_are_refused_by_field(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_space(text)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "depth: is missing"),
        ({"deep": 3}, "deep: no hyperparameter has this name"),
        ({"depth": 3, "booster": "gblinear", "eta": 0.1, "rounds": 10}, "eta: is given but inactive"),
        ({"depth": 3.5, "booster": "gblinear", "rounds": 10}, "depth: 3.5 is not an integer"),
        ({"depth": math.inf, "booster": "gblinear", "rounds": 10}, "depth: inf is not an integer"),
        ({"depth": math.nan, "booster": "gblinear", "rounds": 10}, "depth: nan is not an integer"),
        ({"depth": 13, "booster": "gblinear", "rounds": 10}, r"depth: 13 is not in \[1, 12\]"),
        ({"depth": 3, "booster": "tree", "rounds": 10}, "booster: 'tree' is not one of"),
        ({"depth": True, "booster": "gblinear", "rounds": 10}, "depth: True is not an integer"),
    ],
)
def test_bad_configurations_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RICH_SPACE.encode([config])  # type: ignore[list-item]


def test_an_integer_that_came_back_as_a_float_is_taken() -> None:
    space = load_space("a: {type: int, low: 1, high: 9}")
    assert space.snap({"a": 3.0}) == {"a": 3}


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(-1e12, 1e12, False), (1e12 - 5000, 1e12, False), (1e-99, 1e12, True), (0.0, 1e-99, False), (-1e-9, 0.0, False)],
)
def test_the_widest_and_narrowest_ranges_convert_without_loss(low: float, high: float, log: bool) -> None:
    space = SearchSpace.model_validate({"a": {"type": "float", "low": low, "high": high, "log": log}})
    configs = space.decode(random_actions(space, 500))
    assert space.decode(space.encode(configs)) == configs
    assert space.from_features(space.features(configs)) == configs
    assert len({config["a"] for config in configs}) == 500


@pytest.mark.parametrize("log", [False, True])
def test_large_integers_convert_without_loss(log: bool) -> None:
    space = SearchSpace.model_validate({"a": {"type": "int", "low": 1, "high": 10**12, "log": log}})
    configs = space.decode(random_actions(space, 500))
    assert space.decode(space.encode(configs)) == configs


def test_numbers_may_be_written_with_an_exponent() -> None:
    space = load_space("a: {type: categorical, choices: [1e-3, 1e-2]}\nb: {type: float, low: 1e-5, high: 1, log: true}")
    assert {type(config["a"]) for config in space.decode(random_actions(space, 20))} == {float}


@given(spaces(), st.integers(0, 2**32))
def test_the_nearest_configuration_is_one_of_the_space(space: SearchSpace, seed: int) -> None:
    (anything,) = RICH_SPACE.decode(random_actions(RICH_SPACE, 1, seed))
    for wanted in ({}, anything, space.decode(random_actions(space, 1, seed))[0]):
        found = space.nearest(wanted)
        assert space.snap(found) == found
        assert set(found) == set(space.decode(space.encode([found]))[0])
    (inside,) = space.decode(random_actions(space, 1, seed))
    assert space.nearest(inside) == inside


def test_what_is_wanted_is_moved_into_its_range_and_what_is_not_is_in_the_middle() -> None:
    space = load_space("""
booster: {type: categorical, choices: [linear, tree, dart]}
depth: {type: int, low: 2, high: 10, when: {booster: [tree, dart]}}
rate: {type: float, low: 0.001, high: 0.1, log: true}
drop: {type: float, low: 0.0, high: 1.0, when: {booster: dart}}
trees: {type: fixed, value: 7}
""")
    wanted = {"booster": "dart", "depth": 50, "rate": 0.3, "drop": True, "unknown": 3}
    assert space.nearest(wanted) == {"booster": "dart", "depth": 10, "rate": 0.1, "drop": 0.5, "trees": 7}
    assert space.nearest({"booster": "no such"}) == {"booster": "tree", "depth": 6, "rate": 0.01, "trees": 7}
    linear = space.nearest({"booster": "linear", "drop": 0.9, "rate": -1})
    assert linear == {"booster": "linear", "rate": 0.001, "trees": 7}
