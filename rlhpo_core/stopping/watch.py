"""What watches over a trial: a rule with the curves of earlier rounds, as it travels to the trial's worker in JSON.

A rule sees the trials of earlier rounds and the trial's own curve so far, nothing of trials that run beside it. So what
it says follows from the study alone, with any number of workers and on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rlhpo_core.frozen import Frozen
from rlhpo_core.stopping import forecast, halving, learned, median
from rlhpo_core.stopping.course import Course, Point, course_of, rewarded
from rlhpo_core.study.stopping_settings import (
    HalvingStopping,
    LearnedStopping,
    MedianStopping,
    NoStopping,
    StoppingSpec,
)
from rlhpo_core.trial import Direction, FiniteFloat, Proposal, Stop, Trial, sign


class Rule(Protocol):
    """From data to a verdict, with the rule's own settings bound; asked at each report of a trial."""

    def __call__(self, earlier: Sequence[Course], trial: Course, shown: Callable[[float], str]) -> str | None:
        """Why to stop the trial now, for a person to read; ``None`` to go on.

        Args:
            earlier: Trials of earlier rounds, in the order of their numbers.
            trial: The trial so far; its last point is the report at hand.
            shown: Writes a reward as a value of the objective.
        """
        ...


def rule_of(settings: StoppingSpec) -> Rule:
    """The rule that a study names."""
    match settings:
        case MedianStopping():
            return lambda earlier, trial, shown: median.verdict(settings, earlier, trial, shown)
        case HalvingStopping():
            return lambda earlier, trial, shown: halving.verdict(settings, earlier, trial, shown)
        case LearnedStopping():
            return lambda earlier, trial, shown: learned.verdict(settings, earlier, trial, shown)
        case NoStopping():
            return lambda earlier, trial, shown: None


class Watch(Frozen):
    """All that it takes to say of a trial, at each of its reports, whether it is to stop."""

    settings: StoppingSpec
    direction: Direction
    earlier: tuple[Course, ...]
    expected: tuple[FiniteFloat, FiniteFloat] | None = None
    """What the reward model predicted of the trial, as ``Course.expected``."""

    def stop(self, curve: Sequence[Point], last_step: int | None = None) -> Stop | None:
        """Whether to stop at the last report; ``None`` to go on.

        A trial is left alone beyond the steps to which earlier ones went: it may be about to end, and nothing would be
        saved.

        Args:
            curve: (step, value) so far, in the objective's units, finite.
            last_step: At which the trial will end, if that is known.
        """
        points = rewarded(curve, self.direction)
        # A report of a step that was reported before is no news.
        if not points or points[-1][0] != curve[-1][0]:
            return None
        trial = Course(curve=points, expected=self.expected, last_step=last_step)
        if not forecast.beyond(self.earlier, trial.step):
            return None
        reason = rule_of(self.settings)(self.earlier, trial, self._shown)
        if reason is None:
            return None
        pointed = forecast.by_curve(self.earlier, trial)
        return Stop(
            reason=f"at step {trial.step}: {reason}",
            step=trial.step,
            value=curve[-1][1],
            estimate=None if pointed is None else sign(self.direction) * pointed.mean,
            deviation=None if pointed is None else pointed.deviation,
        )

    def _shown(self, reward: float) -> str:
        return f"{sign(self.direction) * reward:.5g}"


def watch_over(
    settings: StoppingSpec, direction: Direction, proposal: Proposal, earlier: Sequence[Course]
) -> Watch | None:
    """What watches over a proposal's trial; ``None`` if it cannot stop.

    Args:
        earlier: Trials of earlier rounds, in the order of their numbers.
    """
    if isinstance(settings, NoStopping) or not earlier:
        return None
    return Watch(settings=settings, direction=direction, earlier=tuple(earlier), expected=proposal.expected)


def courses_of(trials: Sequence[Trial], direction: Direction) -> tuple[Course, ...]:
    """What rules see of finished trials with their curves; those of which they learn nothing are left out."""
    return tuple(course for trial in trials if (course := course_of(trial, direction)) is not None)
