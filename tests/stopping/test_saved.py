"""The time that stopped trials have saved."""

from __future__ import annotations

from rlhpo_core.stopping.saved import Saved
from rlhpo_core.trial import TrialStatus
from tests.helpers.courses import history, trial

PRUNED = TrialStatus.PRUNED


def test_stopped_trials_are_compared_with_complete_ones() -> None:
    found = history(
        trial(0, value=1.0, seconds=10.0), trial(1, value=1.0, seconds=30.0), trial(2, PRUNED, seconds=5.0),
        trial(3, PRUNED, seconds=2.0), trial(4, TrialStatus.FAILED, seconds=999.0),
    )  # fmt: skip
    assert Saved.of(found) == Saved(stopped=2, seconds=33.0, compared=2)


def test_a_saving_is_not_negative() -> None:
    assert Saved.of(history(trial(0, value=1.0, seconds=1.0), trial(1, PRUNED, seconds=5.0))) == Saved(1, 0.0, 1)


def test_with_nothing_to_compare_with_it_is_not_known() -> None:
    assert Saved.of(history(trial(0, PRUNED, seconds=5.0))) == Saved(1, None, 0)
    assert Saved.of(history(trial(0, value=1.0))) is None
