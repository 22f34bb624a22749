"""A trial as rules see it."""

from __future__ import annotations

import pytest

from rlhpo_core.stopping.course import MOST_POINTS, Course, course_of, rewarded
from rlhpo_core.trial import TrialStatus
from tests.helpers.courses import trial


def test_a_curve_is_looked_up_by_step() -> None:
    course = Course(curve=((10, 0.1), (20, 0.4), (40, 0.3)))
    assert [course.at(step) for step in (9, 10, 19, 20, 39, 99)] == [None, 0.1, 0.1, 0.4, 0.4, 0.3]
    assert [course.upon(step) for step in (0, 10, 10.5, 40, 41)] == [0.1, 0.1, 0.4, 0.3, None]
    assert (course.step, course.best()) == (40, 0.4)


def test_losses_become_rewards_and_steps_ascend() -> None:
    assert rewarded([(1, 0.5), (2, 0.25), (2, 9.0), (1, 7.0), (3, 0.0)], "minimize") == ((1, -0.5), (2, -0.25), (3, 0))
    course = course_of(trial(0, value=0.25, curve=((1, 0.5),), predicted=-0.3, predicted_std=0.1), "minimize")
    assert course == Course(curve=((1, -0.5),), final=-0.25, expected=(-0.3, 0.1))


@pytest.mark.parametrize("status", list(TrialStatus))
def test_of_trials_that_failed_rules_know_nothing(status: TrialStatus) -> None:
    value = 0.5 if status is TrialStatus.COMPLETE else None
    course = course_of(trial(0, status, value=value, curve=((1, 0.5),)), "maximize")
    if status in (TrialStatus.FAILED, TrialStatus.INFEASIBLE):
        assert course is None
    else:
        assert course is not None
        assert course.final == value
    assert course_of(trial(0, status, value=value), "maximize") is None, "it has reported nothing"


def test_a_curve_that_was_left_out_is_no_empty_one() -> None:
    with pytest.raises(ValueError, match="not at hand; read its file"):
        course_of(trial(0, value=0.5, curve=None), "maximize")


@pytest.mark.parametrize("count", [1, MOST_POINTS, MOST_POINTS + 1, 5000])
def test_long_curves_are_thinned_evenly(count: int) -> None:
    curve = tuple((step, float(step)) for step in range(count))
    course = course_of(trial(0, value=0.5, curve=curve), "maximize")
    assert course is not None
    assert len(course.curve) == min(count, MOST_POINTS)
    assert (course.curve[0], course.curve[-1]) == (curve[0], curve[-1])
    gaps = {after[0] - before[0] for before, after in zip(course.curve, course.curve[1:], strict=False)}
    assert max(gaps, default=1) - min(gaps, default=1) <= 1
