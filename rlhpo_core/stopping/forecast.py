"""What a trial will end with, by its curve so far and by what became of earlier trials' curves from there on.

The remaining gain (final reward − reward at the step) is regressed on the reward at the step, on the gain over the
second half of the way there, absolute and as a share of all that was gained, and on how much longer the training goes
on, where that is known. Only those trials count that had come about as far in reward: a few that diverged would decide
about all. How wrong the regression is follows from trials that it is not fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhpo_core.arrays import Floats
from rlhpo_core.stopping.course import Course

#: Earlier trials below which nothing is said.
LEAST = 5
#: Ridge of the regression, for features of unit variance: a tenth of a trial in which they play no part (decision 11).
RIDGE = 0.1
#: Features beyond so many standard deviations count as this many.
FARTHEST = 3.0


@dataclass(frozen=True)
class Forecast:
    """Location and scale of Student's t distribution of the final reward."""

    mean: float
    deviation: float
    """Positive."""
    freedom: int
    """Degrees of freedom."""

    def chance_above(self, reward: float) -> float:
        """The probability that the final reward is higher."""
        # Heavy for a worker that never needs it.
        from scipy.special import stdtr

        return float(stdtr(self.freedom, (self.mean - reward) / self.deviation))


def beyond(earlier: Sequence[Course], step: int) -> list[Course]:
    """Those that ran to an end that lies beyond a step, and had reported by then."""
    return [other for other in earlier if other.final is not None and other.step > step and other.at(step) is not None]


def by_curve(earlier: Sequence[Course], trial: Course, least: int = LEAST) -> Forecast | None:
    """What the curve points to; ``None`` with fewer than ``least`` earlier trials that went beyond its last step."""
    others = beyond(earlier, trial.step)
    if len(others) < max(least, LEAST):
        return None
    own = _features(trial, trial.step)
    rows = np.array([_features(other, trial.step) for other in others])
    known = np.isfinite(own) & np.isfinite(rows).all(axis=0)
    own, rows = own[known], rows[:, known]
    finals = np.array([other.final for other in others], dtype=np.float64)
    near = np.argsort(np.abs(rows[:, 0] - own[0]), kind="stable")[: max(least, LEAST, len(others) // 2)]
    gain, deviation = _regression(rows[near], finals[near] - rows[near, 0], own)
    # Where all ended alike, rounding errors must not count as differences.
    floor = 1e-9 * float(np.abs(finals[near]).max()) or 1e-9
    return Forecast(float(own[0]) + gain, max(deviation, floor), len(near) - 3)


def with_model(forecast: Forecast, earlier: Sequence[Course], trial: Course) -> Forecast:
    """The forecast together with what the reward model predicted of the configuration before the trial.

    The prediction is the prior and the curve the evidence: means weighted by precision, as for two independent
    measurements. The model's deviations are scaled up to how far it was off in earlier trials. Where the two
    disagree by more than their deviations, that of the result grows as much (Birge, Phys. Rev. 40, 1932). The
    forecast stays as it is without a prediction, or with too few earlier ones to judge the model by.
    """
    judged = [(other.final, other.expected) for other in earlier if other.final is not None and other.expected]
    if trial.expected is None or len(judged) < LEAST:
        return forecast
    scaled = [((final - mean) / (std or math.inf)) ** 2 for final, (mean, std) in judged]
    mean, variance = trial.expected[0], trial.expected[1] ** 2 * max(1.0, float(np.mean(scaled)))
    if variance <= 0:
        return forecast
    own = forecast.deviation**2
    share = own / (own + variance)
    disagreement = (mean - forecast.mean) ** 2 / (own + variance)
    deviation = math.sqrt(own * variance / (own + variance) * max(1.0, disagreement))
    return Forecast(forecast.mean + share * (mean - forecast.mean), deviation, forecast.freedom)


def _features(course: Course, step: int) -> Floats:
    """The reward at a step, what was gained over the second half of the steps there and its share of all gains, and the
    logarithm of how many times as long the whole training is (4,); NaN for what is not known.
    """
    here, first, halfway = course.at(step), course.curve[0][1], course.at(step // 2)
    assert here is not None
    late = here - (first if halfway is None else halfway)
    share = late / abs(here - first) if here != first else 0.0
    # Steps may begin at 0.
    longer = math.nan if course.end is None else math.log(max(1.0, (1 + course.end) / (1 + step)))
    return np.array([here, late, share, longer])


def _regression(rows: Floats, gains: Floats, own: Floats) -> tuple[float, float]:
    """Mean and standard deviation of the gain at ``own`` (k,), by ridge regression of gains (n,) on rows (n, k)."""
    count, features = rows.shape
    centre, scale = rows.mean(axis=0), rows.std(axis=0)
    scale[scale <= 1e-12 * np.abs(rows).max()] = np.inf
    z = (rows - centre) / scale
    here = np.clip((own - centre) / scale, -FARTHEST, FARTHEST)
    inverse = np.linalg.inv(z.T @ z + RIDGE * np.eye(features))
    slopes = inverse @ z.T @ (gains - gains.mean())
    leverages = 1 / count + np.einsum("ij,jk,ik->i", z, inverse, z)
    left_out = (gains - gains.mean() - z @ slopes) / (1 - leverages)
    leverage = 1 / count + float(here @ inverse @ here)
    return float(gains.mean() + here @ slopes), math.sqrt(float(np.mean(left_out**2)) * (1 + leverage))
