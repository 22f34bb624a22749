"""The time that stopped trials have saved."""

from __future__ import annotations

import pytest

from rlhpo_core.stopping.saved import Saved, duration
from rlhpo_core.trial import TrialStatus
from tests.helpers.courses import history, trial

PRUNED = TrialStatus.PRUNED


def test_stopped_trials_are_compared_with_complete_ones() -> None:
    found = history(
        trial(0, value=1.0, seconds=10.0), trial(1, value=1.0, seconds=30.0), trial(2, PRUNED, seconds=5.0),
        trial(3, PRUNED, seconds=2.0), trial(4, TrialStatus.FAILED, seconds=999.0),
    )  # fmt: skip
    assert Saved.of(found) == Saved(stopped=2, seconds=33.0, compared=2)


@pytest.mark.parametrize(
    ("saved", "text"),
    [
        (Saved(1, None, 0), "1 trial stopped early"),
        (Saved(1, 5.0, 1), "1 trial stopped early; saved about 5.0 s, had it taken as long as the complete one"),
        (
            Saved(3, 125.0, 4),
            "3 trials stopped early; saved about 2 min 5 s, had each taken as long as the 4 complete ones on average",
        ),
    ],
)
def test_the_time_is_told_with_how_it_was_estimated(saved: Saved, text: str) -> None:
    assert saved.described() == text


def test_durations_are_readable() -> None:
    assert [duration(seconds) for seconds in (0.04, 59.9, 60, 3599, 3600, 90061)] == [
        "0.0 s", "59.9 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "25 h 1 min",
    ]  # fmt: skip


def test_a_saving_is_not_negative() -> None:
    assert Saved.of(history(trial(0, value=1.0, seconds=1.0), trial(1, PRUNED, seconds=5.0))) == Saved(1, 0.0, 1)


def test_with_nothing_to_compare_with_it_is_not_known() -> None:
    assert Saved.of(history(trial(0, PRUNED, seconds=5.0))) == Saved(1, None, 0)
    assert Saved.of(history(trial(0, value=1.0))) is None
