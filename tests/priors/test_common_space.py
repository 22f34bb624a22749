from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.priors.common_space import InSpace, carried, common_space
from rlhpo_core.priors.training import FinishedStudy
from rlhpo_core.space.search_space import SearchSpace

X = {"type": "float", "low": 0.0, "high": 1.0}
DEPTH = {"type": "int", "low": 1, "high": 6}
KIND = {"type": "categorical", "choices": ["a", "b"]}


def fixed(value: object) -> dict[str, object]:
    return {"type": "fixed", "value": value}


def among(name: str, count: int = 30, **space: Any) -> InSpace:
    """A study of random configurations in a space."""
    made = SearchSpace.model_validate(space)
    configs = made.decode(np.random.default_rng(0).uniform(-1, 1, (count, len(made.steps))))
    return InSpace(FinishedStudy(name, configs, np.arange(float(count)), f"runs/{name}"), made)


def test_equal_spaces_stay_as_they_are() -> None:
    one, other = among("one", x=X, depth=DEPTH), among("other", x=X, depth=DEPTH)
    assert common_space([one, other]) is one.space
    study, note = carried(one, one.space)
    assert study is one.study
    assert note == ""


def test_ranges_and_choices_are_joined_and_what_is_fixed_is_taken_in() -> None:
    studies = [
        among("one", x=X, depth=DEPTH, kind=KIND, seed=fixed(1), device=fixed("cpu")),
        among("two", kind={"type": "categorical", "choices": ["b", "c"]}, x={**X, "high": 2.0}, depth=fixed(9),
              seed=fixed(2), device=fixed("cpu")),
    ]  # fmt: skip
    space = common_space(studies)
    assert space.model_dump() == {
        "x": {**X, "high": 2.0},
        "depth": {**DEPTH, "high": 9},
        "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
        "device": fixed("cpu"),
    }
    for one in studies:
        study, note = carried(one, space)
        assert note == ""
        assert len(space.features(study.configs)) == 30
    assert carried(studies[1], space)[0].configs[0]["depth"] == 9


def test_a_scale_by_orders_of_magnitude_wins_where_it_can() -> None:
    log = {"type": "float", "low": 0.01, "high": 1.0, "log": True}
    assert common_space([among("one", x=log), among("two", x={**X, "low": 0.1})]).model_dump()["x"]["log"] is True
    assert common_space([among("one", x=log), among("two", x=X)]).model_dump()["x"] == X


def test_conditions_are_kept() -> None:
    when = {**X, "when": {"kind": ["a"]}}
    space = common_space([among("one", kind=KIND, x=when), among("two", kind=fixed("a"), x={**X, "high": 3.0})])
    assert space.model_dump()["x"] == {**X, "high": 3.0, "when": {"kind": ["a"]}}
    assert carried(among("two", kind=fixed("a"), x=X), space)[1] == ""


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"x": X}, "one tunes depth, and two has no such hyperparameter"),
        ({"x": X, "depth": X}, r"depth is int in \[1, 6\] in one and float in \[0.0, 1.0\] in two"),
        ({"x": X, "depth": fixed("deep")}, "depth is int .* in one and fixed at 'deep' in two"),
        ({"x": X, "depth": fixed(2.5)}, r"depth is int .* in one and fixed at 2\.5 in two"),
        ({"x": X, "depth": DEPTH, "z": X}, "two tunes z, and one has no such hyperparameter"),
    ],
)
def test_spaces_that_do_not_map_are_refused(other: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        common_space([among("one", x=X, depth=DEPTH), among("two", **other)])


def test_other_conditions_are_refused() -> None:
    studies = [among(f"on-{kind}", kind=KIND, x={**X, "when": {"kind": kind}}) for kind in ("a", "b")]
    with pytest.raises(UserError, match="x is active under other conditions in on-a than in on-b"):
        common_space(studies)


def test_trials_outside_of_a_given_space_are_left_out_and_counted() -> None:
    space = SearchSpace.model_validate({"x": {**X, "high": 0.7}})
    one = among("one", x=X)
    timed = replace(one, study=replace(one.study, seconds=one.study.rewards * 2))
    study, note = carried(timed, space)
    inside = [index for index, config in enumerate(among("one", x=X).study.configs) if float(config["x"]) <= 0.7]
    assert study.rewards.tolist() == [float(index) for index in inside]
    assert study.seconds is not None
    assert study.seconds.tolist() == [2.0 * index for index in inside]
    assert note == f"{30 - len(inside)} left out, outside of the prior's space: {30 - len(inside)} by x"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"x": X, "z": X}, r"one \(from runs/one\) has no z, which the prior's space tunes"),
        ({"x": DEPTH, "depth": DEPTH}, r"x is float in \[0.0, 1.0\] there and int in \[1, 6\] in the prior's space"),
        ({"x": X}, r"one \(from runs/one\) has tuned depth .*, of which the prior's space knows nothing"),
        (
            {"x": {**X, "high": 0.01}, "depth": DEPTH},
            r"of 30 trials lie in the prior's space, and 10 are wanted; left out were \d+ by x \(x is float in",
        ),
    ],
)
def test_a_study_that_does_not_fit_a_given_space_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        carried(among("one", x=X, depth=DEPTH), SearchSpace.model_validate(space))
