"""A schedule whose study is finished, against a KFP server and a webhook on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.kubeflow import idle_schedule, schedules
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.study.spec import StudySpec, parse_study
from rlhpo_core.trial import Proposal, Trial, TrialStatus
from tests.helpers.kfp_pipelines import schedule, submit
from tests.helpers.kfp_server import KfpServer
from tests.helpers.stepwise import study
from tests.helpers.webhooks import Hook

pytestmark = pytest.mark.usefixtures("no_kfp_settings")


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def spec(hook: Hook) -> StudySpec:
    return parse_study(study(trials=3, alerts={"url": hook.url}), "the study")


@pytest.fixture
def files(tmp_path: Path, spec: StudySpec) -> StudyFiles:
    found = StudyFiles(open_store(str(tmp_path / "store")))
    found.claim(StudyRecord(study_id="stepwise-1"))
    found.write_spec(spec)
    begin_study(found, spec)
    return found


def idle_run(backend: KfpServer, schedule_id: str) -> str:
    run = backend.tick(schedule_id)
    assert run is not None
    backend.set_state(run["run_id"], "SUCCEEDED")
    return str(run["run_id"])


def test_after_three_runs_with_nothing_to_do_the_schedule_is_paused_and_somebody_told(
    backend: KfpServer, server: Server, package: Path, files: StudyFiles, spec: StudySpec, hook: Hook
) -> None:
    made, told = schedule(server, package), []
    found = []
    for _ in range(3):
        run = idle_run(backend, made.id)
        found.append(idle_schedule.note(server, files, spec, run, told.append))
        if not found[-1]:
            found.append(idle_schedule.note(server, files, spec, run, told.append))
    assert found == [False, False, False, False, True], "a step that is run again counts its run once"
    assert not schedules.schedules(server)[0].enabled
    assert "run 2 of this schedule with nothing to do, of 3" in told[-2]
    assert "the schedule is paused. Remove it with `rlhpo unschedule`" in told[-1]
    ((_, body),) = hook.heard
    alert = json.loads(body)
    assert (alert["event"], alert["study"], alert["schedule"]) == ("schedule_paused", "stepwise", made.id)
    # Who enables it again has three more.
    schedules.enable(server, made.id)
    assert not idle_schedule.note(server, files, spec, idle_run(backend, made.id), told.append)


def test_a_study_that_went_on_meanwhile_begins_anew(
    backend: KfpServer, server: Server, package: Path, files: StudyFiles, spec: StudySpec
) -> None:
    made = schedule(server, package)
    for _ in range(2):
        idle_schedule.note(server, files, spec, idle_run(backend, made.id), print)
    proposal = Proposal(trial_id="stepwise-1-1", number=0, round=0, index=0, config={}, actions=())
    files.write_trial(Trial(proposal=proposal, status=TrialStatus.FAILED, error="no", started_at=0, seconds=1))
    assert not idle_schedule.note(server, files, spec, idle_run(backend, made.id), print)
    assert schedules.schedules(server)[0].enabled


def test_a_run_that_no_schedule_has_started_is_not_counted(
    backend: KfpServer, server: Server, package: Path, files: StudyFiles, spec: StudySpec
) -> None:
    for _ in range(4):
        assert not idle_schedule.note(server, files, spec, submit(server, package).id, print)
    assert files.store.keys("idle/") == []


def test_a_damaged_count_begins_anew(
    backend: KfpServer, server: Server, package: Path, files: StudyFiles, spec: StudySpec
) -> None:
    made = schedule(server, package)
    files.store.write(f"idle/{made.id}.json", b"{")
    assert not idle_schedule.note(server, files, spec, idle_run(backend, made.id), print)
    assert len(json.loads(files.store.read(f"idle/{made.id}.json") or b"")["runs"]) == 1
