"""What MLflow holds of a study: looked up before anything is written, and when it is checked that all has arrived."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking import content
from rlhpo_core.tracking.connection import all_runs
from rlhpo_core.trial import Trial


@dataclass
class Logged:
    """What is there, so that nothing is written twice."""

    ended: set[str]
    """Trials whose run is complete."""
    begun: dict[str, str]
    """Trial id to the id of a run that a crash left unfinished, or of which a part is missing."""
    runs: dict[str, Run]
    """Trial id to its run, as it was when it was looked up; without those that someone deleted."""
    points: set[int]
    """The steps of the curve of the best value."""
    best: int
    """The step up to which that curve is complete."""
    rounds: set[int]
    """The steps of the rounds' curves."""


def look_up(client: MlflowClient, experiment_id: str, run_id: str) -> Logged:
    """What is there of the study with that run.

    Of two runs of one trial, which a request leaves that timed out and was carried out nevertheless, the better one
    stays and the other is deleted. A run that someone deleted stays deleted.
    """
    children = f"tags.`mlflow.parentRunId` = '{run_id}'"
    found = Logged(set(), {}, {}, set(), 0, set())
    for run in sorted(all_runs(client, experiment_id, children, ViewType.ALL), key=_quality):
        trial_id = run.data.tags.get("rlhpo.trial_id")
        if trial_id is None:
            continue
        if trial_id in found.ended or trial_id in found.begun:
            if _quality(run) < 2:
                client.delete_run(run.info.run_id)
        elif _quality(run) == 1:
            found.begun[trial_id] = run.info.run_id
        else:
            found.ended.add(trial_id)
            if _quality(run) == 0:
                found.runs[trial_id] = run
    found.points = {metric.step for metric in client.get_metric_history(run_id, "best")}
    found.best = max(found.points, default=0)
    found.rounds = {metric.step for metric in client.get_metric_history(run_id, "round.trials")}
    return found


def is_whole(client: MlflowClient, run: Run, trial: Trial, spec: StudySpec) -> bool:
    """Whether all of the trial is in its run: parameters, tags, the last value of each metric, and as many points as
    it has. What went in one request is there or not as a whole, so that only longer curves are counted.
    """
    metrics = sorted(content.trial_metrics(trial, spec), key=lambda metric: (metric.step, metric.value))
    latest = {metric.key: metric.value for metric in metrics}
    params = {param.key: param.value for param in content.param_entities(content.trial_params(trial))}
    # The note is left out: people may edit it.
    tags = {tag.key: tag.value for tag in content.tag_entities(content.trial_tags(trial)) if "note" not in tag.key}
    if len(metrics) > content.MAX_METRICS:
        points = {point.step for point in client.get_metric_history(run.info.run_id, content.curve_key(spec))}
        if not {step for step, _ in trial.curve or ()} <= points:
            return False
    held = run.data
    return all(
        wanted.items() <= there.items()
        for wanted, there in ((params, held.params), (tags, held.tags), (latest, held.metrics))
    )


def _quality(run: Run) -> int:
    """0 for a run that has ended, 1 for one that has not, 2 for one that was deleted."""
    return 2 if run.info.lifecycle_stage == "deleted" else 1 if run.info.status == "RUNNING" else 0
