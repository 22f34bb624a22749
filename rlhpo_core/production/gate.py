"""The gate: whether a challenger is surely better than the champion by a margin. Pure functions.

Both models answer the same rows, so that what is hard about a row cancels out: the gain is resampled over rows in
pairs (Efron & Tibshirani 1993, chapter 16), and the challenger passes if the lower end of the one-sided interval lies
above the margin. If it truly gains no more than the margin, it passes at most at the error rate, 1 − confidence.
Where rows come in groups, such as those of one customer, groups are resampled; where they are weighted, they count by
their weights, as in the study's scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from rlhpo_core.arrays import Bools, Floats
from rlhpo_core.data.holdout import counted
from rlhpo_core.data.labelled import Rows
from rlhpo_core.frozen import Frozen
from rlhpo_core.production.answers import Answers
from rlhpo_core.production.bootstrap import draws, scores
from rlhpo_core.study.production_settings import GateSpec
from rlhpo_core.study.spec import METRICS
from rlhpo_core.trial import FiniteFloat, sign

Decision = Literal["promote", "keep", "veto", "refuse"]
#: Where the study names no margin: of scores of which 1 is the best, and of errors as a share of the champion's.
MARGIN, RELATIVE_MARGIN = 0.01, 0.01
#: Of so few groups no bootstrap knows how much they differ.
MIN_GROUPS = 20
#: The power at which the detectable gain is stated.
_POWER = 0.8


class Guard(Frozen):
    """Something that must not get worse beyond a limit."""

    name: str
    """With its unit."""
    champion: FiniteFloat
    challenger: FiniteFloat
    limit: str
    """For a person to read."""
    passed: bool


class Measured(Frozen):
    """Scores of both models on the gate's rows, and what the bootstrap says of the gain; all in units of the metric."""

    champion: FiniteFloat
    challenger: FiniteFloat
    gain: FiniteFloat
    """By how much the challenger is better, whatever the metric's direction."""
    low: FiniteFloat
    """Lower end of the one-sided interval of the gain."""
    high: FiniteFloat
    """Upper end of the one-sided interval to the other side."""
    margin: FiniteFloat
    """What the gain has to exceed."""
    detectable: FiniteFloat
    """The true gain that these rows would let pass four times out of five."""


class Verdict(Frozen):
    """What the gate says, and all that it rests on."""

    decision: Decision
    reason: str
    """For a person to read."""
    metric: str
    rows: int
    """How many rows both models answered."""
    confidence: FiniteFloat
    """As applied, after the correction for several challengers."""
    measured: Measured | None = None
    """``None`` if it was refused before anything was measured."""
    guards: tuple[Guard, ...] = ()
    unknown: tuple[str, ...] = ()
    """Classes that were left out, with their rows, since not both models know them."""


def judge(
    metric: str,
    target: Floats,
    champion: Answers,
    challenger: Answers,
    slices: Mapping[str, Bools],
    spec: GateSpec,
    seed: int,
    rivals: int = 1,
    weights: Floats | None = None,
    groups: Rows | None = None,
) -> Verdict:
    """Compare two models by their answers to the same N rows.

    Args:
        metric: One of ``study.spec.METRICS``.
        target: (N,) numbers, or indices of classes.
        slices: Name to the rows of a slice, (N,) each.
        seed: Of the bootstrap.
        rivals: How many challengers are judged for one place; each must be surer then (Bonferroni).
        weights: (N,), how much each row counts; ``None`` if all count alike.
        groups: (N,), whole numbers: rows of one group stay together; ``None`` if each row stands for itself.
    """
    rows, confidence = len(target), 1 - (1 - spec.confidence) / rivals
    if (lacking := too_few(rows, groups, spec)) is not None:
        return refusal(metric, rows, confidence, lacking)
    asked = _Asked(target, np.ones(rows) if weights is None else weights / weights.mean(), groups)
    measured = _measure(metric, asked, champion, challenger, spec, confidence, seed)
    if measured is None:
        reason = f"{metric} is not defined on these rows; they may hold one class only"
        return refusal(metric, rows, confidence, reason)
    guards = tuple(_guards(metric, asked, champion, challenger, slices, spec, seed))
    lucky = metric == "accuracy" and _mcnemar(asked, champion, challenger) > 1 - confidence
    decision, reason = _decide(metric, measured, lucky, guards)
    return Verdict(
        decision=decision, reason=reason, metric=metric, rows=rows, confidence=confidence, measured=measured,
        guards=guards,
    )  # fmt: skip


