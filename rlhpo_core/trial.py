"""What is proposed and what came of it: frozen records that validate themselves and travel as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from rlhpo_core.frozen import Frozen

Scalar = bool | int | float | str


def _as_value(value: object) -> object:
    """Lists become tuples, which nobody changes. Raises: ValueError, saying what may stand there."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(_as_value(item) for item in value)
    raise ValueError(
        f"{value!r} is of type {type(value).__name__}; a value is text, a number, true, false, null, or a list of these"
    )


def shown(value: Value) -> str:
    """A value as text for people and for MLflow: lists and null as in JSON, all else as Python writes it."""
    return json.dumps(value) if value is None or isinstance(value, tuple) else str(value)


_SCALARS = ["boolean", "number", "string", "null"]
Value = Annotated[
    Scalar | tuple[Any, ...] | None,
    BeforeValidator(_as_value),
    WithJsonSchema({"type": [*_SCALARS, "array"]}),
]
"""Of a hyperparameter. A list in a study file is a tuple here, and a list again for a function that is tuned."""
Config = dict[str, Value]
Direction = Literal["maximize", "minimize"]
#: Metric of a failed trial that took all the memory of its pod: the limit, in MB (10⁶ bytes), a whole number.
POD_MEMORY = "pod_memory_mb"
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


def sign(direction: Direction) -> float:
    """What a value of the objective is multiplied by to become a reward, of which more is better: 1 or -1."""
    return 1.0 if direction == "maximize" else -1.0


class TrialStatus(StrEnum):
    """How a trial ended.

    COMPLETE has a value. PRUNED was stopped early, by the study's rule or by itself: it has no value, since what it had
    reached is no final score, and a ``stop`` that says where and why. FAILED crashed, diverged, ran out of time or out
    of memory. INFEASIBLE describes nothing that could be trained, or ran to its end but scored NaN or infinity.
    """

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INFEASIBLE = "infeasible"


class Proposal(Frozen):
    """A configuration that the agent wants trained.

    ``actions`` holds one number in [-1, 1] per step of the agent, ``None`` where the step was inactive.
    ``predicted`` and ``predicted_std`` are the reward model's view *before* the trial, in reward units (higher is
    better); ``None`` before there is a model.
    """

    trial_id: str
    number: Annotated[int, Field(ge=0)]
    """Position in the study, counted from 0."""
    round: Annotated[int, Field(ge=0)]
    index: Annotated[int, Field(ge=0)]
    """Position in the round, counted from 0."""
    config: Config
    actions: tuple[FiniteFloat | None, ...]
    predicted: FiniteFloat | None = None
    predicted_std: FiniteFloat | None = None

    @property
    def expected(self) -> tuple[float, float] | None:
        """``predicted`` and ``predicted_std``; ``None`` unless both are there."""
        both = self.predicted is not None and self.predicted_std is not None
        return (self.predicted, self.predicted_std) if both else None  # type: ignore[return-value]


