from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from rlhpo_core.errors import UserError
from rlhpo_core.tracking.listener import TrackingListener
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import History, RoundSummary
from tests.helpers.servers import MlflowServer
from tests.helpers.tracked_studies import children, files_of, make_history, make_spec, make_trial, points

pytestmark = pytest.mark.usefixtures("only_these_settings")


def test_trials_arrive_once_although_the_server_goes_down(
    server: MlflowServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec("outage", tracking={"uri": server.url, "experiment": "outage"})
    tracker = StudyTracker.open(spec, "toy-1", tmp_path)
    warnings: list[str] = []
    trials = make_history(8).trials
    empty = History(direction="minimize")
    listener = TrackingListener(tracker, empty, (), warnings.append, files_of(trials), probe_every=0)
    for trial in trials[:3]:
        listener.trial_finished(trial)
    listener.round_finished(RoundSummary(round=0, trials=2, best=0.9))
    assert not listener.pending
    assert len(children(tracker)) == 3

    server.stop()
    for trial in trials[3:6]:
        listener.trial_finished(trial)
    listener.round_finished(RoundSummary(round=1, trials=4, best=0.7))
    assert listener.pending
    assert len(warnings) == 1
    assert "cannot be reached" in warnings[0]
    assert not listener.flush()
    assert "rlhpo resume" in warnings[-1]
    with pytest.raises(UserError, match="cannot be reached"):
        tracker.finish()

    server.start()
    for trial in trials[6:]:
        listener.trial_finished(trial)
    assert listener.flush()
    assert "4 trials were logged" in warnings[-1]
    runs = children(tracker)
    assert set(runs) == {trial.trial_id for trial in trials}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert [step for step, _ in points(tracker, tracker.run_id, "best")] == list(range(1, 9))
    assert points(tracker, tracker.run_id, "round.trials") == [(1, 2.0), (2, 4.0)]
    tracker.finish()
    assert tracker.url == (
        f"{server.url}/#/experiments/{tracker.experiment_id}/runs/{tracker.run_id}?workflowType=machine_learning"
    )
    assert "View run" not in capfd.readouterr().out
    all_runs = MlflowClient(server.url).search_runs([tracker.experiment_id], run_view_type=ViewType.ALL)
    assert len(all_runs) == 9


def test_while_offline_mlflow_is_left_alone_between_probes(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("probes", tracking={"uri": server.url, "experiment": "probes"})
    tracker = StudyTracker.open(spec, "toy-1", tmp_path)
    warnings: list[str] = []
    files = files_of(map(make_trial, range(3)))
    listener = TrackingListener(tracker, make_history(1), (), warnings.append, files)
    # The study's run is gone: MLflow refuses, for as long as it is deleted.
    tracker.client.delete_run(tracker.run_id)
    listener.trial_finished(make_trial(1))
    listener.round_finished(RoundSummary(round=0, trials=2, best=0.9))
    assert len(warnings) == 1
    tracker.client.restore_run(tracker.run_id)
    listener.trial_finished(make_trial(2))
    assert listener.pending, "the next probe is not due yet"
    listener.round_finished(RoundSummary(round=1, trials=3, best=0.8))
    assert not listener.pending
    assert len(children(tracker)) == 3


def test_within_a_round_the_studys_curves_are_written_every_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhpo_core.tracking.listener.POINTS_EVERY", float("inf"))
    tracker = StudyTracker.open(make_spec("points"), "toy-1", tmp_path)
    trials = make_history(4).trials
    listener = TrackingListener(tracker, History(direction="minimize"), (), pytest.fail, files_of(trials))
    for trial in trials:
        listener.trial_finished(trial)
    assert listener.pending
    assert len(children(tracker)) == 4, "trials are there at once"
    assert [step for step, _ in points(tracker, tracker.run_id, "best")] == [1]
    listener.round_finished(RoundSummary(round=0, trials=4, best=0.7))
    assert not listener.pending
    assert [step for step, _ in points(tracker, tracker.run_id, "best")] == [1, 2, 3, 4]
    assert points(tracker, tracker.run_id, "round.trials") == [(1, 4.0)]