def refusal(metric: str, rows: int, confidence: float, reason: str) -> Verdict:
    """A verdict that decides nothing, before anything was measured.

    Args:
        rows: How many there are to judge by.
        reason: For a person to read.
    """
    return Verdict(decision="refuse", reason=reason, metric=metric, rows=rows, confidence=confidence)


def too_few(rows: int, groups: Rows | None, spec: GateSpec) -> str | None:
    """The reason why rows decide nothing; ``None`` if there are enough of them.

    Args:
        rows: How many there are.
        groups: As for ``judge``.
    """
    if rows < spec.min_rows:
        return f"{rows} rows are too few to decide; gate.min_rows asks for {spec.min_rows}"
    if groups is not None and (count := len(np.unique(groups))) < MIN_GROUPS:
        return (
            f"{rows} rows of {count} groups (data.split) are too few to decide: rows of one group say little more than "
            f"one of them, and at least {MIN_GROUPS} groups are needed; take a larger data.holdout"
        )
    return None


@dataclass(frozen=True)
class _Asked:
    """N rows that both models have answered."""

    target: Floats
    weights: Floats
    """(N,), above 0."""
    groups: Rows | None

    def of(self, rows: Bools) -> _Asked:
        groups = None if self.groups is None else counted(self.groups[rows])
        return _Asked(self.target[rows], self.weights[rows], groups)

    def are_enough(self, rows: int) -> bool:
        """Whether there are so many rows, and groups enough if there are groups."""
        return len(self.target) >= rows and (self.groups is None or len(np.unique(self.groups)) >= MIN_GROUPS)

    def score(self, metric: str, model: Answers) -> float:
        return float(scores(metric, self.target, model.output, self.weights[None])[0])


def margin_of(spec: GateSpec, metric: str, champion: float) -> float:
    """By how much a challenger must be better, in units of the metric.

    Args:
        champion: Its score on the gate's rows.
    """
    if spec.margin is not None:
        return spec.margin
    return MARGIN if METRICS[metric] == "maximize" else RELATIVE_MARGIN * abs(champion)


def _decide(metric: str, measured: Measured, lucky: bool, guards: tuple[Guard, ...]) -> tuple[Decision, str]:
    """The decision and its reason; ``lucky``: the gain rests on so few rows that it may be chance."""
    summary = (
        f"{metric} {measured.challenger:.5g} against {measured.champion:.5g}: gain {measured.gain:.4g}, "
        f"surely at least {measured.low:.4g}"
    )
    if measured.low <= measured.margin or lucky:
        return "keep", f"{summary}, which is not above the margin of {measured.margin:g}"
    if failed := [guard for guard in guards if not guard.passed]:
        causes = "; ".join(f"{g.name} {g.challenger:.4g} against {g.champion:.4g} ({g.limit})" for g in failed)
        return "veto", f"{summary}, but {causes}"
    return "promote", f"{summary}, above the margin of {measured.margin:g}"


def _measure(
    metric: str, asked: _Asked, champion: Answers, challenger: Answers, spec: GateSpec, confidence: float, seed: int
) -> Measured | None:
    """``None`` if the metric is not defined on these rows."""
    before, after = (asked.score(metric, model) for model in (champion, challenger))
    if not (math.isfinite(before) and math.isfinite(after)):
        return None
    gains = _gains(metric, asked, champion, challenger, spec, seed)
    low, high = (float(np.nanquantile(gains, share)) for share in (1 - confidence, confidence))
    margin = margin_of(spec, metric, before)
    reach = float(stats.norm.ppf(confidence) + stats.norm.ppf(_POWER)) * float(np.nanstd(gains))
    return Measured(
        champion=before, challenger=after, gain=sign(METRICS[metric]) * (after - before), low=low, high=high,
        margin=margin, detectable=margin + reach,
    )  # fmt: skip


