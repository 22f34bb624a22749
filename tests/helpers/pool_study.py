"""A study of the tests' functions for the pool of workers, its proposals and its trials."""

from __future__ import annotations

from typing import Any

from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Proposal, Trial


def spec(function: str = "tests.helpers.functions:act", **execution: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "pool",
            "evaluator": {"kind": "function", "function": function},
            "objective": {"metric": "score", "direction": "maximize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"wall_time": "1h"},
            "execution": execution,
        }
    )


def proposal(number: int, act: str, /, **config: Any) -> Proposal:
    config["act"] = act
    return Proposal(trial_id=f"trial-{number}", number=number, round=0, index=number, config=config, actions=(0.0,))


def run(pool: TrialPool, *proposals: Proposal) -> list[Trial]:
    """The trials in the order of their numbers."""
    trials = pool.run(proposals, stop=lambda: False, on_report=lambda *_: None)
    return sorted(trials, key=lambda trial: trial.proposal.number)
