"""The learned rule: stop a trial whose chance of ending above the best is small.

The chance is that of ``forecast``: the reward model's prediction of the configuration, and the curve so far. The
model is known by the mean and the deviation that it has predicted, of this trial and of earlier ones, and by nothing
else. The idea is that of Domhan et al. (IJCAI 2015), who extrapolate each curve by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlhpo_core.stopping import forecast
from rlhpo_core.stopping.course import Course
from rlhpo_core.study.stopping_settings import LearnedStopping


def verdict(
    settings: LearnedStopping, earlier: Sequence[Course], trial: Course, shown: Callable[[float], str]
) -> str | None:
    """Why to stop a trial at its last report; ``None`` to go on. The arguments are those of ``watch.Rule``."""
    if trial.step < settings.grace:
        return None
    by_curve = forecast.by_curve(earlier, trial, settings.min_trials)
    if by_curve is None:
        return None
    best = max(other.final for other in earlier if other.final is not None)
    expected = forecast.with_model(by_curve, earlier, trial)
    if trial.best() > best or (chance := expected.chance_above(best)) >= settings.epsilon:
        return None
    end = shown(expected.mean)
    return f"its chance of ending better than the best, {shown(best)}, is {chance:.2g}; it is expected to end at {end}"
