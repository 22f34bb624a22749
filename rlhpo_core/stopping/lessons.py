"""What a stopped trial teaches the tuner: no score, but a pseudo-observation with more noise than a score has.

Left out, a stopped trial would be forgotten: its region, which was poor enough to be stopped in, would be proposed
again. Taken with its last value as if that were a score, every slow learner would look poor. So it counts with what its
curve pointed to, without the reward model's own part (else the model would be taught what it believes), and at most as
much as the best complete trial: a trial that never ended has won nothing. Where too few curves were known, it counts
with its last value, a pessimistic one. decision 11 has the reasons.
"""

from __future__ import annotations

from rlhpo_core.trial import History, Trial, sign

#: The weight of a stopped trial whose estimate has no known deviation, or whose study has no known noise.
UNKNOWN = 0.25
#: The least weight.
LEAST = 0.05


def taught_rewards(history: History) -> list[float | None]:
    """The reward that each trial counts with when the tuner learns; ``None`` if nothing is known of it."""
    best = history.best()
    most = None if best is None else history.reward(best)
    return [_taught(history, trial, most) for trial in history.trials]


def _taught(history: History, trial: Trial, most: float | None) -> float | None:
    if trial.stop is None:
        return history.reward(trial)
    pointed = trial.stop.value if trial.stop.estimate is None else trial.stop.estimate
    if pointed is None:
        return None
    reward = sign(history.direction) * pointed
    return reward if most is None else min(reward, most)


def taught_weight(trial: Trial, noise: float | None) -> float:
    """The weight of a trial's reward: its noise variance counts as 1/weight times that of a score.

    1 for all but stopped trials. Of those it is such that the variance is that of a score plus that of the estimate.

    Args:
        noise: Variance of a score around what the reward model predicts of it; ``None`` if it is not known.
    """
    if trial.stop is None:
        return 1.0
    if trial.stop.deviation is None or noise is None or noise <= 0:
        return UNKNOWN
    return max(LEAST, noise / (noise + trial.stop.deviation**2))
