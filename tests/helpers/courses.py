"""Trials with curves, for the rules that stop trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhpo_core.stopping.course import Course
from rlhpo_core.trial import History, Proposal, Stop, Trial, TrialStatus


def rising(end: float, rate: float = 0.3, steps: int = 20) -> list[tuple[int, float]]:
    """From near 0 towards ``end``, step by step from 1."""
    return [(step, end * (1 - math.exp(-rate * step))) for step in range(1, steps + 1)]


def ended(curve: Sequence[tuple[int, float]], **fields: Any) -> Course:
    """A trial that ran to its end; its last value is its score unless it is given."""
    return Course(curve=tuple(curve), **{"final": curve[-1][1], **fields})


def under_way(curve: Sequence[tuple[int, float]], **fields: Any) -> Course:
    """A trial that has come as far as the curve."""
    return Course(curve=tuple(curve), **fields)


def many(count: int, seed: int = 0, noise: float = 0.0, steps: int = 20) -> list[Course]:
    """Trials that ran to ends between 0.5 and 0.9, all at one rate, the best first."""
    rng = np.random.default_rng(seed)
    ends = np.linspace(0.9, 0.5, count)
    return [
        ended([(step, value + float(rng.normal(0, noise))) for step, value in rising(end, steps=steps)]) for end in ends
    ]


def trial(number: int, status: TrialStatus = TrialStatus.COMPLETE, **fields: Any) -> Trial:
    """A trial with whatever fields of it, in rounds of five; one that was stopped says so."""
    proposal = Proposal(
        trial_id=f"t{number}", number=number, round=number // 5, index=number % 5, config={"x": 0.5}, actions=(0.0,),
        predicted=fields.pop("predicted", None), predicted_std=fields.pop("predicted_std", None),
    )  # fmt: skip
    if status is TrialStatus.PRUNED:
        fields.setdefault("stop", Stop(reason="it is poor"))
    return Trial(proposal=proposal, status=status, **fields)


def history(*trials: Trial, direction: str = "maximize") -> History:
    """Of these trials."""
    return History.model_validate({"direction": direction}).extended(trials)
