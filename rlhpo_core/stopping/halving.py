"""Asynchronous successive halving: Li et al., A System for Massively Parallel Hyperparameter Tuning (MLSys 2020).

In the variant that stops trials, rather than pausing them to promote them later: a trial that comes to a rung goes on
if it is among the best there so far, one in ``reduction``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlhpo_core.stopping.course import Course
from rlhpo_core.study.stopping_settings import HalvingStopping


def verdict(
    settings: HalvingStopping, earlier: Sequence[Course], trial: Course, shown: Callable[[float], str]
) -> str | None:
    """Why to stop a trial at its last report; ``None`` to go on. The arguments are those of ``watch.Rule``."""
    before = trial.curve[-2][0] if len(trial.curve) > 1 else float("-inf")
    rung = highest_rung(settings, before, trial.step)
    if rung is None:
        return None
    there = [reward for other in earlier if (reward := other.upon(rung)) is not None]
    own = trial.curve[-1][1]
    place = 1 + sum(reward > own for reward in there)
    go_on = int((len(there) + 1) / settings.reduction)
    # Too few to choose from: none is stopped.
    if go_on < 1 or place <= go_on:
        return None
    return (
        f"with {shown(own)} it is number {place} of the {len(there) + 1} trials that came to step {rung:g}, of which "
        f"{go_on} go on"
    )


def highest_rung(settings: HalvingStopping, before: float, step: int) -> float | None:
    """The highest rung after one step and not after another; ``None`` if there is none."""
    rung, found = float(settings.grace), None
    while rung <= step:
        if rung > before:
            found = rung
        rung *= settings.reduction
    return found
