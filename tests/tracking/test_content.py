from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.tracking import content
from rlhpo_core.trial import History, Trial, TrialStatus
from tests.helpers.studies import random_actions, spaces
from tests.helpers.tracked_studies import make_spec, make_trial


def logged(trial: Trial, direction: str) -> dict[str, tuple[float, int]]:
    """Value and time of each metric of a trial."""
    spec = make_spec("x", objective={"metric": "log_loss", "direction": direction})
    return {metric.key: (metric.value, metric.timestamp) for metric in content.trial_metrics(trial, spec)}


def test_a_prediction_is_logged_in_the_units_of_the_objective() -> None:
    trial = make_trial(3)
    ended = 1_700_000_005_500
    assert trial.proposal.predicted == -0.4
    assert logged(trial, "minimize")["predicted"] == (0.4, ended)
    assert logged(trial, "maximize")["predicted"] == (-0.4, ended)
    assert logged(trial, "minimize")["objective"] == logged(trial, "maximize")["objective"] == (0.7, ended)


def test_a_failed_trial_is_tagged_with_its_cause() -> None:
    tags = content.trial_tags(make_trial(3, TrialStatus.FAILED))
    assert tags["rlhpo.error"] == "MemoryError: out of memory"
    assert tags["mlflow.note.content"] == "```\nTraceback\nMemoryError: out of memory\n```"
    assert (tags["rlhpo.trial"], tags["rlhpo.round"], tags["rlhpo.status"]) == ("4", "2", "failed")
    assert "rlhpo.error" not in content.trial_tags(make_trial(3))


@given(spaces(), st.integers(0, 99))
def test_a_configuration_is_read_back_from_what_is_logged_of_it(space: SearchSpace, seed: int) -> None:
    (config,) = space.decode(random_actions(space, 1, seed))
    logged = {param.key: param.value for param in content.param_entities({k: str(v) for k, v in config.items()})}
    assert content.config_of(logged, space) == config


def test_a_value_that_is_not_in_the_space_is_refused() -> None:
    space = make_spec("x").space
    with pytest.raises(ValueError, match=r"kind: 'c' is not one of \['a', 'b'\]"):
        content.config_of({"x": "0.5", "kind": "c"}, space)
    with pytest.raises(ValueError, match="x"):
        content.config_of({"x": "1.5", "kind": "a"}, space)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("learning rate (η)", "learning rate _η_"),
        ("../path", "___path"),
        ("a//b", "a__b"),
        ("a/b", "a/b"),
        ("x" * 300, "x" * 250),
    ],
)
def test_a_name_that_mlflow_does_not_take_is_changed(name: str, key: str) -> None:
    (param,) = content.param_entities({name: "1"})
    assert param.key == key


def test_values_that_mlflow_does_not_take_are_changed() -> None:
    empty, long = content.param_entities({"empty": "", "long": "x" * 9000})
    assert (empty.value, long.value) == ('""', "x" * 500)
    (tag,) = content.tag_entities({"error": "killed\0by a signal" + "x" * 9000})
    assert tag.value.startswith("killedby a signal")
    assert len(tag.value) == 5000


def test_a_gap_ends_the_curve_of_the_best() -> None:
    history = History(direction="minimize", trials=(make_trial(0), make_trial(1), make_trial(3)))
    assert [(metric.step, metric.value) for metric in content.best_metrics(history, after=0)] == [(1, 1.0), (2, 0.9)]
    assert [metric.step for metric in content.best_metrics(history, after=1)] == [2]


def test_limits_are_named() -> None:
    budget: dict[str, Any] = {"trials": 7, "wall_time": "1h", "cost": {"limit": 2, "per_trial_hour": 3}}
    text = content.budget(make_spec("x", budget=budget))
    assert text == "trials 7, wall_time 3600.0, cost.limit 2.0, cost.per_trial_hour 3.0, failures 10"


def test_a_password_is_left_out_of_the_study() -> None:
    tracking = {"uri": "http://user:secret@127.0.0.1:5000"}
    assert content.without_password(make_spec("x", tracking=tracking)).tracking.uri == "http://user:***@127.0.0.1:5000"
