"""What a trial will end with."""

from __future__ import annotations

import numpy as np
import pytest

from rlhpo_core.stopping.course import Course
from rlhpo_core.stopping.forecast import LEAST, Forecast, by_curve, with_model
from tests.helpers.courses import ended, many, rising, under_way


@pytest.mark.parametrize("step", [2, 5, 15])
@pytest.mark.parametrize("end", [0.55, 0.8, 0.95])
def test_a_curve_like_others_is_continued_like_them(step: int, end: float) -> None:
    found = by_curve(many(20), under_way(rising(end)[:step]))
    assert found is not None
    assert found.mean == pytest.approx(rising(end)[-1][1], abs=0.03)


def test_what_came_nearer_to_the_end_is_the_more_certain() -> None:
    deviations = []
    for step in (2, 6, 12):
        found = by_curve(many(20, noise=0.01, steps=30), under_way(rising(0.7)[:step]))
        assert found is not None
        deviations.append(found.deviation)
    assert deviations[0] > deviations[-1]


def test_intervals_hold_what_they_say() -> None:
    """Of trials with rates of their own, about 80 in 100 end inside the central 80 % interval."""
    rng = np.random.default_rng(0)

    def drawn() -> list[tuple[int, float]]:
        return rising(float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.1, 0.4)), steps=30)

    inside = []
    for _ in range(200):
        earlier, own = [ended(drawn()) for _ in range(20)], drawn()
        found = by_curve(earlier, under_way(own[:8]))
        assert found is not None
        chance = found.chance_above(own[-1][1])
        inside.append(0.1 < chance < 0.9)
    assert 0.7 < np.mean(inside) < 0.95


def test_a_training_that_ends_sooner_is_expected_to_end_lower() -> None:
    """Of equal curves, each earlier trial ended at a step of its own."""
    earlier = [ended(rising(0.8, 0.1, steps=steps)) for steps in (12, 15, 20, 25, 30, 40, 50, 60)]
    short, long, unknown = (
        by_curve(earlier, under_way(rising(0.8, 0.1)[:8], last_step=last)) for last in (13, 55, None)
    )
    assert short is not None
    assert long is not None
    assert unknown is not None
    assert short.mean < unknown.mean < long.mean
    assert max(short.deviation, long.deviation) < unknown.deviation


def test_trials_that_diverged_do_not_decide() -> None:
    diverged = [ended([(1, -1e6), (2, -1e9), (20, -1e9)])] * 4
    plain, with_them = (by_curve([*many(20), *more], under_way(rising(0.7)[:5])) for more in ([], diverged))
    assert plain is not None
    assert with_them is not None
    assert with_them.mean == pytest.approx(plain.mean, abs=0.02)
    assert with_them.deviation < 0.1


def test_only_trials_that_ended_further_on_count() -> None:
    stopped, short = [under_way(rising(0.8))] * 9, [ended(rising(0.8, steps=4))] * 9
    own = under_way(rising(0.7)[:4])
    assert by_curve([*stopped, *short, *many(LEAST - 1)], own) is None
    assert by_curve([*stopped, *short, *many(LEAST)], own) is not None
    assert by_curve(many(LEAST), under_way([(0, 0.1)])) is None, "they had reported nothing by then"


def test_equal_trials_leave_no_doubt() -> None:
    found = by_curve([ended(rising(0.8))] * 9, under_way(rising(0.8)[:4]))
    assert found is not None
    assert found.mean == pytest.approx(rising(0.8)[-1][1])
    assert 0 < found.deviation < 1e-6
    assert found.chance_above(0.81) < 1e-12


def test_the_tail_is_students() -> None:
    assert Forecast(1.0, 2.0, 4).chance_above(1.0) == 0.5
    assert Forecast(0.0, 1.0, 1).chance_above(1.0) == pytest.approx(0.25), "Cauchy's"


# -- with the reward model -------------------------------------------------------------------------------------------


def told(off: float, std: float) -> list[Course]:
    """Trials of which the model was off by so much, up and down in turn."""
    return [
        course.model_copy(update={"expected": (course.final + off * (-1) ** i, std)})
        for i, course in enumerate(many(10))
        if course.final is not None
    ]


def test_prediction_and_curve_are_weighted_by_their_precision() -> None:
    own = under_way(rising(0.7)[:5], expected=(0.8, 0.1))
    found = with_model(Forecast(0.6, 0.2, 7), told(0.05, 0.1), own)
    assert found.mean == pytest.approx((0.6 / 0.04 + 0.8 / 0.01) / (1 / 0.04 + 1 / 0.01))
    assert found.deviation == pytest.approx((1 / 0.04 + 1 / 0.01) ** -0.5)
    assert found.freedom == 7


def test_a_model_that_was_far_off_counts_little() -> None:
    own = under_way(rising(0.7)[:5], expected=(0.9, 0.01))
    trusted, doubted = (with_model(Forecast(0.6, 0.1, 7), told(off, 0.01), own) for off in (0.01, 0.5))
    assert trusted.mean > 0.89
    assert doubted.mean < 0.65


def test_a_disagreement_makes_it_less_certain() -> None:
    near, far = (
        with_model(Forecast(0.6, 0.1, 7), told(0.05, 0.1), under_way(rising(0.7)[:5], expected=(mean, 0.1)))
        for mean in (0.6, 2.6)
    )
    assert near.deviation == pytest.approx(0.1 / 2**0.5)
    assert far.deviation == pytest.approx(near.deviation * 2 / 0.02**0.5)


@pytest.mark.parametrize("judged", [0, LEAST - 1])
def test_a_model_that_nobody_can_judge_does_not_count(judged: int) -> None:
    forecast = Forecast(0.6, 0.1, 7)
    own = under_way(rising(0.7)[:5], expected=(0.9, 0.01))
    assert with_model(forecast, told(0.01, 0.01)[:judged], own) == forecast
    assert with_model(forecast, told(0.01, 0.01), under_way(rising(0.7)[:5])) == forecast
