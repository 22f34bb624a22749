"""The median rule, as in Vizier (Golovin et al., KDD 2017, section 3.2.2) and Optuna.

As in Optuna, others count with what they had reached at the step. Vizier takes the mean of their curves up to there,
which lags behind curves that rise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from rlhpo_core.stopping.course import Course
from rlhpo_core.study.stopping_settings import MedianStopping


def verdict(
    settings: MedianStopping, earlier: Sequence[Course], trial: Course, shown: Callable[[float], str]
) -> str | None:
    """Why to stop a trial at its last report; ``None`` to go on. The arguments are those of ``watch.Rule``."""
    if trial.step < settings.grace:
        return None
    there = [reward for other in earlier if other.step >= trial.step and (reward := other.at(trial.step)) is not None]
    if len(there) < settings.min_trials or trial.best() >= (middle := median(there)):
        return None
    return f"its best, {shown(trial.best())}, is worse than the median of {len(there)} earlier trials, {shown(middle)}"