def _gains(metric: str, asked: _Asked, a: Answers, b: Answers, spec: GateSpec, seed: int) -> Floats:
    """Gain of b over a in each resample, (resamples,)."""
    direction, target, gains = sign(METRICS[metric]), asked.target, []
    for drawn in draws(len(target), spec.resamples, seed, asked.groups):
        weights = drawn * asked.weights
        gains.append(
            direction * (scores(metric, target, b.output, weights) - scores(metric, target, a.output, weights))
        )
    return np.concatenate(gains)


def _mcnemar(asked: _Asked, champion: Answers, challenger: Answers) -> float:
    """Exact one-sided p-value that the challenger is right more often; the bootstrap is too sure of few rows.

    Of groups, those count in which one of the two is right more often.
    """
    before, after = (model.output.argmax(1) == asked.target for model in (champion, challenger))
    gain = asked.weights * (after.astype(np.float64) - before)
    if asked.groups is not None:
        gain = np.bincount(asked.groups, gain).round(9)
    won, lost = int((gain > 0).sum()), int((gain < 0).sum())
    return float(stats.binomtest(won, won + lost, alternative="greater").pvalue) if won + lost else 1.0


def _guards(
    metric: str, asked: _Asked, champion: Answers, challenger: Answers, slices: Mapping[str, Bools],
    spec: GateSpec, seed: int,
) -> list[Guard]:  # fmt: skip
    guards = []
    pairs = (
        ("milliseconds per row", 1e3 * champion.seconds_per_row, 1e3 * challenger.seconds_per_row, spec.latency_ratio),
        ("kilobytes", champion.size / 1e3, challenger.size / 1e3, spec.size_ratio),
    )
    for name, before, after, ratio in pairs:
        if ratio is not None:
            limit = f"at most {ratio:g} times as many"
            guards.append(
                Guard(name=name, champion=before, challenger=after, limit=limit, passed=after <= ratio * before)
            )
    if champion.output.ndim == 2 and spec.log_loss_increase is not None:
        before, after = (asked.score("log_loss", model) for model in (champion, challenger))
        limit = f"at most {100 * spec.log_loss_increase:g} % more"
        passed = after <= (1 + spec.log_loss_increase) * before
        guards.append(Guard(name="log-loss", champion=before, challenger=after, limit=limit, passed=passed))
    worst = _worst_slice(metric, asked, champion, challenger, slices, spec, seed)
    return guards if worst is None else [*guards, worst]


def _worst_slice(
    metric: str, asked: _Asked, champion: Answers, challenger: Answers, slices: Mapping[str, Bools],
    spec: GateSpec, seed: int,
) -> Guard | None:  # fmt: skip
    """The slice in which the challenger loses most for sure, all slices together at the gate's confidence."""
    large = {name: rows for name, rows in slices.items() if asked.of(rows).are_enough(spec.slice_rows)}
    worst: tuple[float, str, float, float] | None = None
    for name, rows in large.items():
        a, b = (Answers(m.output[rows], m.seconds_per_row, m.size) for m in (champion, challenger))
        inside = asked.of(rows)
        before, after = (inside.score(metric, model) for model in (a, b))
        gains = _gains(metric, inside, a, b, spec, seed)
        if not (math.isfinite(before) and math.isfinite(after)) or np.isnan(gains).all():
            continue
        upper = float(np.nanquantile(gains, 1 - (1 - spec.confidence) / len(large)))
        if worst is None or upper < worst[0]:
            worst = (upper, name, before, after)
    if worst is None:
        return None
    upper, name, before, after = worst
    limit = f"surely worse by at most {spec.slice_drop:g}"
    return Guard(
        name=f"{metric} where {name}", champion=before, challenger=after, limit=limit, passed=upper >= -spec.slice_drop
    )
