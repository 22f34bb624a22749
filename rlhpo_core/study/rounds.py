"""How many trials each round of a study has: the same on every engine, with any number of workers.

While little is known, each trial says much about where to try the next. So a study begins with rounds of one trial,
unless its user has said how many trials a round has.
"""

from __future__ import annotations

import math

from rlhpo_core.study.tuner_settings import TunerSettings


def size(settings: TunerSettings, round_: int) -> int:
    """How many trials a round has.

    Args:
        round_: Counted from 0.
    """
    return 1 if round_ < settings.single_rounds else settings.trials_per_round


def count(settings: TunerSettings, trials: int, first: int = 0) -> int:
    """How many rounds a number of trials takes.

    Args:
        first: The round in which the first of them is.
    """
    single = min(max(settings.single_rounds - first, 0), trials)
    return single + math.ceil((trials - single) / settings.trials_per_round)
