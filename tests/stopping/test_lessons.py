"""What a stopped trial teaches."""

from __future__ import annotations

import pytest

from rlhpo_core.stopping.lessons import LEAST, UNKNOWN, taught_rewards, taught_weight
from rlhpo_core.trial import Stop, TrialStatus
from tests.helpers.courses import history, trial

PRUNED = TrialStatus.PRUNED


def stopped(number: int, **fields: float | None) -> Stop:
    return Stop(reason="it is poor", step=number, **fields)  # type: ignore[arg-type]


def test_a_stopped_trial_counts_with_what_its_curve_pointed_to_or_else_reached() -> None:
    found = history(
        trial(0, value=0.9),
        trial(1, PRUNED, stop=stopped(1, value=0.2, estimate=0.6, deviation=0.1)),
        trial(2, PRUNED, stop=stopped(1, value=0.2)),
        trial(3, PRUNED),
        trial(4, TrialStatus.FAILED),
    )
    assert taught_rewards(found) == [0.9, 0.6, 0.2, None, None]


@pytest.mark.parametrize(("direction", "best", "pointed"), [("maximize", 0.9, 5.0), ("minimize", -0.9, -5.0)])
def test_never_as_more_than_the_best(direction: str, best: float, pointed: float) -> None:
    stop = stopped(1, value=0.0, estimate=pointed, deviation=0.1)
    found = history(trial(0, value=best), trial(1, PRUNED, stop=stop), direction=direction)
    assert taught_rewards(found) == [0.9, 0.9]
    assert found.best() == found.trials[0]
    alone = history(trial(1, PRUNED, stop=stop), direction=direction)
    assert taught_rewards(alone) == [5.0]
    assert alone.best() is None


def test_the_noise_of_the_estimate_is_added_to_that_of_a_score() -> None:
    def weight(deviation: float | None, noise: float | None) -> float:
        return taught_weight(trial(1, PRUNED, stop=stopped(1, value=0.1, estimate=0.1, deviation=deviation)), noise)

    assert weight(0.1, 0.01) == pytest.approx(0.5)
    assert weight(0.0, 0.01) == 1.0
    assert weight(9.0, 0.01) == LEAST
    assert weight(None, 0.01) == weight(0.1, None) == weight(0.1, 0.0) == UNKNOWN
    assert taught_weight(trial(0, value=1.0), 0.01) == taught_weight(trial(0, TrialStatus.FAILED), None) == 1.0
