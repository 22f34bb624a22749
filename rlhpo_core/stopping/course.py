"""A trial as rules see it: its curve in rewards, of which more is better, and what is known of its end."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property

from rlhpo_core.frozen import Frozen
from rlhpo_core.trial import Direction, FiniteFloat, Trial, TrialStatus, sign

#: Of a curve with more points, so many are kept, evenly; a worker, or a pod, is given those of many trials.
MOST_POINTS = 128

Point = tuple[int, float]


class Course(Frozen):
    """Of a trial under way: what it has reported so far. Of one of an earlier round: all of it."""

    curve: tuple[tuple[int, FiniteFloat], ...]
    """(step, reward), the steps ascending; at least one point."""
    final: FiniteFloat | None = None
    """The reward that it ended with; ``None`` if it was stopped, or is still under way."""
    last_step: int | None = None
    """Of one under way: at which it will end at the latest; ``None`` if that is not known."""
    expected: tuple[FiniteFloat, FiniteFloat] | None = None
    """Mean and standard deviation that the reward model predicted of its configuration before it was trained."""

    @cached_property
    def _steps(self) -> tuple[int, ...]:
        return tuple(step for step, _ in self.curve)

    @property
    def step(self) -> int:
        """The last step."""
        return self.curve[-1][0]

    @property
    def end(self) -> int | None:
        """The step at which it has ended, or will; ``None`` if that is not known."""
        return self.step if self.final is not None else self.last_step

    def at(self, step: int) -> float | None:
        """The last reward that was reported at or before a step; ``None`` before the first."""
        position = bisect_right(self._steps, step)
        return self.curve[position - 1][1] if position else None

    def upon(self, step: float) -> float | None:
        """The first reward that was reported at or after a step; ``None`` if the trial did not come as far."""
        position = bisect_left(self._steps, step)
        return self.curve[position][1] if position < len(self.curve) else None

    def best(self) -> float:
        """The highest reward that it has reported."""
        return max(reward for _, reward in self.curve)


def course_of(trial: Trial, direction: Direction) -> Course | None:
    """A finished trial with its curve; ``None`` if rules learn nothing from it.

    A trial that failed is none: how far a crash, a clock or a full memory let it come depends on the machine.

    Raises: ValueError if the trial's curve is not at hand.
    """
    if trial.curve is None:
        raise ValueError(f"the curve of trial {trial.trial_id} is not at hand; read its file")
    points = rewarded(trial.curve, direction)
    if trial.status not in (TrialStatus.COMPLETE, TrialStatus.PRUNED) or not points:
        return None
    return Course(
        curve=_thinned(points),
        final=None if trial.value is None else sign(direction) * trial.value,
        expected=trial.proposal.expected,
    )


def rewarded(curve: Iterable[Point], direction: Direction) -> tuple[Point, ...]:
    """A curve of the objective as one of rewards; a point whose step is not beyond those before it is passed over."""
    points: list[Point] = []
    for step, value in curve:
        if not points or step > points[-1][0]:
            points.append((step, sign(direction) * value))
    return tuple(points)


def _thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most MOST_POINTS of them, the first and the last included."""
    last = len(points) - 1
    if last < MOST_POINTS:
        return tuple(points)
    return tuple(points[round(i * last / (MOST_POINTS - 1))] for i in range(MOST_POINTS))
