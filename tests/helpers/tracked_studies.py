"""A study and its trials as they are logged to MLflow, and what is found there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mlflow.entities import Run

from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import History, Proposal, Stop, Trial, TrialStatus, trial_id


def make_spec(experiment: str, **fields: Any) -> StudySpec:
    """A study of a function with two hyperparameters; ``fields`` replace or add to those of its file."""
    return StudySpec.model_validate(
        {
            "name": "toy",
            "seed": 7,
            "evaluator": {"kind": "function", "function": "tests.helpers.functions:parabola"},
            "objective": {"metric": "log_loss"},
            "space": {
                "x": {"type": "float", "low": 0.0, "high": 1.0},
                "kind": {"type": "categorical", "choices": ["a", "b"]},
            },
            "tracking": {"experiment": experiment},
            **fields,
        }
    )


def make_trial(number: int, status: TrialStatus = TrialStatus.COMPLETE, study: str = "toy-1", **fields: Any) -> Trial:
    """A trial in rounds of two, whose value falls by 0.1 from trial to trial."""
    has_value, pruned = status is TrialStatus.COMPLETE, status is TrialStatus.PRUNED
    proposal = Proposal(
        trial_id=trial_id(study, number // 2, number % 2),
        number=number,
        round=number // 2,
        index=number % 2,
        config={"x": number / 10, "kind": "a"},
        actions=(0.5, -0.5),
        predicted=-0.4,
        predicted_std=0.1,
    )
    values: dict[str, Any] = {
        "value": 1.0 - number / 10 if has_value else None,
        "metrics": {"accuracy": 0.8} if has_value else {},
        "started_at": 1_700_000_000.0 + number,
        "seconds": 2.5,
        "error": None if has_value or pruned else "Traceback\nMemoryError: out of memory",
        "curve": ((1, 0.95), (2, 0.9)) if pruned else (),
        "stop": Stop(reason="at step 2: it is worse than the median", step=2, value=0.9) if pruned else None,
    }
    return Trial(proposal=proposal, status=status, **{**values, **fields})


def make_history(count: int, study: str = "toy-1") -> History:
    """The first trials of a study, all complete."""
    return History(direction="minimize", trials=tuple(make_trial(number, study=study) for number in range(count)))


def files_of(trials: Iterable[Trial]) -> Callable[[Trial], Trial]:
    """What gives a trial its curve, as a study's files do."""
    whole = {trial.trial_id: trial for trial in trials}
    return lambda trial: whole[trial.trial_id]


def children(tracker: StudyTracker) -> dict[str, Run]:
    """Runs below the study's run by their trial; fails if a trial has two."""
    query = f"tags.`mlflow.parentRunId` = '{tracker.run_id}'"
    runs = tracker.client.search_runs([tracker.experiment_id], query)
    assert len({run.data.tags["rlhpo.trial_id"] for run in runs}) == len(runs)
    return {run.data.tags["rlhpo.trial_id"]: run for run in runs}


def points(tracker: StudyTracker, run_id: str, key: str) -> list[tuple[int, float]]:
    """The curve of a metric as (step, value)."""
    return sorted((metric.step, metric.value) for metric in tracker.client.get_metric_history(run_id, key))
