"""How much of a study's budget is used up."""

from __future__ import annotations

from rlhpo_core.study.spec import BudgetSpec
from rlhpo_core.trial import History, TrialStatus


def spent(budget: BudgetSpec, history: History, seconds: float) -> str | None:
    """Which limit of the budget is reached, for a person to read; ``None`` while none is.

    Args:
        seconds: Wall time of the study so far, over all resumes.
    """
    if len(history) >= budget.trials:
        return f"all {budget.trials} trials done"
    if hopeless(budget, history):
        return f"{budget.failures} trials in a row failed, and none has succeeded (budget.failures)"
    if budget.wall_time is not None and seconds >= budget.wall_time.total_seconds():
        return f"wall time of {budget.wall_time} used up"
    if budget.cost is not None and cost(budget, history) >= budget.cost.limit:
        return f"cost limit of {budget.cost.limit:g} used up"
    if budget.patience is not None and _since_improvement(history) >= budget.patience:
        return f"no improvement in {budget.patience} trials"
    return None


def hopeless(budget: BudgetSpec, history: History) -> bool:
    """Whether so many trials in a row have failed, with nothing good yet, that further ones are expected to as well."""
    if budget.failures is None or next(history.complete(), None) is not None:
        return False
    latest = history.trials[-budget.failures :]
    return len(latest) == budget.failures and all(trial.status is TrialStatus.FAILED for trial in latest)


def cost(budget: BudgetSpec, history: History) -> float:
    """What the trials have cost so far, in the currency of the rate; 0 without a rate."""
    rate = budget.cost.per_trial_hour if budget.cost is not None else 0.0
    return rate * sum(trial.seconds for trial in history.trials) / 3600


def _since_improvement(history: History) -> int:
    curve = history.best_so_far()
    return len(curve) - 1 - curve.index(curve[-1]) if curve and curve[-1] is not None else 0
