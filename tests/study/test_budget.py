"""A study ends at whichever limit comes first."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from rlhpo_core.study.budget import cost, spent
from rlhpo_core.study.spec import BudgetSpec, CostSpec
from rlhpo_core.trial import History, Proposal, Trial, TrialStatus


def trial(number: int, value: float | None, seconds: float = 0.0) -> Trial:
    """None: it failed; NaN: it was infeasible."""
    proposal = Proposal(trial_id=f"{number:016x}", number=number, round=0, index=number, config={}, actions=())
    status = TrialStatus.FAILED if value is None else TrialStatus.COMPLETE
    if value is not None and math.isnan(value):
        status, value = TrialStatus.INFEASIBLE, None
    return Trial(proposal=proposal, status=status, value=value, seconds=seconds)


def history(*values: float | None, seconds: float = 0.0) -> History:
    return History(direction="maximize", trials=tuple(trial(n, v, seconds) for n, v in enumerate(values)))


def test_whichever_limit_comes_first_ends_the_study() -> None:
    budget = BudgetSpec(
        trials=10,
        wall_time=timedelta(seconds=60),
        cost=CostSpec(limit=2.0, per_trial_hour=3.0),
        patience=3,
    )
    assert spent(budget, history(), 0) is None
    assert spent(budget, history(*range(9)), 59) is None
    assert spent(budget, history(*range(10)), 0) == "all 10 trials done"
    assert spent(budget, history(1.0), 60) == "wall time of 0:01:00 used up"
    assert spent(budget, history(1.0, 2.0, seconds=1200), 0) == "cost limit of 2 used up"
    assert cost(budget, history(1.0, 2.0, seconds=1200)) == pytest.approx(2.0)
    assert spent(budget, history(1.0, 5.0, 4.0, 5.0), 0) is None
    assert spent(budget, history(1.0, 5.0, 4.0, 5.0, None), 0) == "no improvement in 3 trials"


def test_patience_waits_for_a_first_success() -> None:
    assert spent(BudgetSpec(trials=10, patience=2), history(None, None, None), 0) is None


def test_a_study_that_only_fails_ends() -> None:
    budget, nan = BudgetSpec(trials=100), math.nan
    assert spent(budget, history(*[None] * 9), 0) is None
    reason = "10 trials in a row failed, and none has succeeded (budget.failures)"
    assert spent(budget, history(*[None] * 10), 0) == reason
    assert spent(budget, history(nan, *[None] * 10), 0) == reason
    assert spent(budget, history(*[None] * 9, nan, *[None] * 9), 0) is None, "an infeasible trial has not failed"
    assert spent(budget, history(*[nan] * 20), 0) is None
    assert spent(budget, history(1.0, *[None] * 30), 0) is None, "something good was found"
    assert spent(BudgetSpec(trials=100, failures=3), history(*[None] * 3), 0) is not None
    assert spent(BudgetSpec(trials=100, failures=None), history(*[None] * 99), 0) is None
    assert spent(BudgetSpec(trials=10), history(*[None] * 10), 0) == "all 10 trials done"
