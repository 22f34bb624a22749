from __future__ import annotations

import pytest

from rlhpo_core.study import rounds
from rlhpo_core.study.tuner_settings import TunerSettings


def sizes(settings: TunerSettings, count: int = 8) -> list[int]:
    return [rounds.size(settings, number) for number in range(count)]


def test_a_study_begins_with_rounds_of_one_trial_unless_its_user_says_how_many_a_round_has() -> None:
    assert sizes(TunerSettings()) == [1, 1, 1, 1, 1, 5, 5, 5]
    assert sizes(TunerSettings(trials_per_round=20)) == [20] * 8
    assert sizes(TunerSettings(trials_per_round=4, single_rounds=2)) == [1, 1, 4, 4, 4, 4, 4, 4]
    assert sizes(TunerSettings(single_rounds=0)) == [5] * 8
    assert sizes(TunerSettings.model_validate("paper")) == [5] * 8
    assert sizes(TunerSettings.model_validate({"profile": "paper", "trials_per_round": 3})) == [3] * 8


def test_what_is_read_back_has_the_same_rounds() -> None:
    for settings in (TunerSettings(), TunerSettings(trials_per_round=3), TunerSettings.model_validate("paper")):
        assert TunerSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    "settings", [TunerSettings(), TunerSettings(trials_per_round=3), TunerSettings(single_rounds=2)]
)
@pytest.mark.parametrize("first", [0, 3, 6])
@pytest.mark.parametrize("trials", [0, 1, 4, 5, 6, 23])
def test_the_count_is_that_of_the_rounds_one_after_another(settings: TunerSettings, first: int, trials: int) -> None:
    number, left = first, trials
    while left > 0:
        left -= rounds.size(settings, number)
        number += 1
    assert rounds.count(settings, trials, first) == number - first
