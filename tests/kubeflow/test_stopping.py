"""Stopping a study's run on a cluster: the run, its study's store, and MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import compiler
from mlflow import MlflowClient

from rlhpo_core.errors import UserError
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.kubeflow import client, stopping
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.storage import lease
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.study.spec import parse_study
from rlhpo_core.tracking.tracker import StudyTracker
from tests.helpers.kfp_pipelines import of_a_store, submit
from tests.helpers.kfp_server import KfpServer
from tests.helpers.mlflow_store import new_store
from tests.helpers.stepwise import study

pytestmark = pytest.mark.usefixtures("no_kfp_settings")
SPEC = parse_study(study(trials=6), "the study")


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    found = StudyFiles(open_store(str(tmp_path / "store")))
    found.claim(StudyRecord(study_id="stepwise-1"))
    found.write_spec(SPEC)
    begin_study(found, SPEC)
    return found


@pytest.fixture
def run(backend: KfpServer, server: Server, files: StudyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    sleep = client.time.sleep
    monkeypatch.setattr(client.time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    package = tmp_path / "package.yaml"
    compiler.Compiler().compile(of_a_store, str(package))
    sent = submit(server, package, parameters={"store": files.store.uri})
    backend.set_state(sent.id, "RUNNING")
    return sent.id


def test_a_run_that_is_stopped_ends_everywhere(
    backend: KfpServer, server: Server, files: StudyFiles, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_store(tmp_path))
    tracker = StudyTracker.open(SPEC, "stepwise-1", tmp_path)
    with lease.held_by_run(files.store, run):
        backend.states = ["RUNNING", "CANCELING", "FAILED"]
    told: list[str] = []
    stopping.stop_run(server, run, told.append)
    assert told == [f"run {run} is stopped (FAILED)"]
    assert lease.refused(files.store) is None, "its steps were killed before they could free the study"
    assert files.stop_requested(), "no other run follows"
    assert MlflowClient(tracker.connection.uri).get_run(tracker.run_id).info.status == "KILLED"
    with pytest.raises(UserError, match="cannot be stopped: it has ended"):
        stopping.stop_run(server, run, told.append)


def test_a_study_is_free_of_a_run_that_has_ended_and_of_no_other(
    backend: KfpServer, server: Server, files: StudyFiles, run: str
) -> None:
    with lease.held_by_run(files.store, run):
        pass
    stopping.free_from_the_dead(server, files)
    assert lease.holding_run(files.store) == run, "it goes on"
    backend.set_state(run, "FAILED")
    stopping.free_from_the_dead(server, files)
    assert lease.refused(files.store) is None
    stopping.free_from_the_dead(server, files)
    with lease.held_by_run(files.store, "of-another-kfp"):
        pass
    stopping.free_from_the_dead(server, files)
    assert lease.holding_run(files.store) == "of-another-kfp"


def test_what_is_out_of_reach_is_told(
    backend: KfpServer, server: Server, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(uri: str) -> None:
        raise UserError("there are no credentials")

    monkeypatch.setattr(stopping, "open_store", refused)
    backend.states = ["RUNNING", "FAILED"]
    told: list[str] = []
    stopping.stop_run(server, run, told.append)
    assert [line.partition(":")[0] for line in told] == ["warning", f"run {run} is stopped (FAILED)", "warning"]
    assert "so another run may follow: there are no credentials" in told[0]


def test_a_study_that_has_not_begun_or_is_over_is_left_alone(
    files: StudyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert not stopping.mark_killed(StudyFiles(open_store(str(tmp_path / "nothing"))))
    assert not stopping.mark_killed(files), "it is not in MLflow"
    tracker = StudyTracker.open(SPEC, "stepwise-1", tmp_path)
    tracker.finish("FINISHED")
    assert not stopping.mark_killed(files)
    assert MlflowClient(uri).get_run(tracker.run_id).info.status == "FINISHED"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="Set MLFLOW_TRACKING_URI to the one of the cluster"):
        stopping.mark_killed(files)
