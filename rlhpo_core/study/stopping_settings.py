"""When a trial is stopped early, as a study file says it; package ``stopping`` has the rules themselves.

Steps are those of the evaluator's reports: boosting rounds of XGBoost, epochs or whatever a function counts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from rlhpo_core.frozen import Frozen


class NoStopping(Frozen):
    """Every trial runs to its end."""

    rule: Literal["none"] = "none"


class MedianStopping(Frozen):
    """Stop a trial whose best value so far is worse than the median of what earlier trials had reached at its step."""

    rule: Literal["median"]
    grace: Annotated[int, Field(ge=0)] = 0
    """No trial is stopped before this step."""
    min_trials: Annotated[int, Field(ge=1)] = 5
    """Nor while fewer earlier trials have come as far."""


class HalvingStopping(Frozen):
    """Asynchronous successive halving: at each rung only the best share of trials goes on."""

    rule: Literal["asha"]
    grace: Annotated[int, Field(ge=1)] = 1
    """Step of the first rung; each further one is ``reduction`` times as far."""
    reduction: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3.0
    """One in so many goes on."""


class LearnedStopping(Frozen):
    """Stop a trial whose chance of ending above the best, by its curve and by the reward model, is too small."""

    rule: Literal["learned"]
    epsilon: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """Stop below this chance."""
    grace: Annotated[int, Field(ge=0)] = 0
    """No trial is stopped before this step."""
    min_trials: Annotated[int, Field(ge=5)] = 5
    """Nor while fewer earlier trials that ran to their end have come as far."""


def _by_name(data: Any) -> Any:
    return {"rule": data} if isinstance(data, str) else data


#: Any rule, told apart by ``rule``.
StoppingSpec = Annotated[
    NoStopping | MedianStopping | HalvingStopping | LearnedStopping,
    Field(discriminator="rule"),
    BeforeValidator(_by_name),
]
