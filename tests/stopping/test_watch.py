"""The rules as a trial meets them: report by report."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from rlhpo_core.stopping.course import Course
from rlhpo_core.stopping.watch import Watch, watch_over
from rlhpo_core.study.stopping_settings import StoppingSpec
from rlhpo_core.trial import Proposal, Stop
from tests.helpers.courses import ended, many, rising, trial, under_way

RULES: list[Any] = ["median", "asha", "learned"]


def watch(rule: Any, earlier: list[Course], direction: str = "maximize", **fields: Any) -> Watch:
    settings = TypeAdapter(StoppingSpec).validate_python(rule)
    return Watch(settings=settings, direction=direction, earlier=tuple(earlier), **fields)  # type: ignore[arg-type]


def run(over: Watch, curve: list[tuple[int, float]]) -> Stop | None:
    """Where a trial with this curve is stopped."""
    stops = (over.stop(curve[:count]) for count in range(1, len(curve) + 1))
    return next((stop for stop in stops if stop is not None), None)


@pytest.mark.parametrize("rule", RULES)
def test_a_poor_trial_is_stopped_early_and_a_good_one_is_not(rule: str) -> None:
    over = watch(rule, many(12, noise=0.01))
    poor, good = run(over, rising(0.4)), run(over, rising(0.95))
    assert good is None
    assert poor is not None
    assert poor.step is not None
    assert poor.step <= 10
    assert poor.value == dict(rising(0.4))[poor.step]
    assert poor.reason.startswith(f"at step {poor.step}: ")
    assert poor.estimate == pytest.approx(0.4, abs=0.1), "its curve points to where it would have ended"
    assert poor.deviation is not None
    assert 0 < poor.deviation < 0.2


@pytest.mark.parametrize("rule", RULES)
def test_a_loss_is_a_score_with_its_sign_turned(rule: str) -> None:
    up, curve = many(12, noise=0.01), rising(0.4)
    stop = run(watch(rule, up), curve)
    # What rules see are rewards in either direction.
    turned = run(watch(rule, up, "minimize"), [(step, -value) for step, value in curve])
    assert stop is not None
    assert turned is not None
    assert stop.value is not None
    assert stop.estimate is not None
    assert (turned.step, turned.value, turned.estimate) == (stop.step, -stop.value, -stop.estimate)
    assert f"{-stop.value:.5g}" in turned.reason or rule == "learned"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_with_few_earlier_trials_none_is_stopped(rule: str, count: int) -> None:
    over = watch({"rule": rule, "reduction": 4} if rule == "asha" else rule, many(3)[:count])
    assert run(over, rising(0.1)) is None


@pytest.mark.parametrize("rule", RULES)
def test_grace_is_kept(rule: str) -> None:
    stop = run(watch({"rule": rule, "grace": 13}, many(12, noise=0.01)), rising(0.1))
    assert stop is not None
    assert stop.step == 13


@pytest.mark.parametrize("rule", RULES)
def test_where_the_others_ended_nothing_is_saved_and_none_is_stopped(rule: str) -> None:
    over = watch({"rule": rule, "grace": 20}, many(12, noise=0.01))
    assert run(over, rising(0.1, steps=40)) is None
    shorter = watch({"rule": rule, "grace": 20}, many(12, noise=0.01, steps=60))
    assert run(shorter, rising(0.1, steps=40)) is not None


@pytest.mark.parametrize("rule", RULES)
def test_a_step_reported_again_is_no_news(rule: str) -> None:
    over = watch(rule, many(12, noise=0.01))
    assert over.stop([*rising(0.95)[:9], (3, 0.0)]) is None
    assert over.stop([]) is None


@pytest.mark.parametrize("rule", RULES)
def test_a_watch_travels_as_json_and_says_the_same(rule: str) -> None:
    over = watch(rule, many(12, noise=0.01), expected=(0.7, 0.1))
    back = Watch.model_validate(json.loads(json.dumps(over.model_dump(mode="json"))))
    assert back == over
    assert run(back, rising(0.4)) == run(over, rising(0.4))


def test_without_a_rule_or_without_earlier_trials_nobody_watches() -> None:
    proposal: Proposal = trial(20, value=1.0, predicted=0.5, predicted_std=0.25).proposal
    settings = TypeAdapter(StoppingSpec)
    assert watch_over(settings.validate_python("none"), "maximize", proposal, many(12)) is None
    assert watch_over(settings.validate_python("median"), "maximize", proposal, []) is None
    over = watch_over(settings.validate_python("median"), "maximize", proposal, many(12))
    assert over is not None
    assert over.expected == (0.5, 0.25)
    assert run(watch("none", many(12)), rising(0.1)) is None


# -- median ----------------------------------------------------------------------------------------------------------


def test_the_median_is_that_of_those_that_came_as_far() -> None:
    high, low = [ended([(1, 0.9), (2, 0.9), (3, 0.9)])] * 5, [ended([(1, 0.1)])] * 9
    over = watch("median", [*high, *low])
    stop = run(over, [(1, 0.2), (2, 0.2)])
    assert stop is not None
    assert stop.reason == "at step 2: its best, 0.2, is worse than the median of 5 earlier trials, 0.9"
    assert (stop.step, stop.value) == (2, 0.2)
    assert stop.estimate == pytest.approx(0.2)
    assert stop.deviation == pytest.approx(0, abs=1e-6)
    assert run(watch("median", [*high[1:], *low]), [(1, 0.2), (2, 0.2)]) is None, "too few came as far"


def test_the_best_so_far_counts_and_a_tie_goes_on() -> None:
    over = watch("median", [ended([(1, 0.5), (2, 0.5), (9, 0.5)])] * 5)
    assert run(over, [(1, 0.5), (2, 0.1)]) is None
    assert run(over, [(1, 0.4999)]) is not None


# -- asynchronous successive halving ---------------------------------------------------------------------------------


def at_rungs(scores: list[float]) -> list[Course]:
    """Trials that are worth the same at each step up to 100."""
    return [ended([(step, score) for step in (1, 3, 9, 27, 81, 100)]) for score in scores]


@pytest.mark.parametrize(
    ("reduction", "count", "go_on"), [(3, 2, 1), (3, 5, 2), (3, 8, 3), (2, 3, 2), (4, 7, 2), (1.5, 5, 4)]
)
def test_the_best_share_goes_on(reduction: float, count: int, go_on: int) -> None:
    rule = {"rule": "asha", "reduction": reduction}
    over = watch(rule, at_rungs([1 - i / 10 for i in range(count)]))
    assert run(over, [(1, 1.05 - (go_on - 1) / 10)]) is None
    stop = run(over, [(1, 1.05 - go_on / 10)])
    assert stop is not None
    assert f"number {go_on + 1} of the {count + 1} trials that came to step 1, of which {go_on} go on" in stop.reason


def test_between_rungs_none_is_stopped() -> None:
    over = watch({"rule": "asha", "reduction": 3, "grace": 2}, at_rungs([0.9] * 8))
    curve = [(step, 0.95 if step == 2 else 0.1) for step in range(2, 20)]
    stop = run(over, curve)
    assert stop is not None
    assert stop.step == 6
    assert run(over, [(1, 0.1)]) is None
    skipping = run(over, [(2, 0.95), (50, 0.1)])
    assert skipping is not None
    assert "came to step 18" in skipping.reason, "the highest rung that it has passed"


def test_stopped_trials_count_at_the_rungs_that_they_reached() -> None:
    halfway = [under_way([(1, 0.2), (3, 0.2)])] * 3
    over = watch("asha", [*halfway, *at_rungs([0.9] * 3)])
    assert run(over, [(1, 0.5)]) is not None, "the third of seven, of which two go on"
    assert run(watch("asha", [*halfway, *halfway, *at_rungs([0.9] * 2)]), [(1, 0.5)]) is None


# -- the learned rule ------------------------------------------------------------------------------------------------


def test_a_late_starter_goes_on_where_the_model_expects_much_of_it() -> None:
    expected = [course.model_copy(update={"expected": (course.final, 0.02)}) for course in many(12, noise=0.01)]
    slow = rising(0.95, rate=0.2)[:4]
    assert watch("learned", expected).stop(slow) is not None
    assert watch("learned", expected, expected=(0.95, 0.02)).stop(slow) is None
    assert watch("learned", expected, expected=(0.5, 0.02)).stop(slow) is not None


def test_the_smaller_epsilon_the_later_a_trial_is_stopped() -> None:
    def step(epsilon: float) -> float:
        stop = run(watch({"rule": "learned", "epsilon": epsilon}, many(12, noise=0.02)), rising(0.7))
        return float("inf") if stop is None or stop.step is None else stop.step

    steps = [step(epsilon) for epsilon in (0.4, 0.05, 1e-3, 1e-5)]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_a_trial_that_has_been_better_than_the_best_goes_on() -> None:
    over = watch({"rule": "learned", "grace": 5}, many(12, noise=0.01))
    assert run(over, [(1, 0.95), *[(step, 0.1) for step in range(2, 15)]]) is None