class Stop(Frozen):
    """Where and why a trial was stopped early, and what could be said of it then. Values are the objective's."""

    reason: str
    """For a person to read."""
    step: int | None = None
    """Of its last report; ``None`` if it had reported nothing."""
    value: FiniteFloat | None = None
    """What it had reported there; no final score."""
    estimate: FiniteFloat | None = None
    """The final score that its curve pointed to, by the curves of earlier trials; ``None`` if these were too few."""
    deviation: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Standard deviation of the estimate; given with it."""


class Trial(Frozen):
    """A proposal and its outcome. ``value`` is the objective in the user's own units and direction."""

    proposal: Proposal
    status: TrialStatus
    value: FiniteFloat | None = None
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    curve: tuple[tuple[int, FiniteFloat], ...] | None = ()
    """Intermediate values of the objective as (step, value): (boosting round, or epoch, validation score).

    ``None`` if it is not at hand: the tuner keeps none of earlier rounds; the trial's file has it.
    """
    started_at: float = 0.0
    """Unix time in seconds."""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Wall time of the trial."""
    error: str | None = None
    """Why the trial failed or was infeasible, for a person to read."""
    stop: Stop | None = None
    """Where and why it was stopped early; only of a trial that is PRUNED, and of each of those."""

    @model_validator(mode="after")
    def _value_agrees_with_status(self) -> Self:
        if self.status is TrialStatus.COMPLETE and self.value is None:
            raise ValueError("a complete trial needs a value")
        if self.status is not TrialStatus.COMPLETE and self.value is not None:
            raise ValueError(f"a trial that is {self.status} has no value")
        if (self.status is TrialStatus.PRUNED) != (self.stop is not None):
            raise ValueError("a trial that is pruned says where and why it was stopped, and no other does")
        return self

    @property
    def trial_id(self) -> str:
        """That of the proposal."""
        return self.proposal.trial_id

    @property
    def config(self) -> Config:
        """That of the proposal."""
        return self.proposal.config

    def without_curve(self) -> Trial:
        """The trial with its curve left out."""
        return self if self.curve is None else self.model_copy(update={"curve": None})

    @property
    def cause(self) -> str | None:
        """The last line of ``error``, which says most of a traceback; ``None`` if there is none."""
        return (self.error or "").strip().splitlines()[-1] if (self.error or "").strip() else None


class History(Frozen):
    """The trials of a study in the order of their numbers, each number once."""

    direction: Direction
    trials: tuple[Trial, ...] = ()

    @model_validator(mode="after")
    def _numbers_are_in_order(self) -> Self:
        numbers = [trial.proposal.number for trial in self.trials]
        if numbers != sorted(set(numbers)):
            raise ValueError("trials must be in the order of their numbers, each number once")
        return self

    def __len__(self) -> int:
        return len(self.trials)

    def reward(self, trial: Trial) -> float | None:
        """The trial's value as a reward, higher is better; ``None`` if it has no value."""
        return None if trial.value is None else sign(self.direction) * trial.value

    def extended(self, trials: Sequence[Trial]) -> History:
        """With further trials, in whatever order. Raises: ValidationError if a number is given twice."""
        merged = sorted((*self.trials, *trials), key=lambda trial: trial.proposal.number)
        return History(direction=self.direction, trials=tuple(merged))

    def complete(self) -> Iterator[Trial]:
        """The trials that ended with a value, in the order of their numbers."""
        return (trial for trial in self.trials if trial.status is TrialStatus.COMPLETE)

    def ranked(self) -> list[Trial]:
        """The complete trials, the highest reward first, the earliest of equals first."""
        return sorted(self.complete(), key=lambda trial: -(self.reward(trial) or 0.0))

    def best(self) -> Trial | None:
        """The complete trial with the highest reward, the earliest of equals; ``None`` if there is none."""
        return next(iter(self.ranked()), None)

    def best_so_far(self) -> list[float | None]:
        """Best value after each trial, ``None`` until the first complete one."""
        best: float | None = None
        curve: list[float | None] = []
        pick = max if self.direction == "maximize" else min
        for trial in self.trials:
            if trial.status is TrialStatus.COMPLETE and trial.value is not None:
                best = trial.value if best is None else pick(best, trial.value)
            curve.append(best)
        return curve


class EarlierTrial(Frozen):
    """A trial of an earlier study, as a later one takes it over."""

    config: Config
    """In the later study's space."""
    reward: FiniteFloat | None
    """As it was measured then, higher is better; ``None`` if the trial had no value."""
    weight: Annotated[float, Field(gt=0, le=1)]
    """1 counts like a trial of the study itself; in the reward model its noise variance is 1/weight times as large."""


class Inherited(Frozen):
    """What a study was given to start from."""

    source: str
    """Id of the earlier study."""
    trials: tuple[EarlierTrial, ...] = ()
    first: Config | None = None
    """The first configuration to try, such as the champion's."""


def trial_id(study_id: str, round_: int, index: int) -> str:
    """Identity of a trial: 16 hexadecimal digits, from nothing but its place in the study.

    A step that is run again, after a crash or a lost answer, names the same trials and so does not count them twice.

    Args:
        study_id: Of the study.
        round_: Counted from 0.
        index: Position in the round, counted from 0.
    """
    return hashlib.sha256(f"{study_id}/{round_}/{index}".encode()).hexdigest()[:16]


class RoundSummary(Frozen):
    """What one round of the tuner did; logged as study-level curves."""

    round: int
    trials: int
    """Trials observed up to the end of this round."""
    best: FiniteFloat | None
    """Best value so far, in the objective's units."""
    entropy: FiniteFloat | None = None
    """Mean differential entropy of the policy per step, in nats."""
    model_r2: FiniteFloat | None = None
    """R² of the reward model on held-out trials; ``None`` if no model was fitted."""
    model_rank_correlation: FiniteFloat | None = None
    """Spearman correlation on held-out trials."""
    model_coverage: FiniteFloat | None = None
    """Fraction of held-out rewards inside the model's central 80 % interval; 0.8 is calibrated."""
    kl: FiniteFloat | None = None
    """KL divergence that the model phase moved the policy by, in nats per step."""
    imagined_updates: int = 0
    model_phase: str = "off"
    """``ran``, ``off`` (mode without model) or ``skipped: <why>``."""
