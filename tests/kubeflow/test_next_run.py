"""A study that runs on a cluster as a chain of runs, against a KFP server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler

from pipelines.hpo_loop.pipeline import build
from pipelines.tuning import Shape
from rlhpo_core.errors import Outage, UserError
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.kubeflow import client, connection, next_run, schedules
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.kubeflow.steps import chain
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.study.spec import parse_study
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Trial, TrialStatus
from rlhpo_core.tuner import algorithm
from tests.helpers.kfp_server import KfpServer
from tests.helpers.mlflow_store import new_store
from tests.helpers.stepwise import study
from tests.helpers.weather import FakeTime
from tests.helpers.webhooks import Hook

SPEC = parse_study(study(trials=6), "the study")


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KfpServer]:
    backend = KfpServer(tokens={"pods"}, namespaces={"team"})
    for name in ("KFP_API_HOST", "RLHPO_KFP_TOKEN", "RLHPO_KFP_NAMESPACE", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    # As in a pod: the address from the config map, the token and the namespace from files.
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", backend.url)
    for name, text in (("TOKEN_FILE", "pods"), ("_POD_NAMESPACE", "team")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(connection, name, tmp_path / name)
    yield backend
    backend.stop()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "pipeline.yaml"
    compiler.Compiler().compile(build(Shape(1, 3)), str(path))
    return path


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    found = StudyFiles(open_store(str(tmp_path / "store")))
    found.claim(StudyRecord(study_id="stepwise-1"))
    found.write_spec(SPEC)
    begin_study(found, SPEC)
    return found


def play(files: StudyFiles) -> None:
    """A round of trials, without training anything."""
    state = files.state()
    trials = [
        Trial(proposal=one, status=TrialStatus.COMPLETE, value=one.number / 10, started_at=0.0, seconds=1.0)
        for one in algorithm.propose(state, 3)
    ]
    files.write_state(algorithm.update_policy(algorithm.fit_reward_model(algorithm.observe(state, trials))))


def first_run(package: Any, further: int, files: StudyFiles | None = None, **options: Any) -> str:
    """A run that a person sends."""
    parameters = {"store": "s3://bucket/it", "image": "registry.example.com/rlhpo:2", next_run.FURTHER: further}
    run_id = client.submit(Server.of(), package, "first", parameters, "tuning", **options).id
    if files is not None:
        next_run.begin_chain(files, run_id)
    return run_id


def follow(files: StudyFiles, run_id: str, further: int) -> next_run.Next:
    return next_run.send_next(Server.of(), files, run_id, further)


def further_of(backend: KfpServer, run_id: str) -> int:
    return int(backend.runs[run_id]["runtime_config"]["parameters"][next_run.FURTHER])


def test_the_next_run_is_a_copy_with_one_fewer_to_follow(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    first = first_run(package, 3, files, pipeline_root="s3://bucket/root", service_account="rlhpo-runner")
    # What KFP's MLflow plugin was told, too.
    backend.runs[first]["plugins_input"] = {"mlflow": {"disabled": True}}
    play(files)
    found = follow(files, first, 3)
    before, after = backend.runs[first], backend.runs[found.run_id]
    changed = {"run_id", "display_name", "description", "created_at", "runtime_config"}
    assert {name: after[name] for name in after if name not in changed} == {
        name: before[name] for name in before if name not in changed
    }
    parameters = before["runtime_config"]["parameters"] | {next_run.FURTHER: 2}
    assert after["runtime_config"] == {"parameters": parameters, "pipeline_root": "s3://bucket/root"}
    assert after["display_name"] == "stepwise-1 2"
    assert first in after["description"]


def test_a_run_of_an_uploaded_version_is_followed_by_one_of_the_same(
    backend: KfpServer, package: Path, files: StudyFiles
) -> None:
    version = client.upload(Server.of(), package, "rlhpo-hpo-loop", "v1")
    first = first_run(version, 1, files)
    play(files)
    after = backend.runs[follow(files, first, 1).run_id]
    assert after["pipeline_version_reference"]["pipeline_version_id"] == version.id
    assert "pipeline_spec" not in after


def test_a_step_that_is_run_again_sends_nothing_more(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    first = first_run(package, 3, files)
    play(files)
    sent = follow(files, first, 3).run_id
    assert follow(files, first, 3).run_id == sent
    assert len(backend.runs) == 2


def test_two_chains_of_one_study_become_one(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    first = first_run(package, 3, files)
    second = first_run(package, 3, files)
    play(files)
    assert follow(files, first, 3).reason == f"run {second} goes on with the study"
    backend.set_state(first, "SUCCEEDED")
    assert follow(files, second, 3).run_id not in ("", first, second)
    assert len(backend.runs) == 3


def test_a_step_that_died_after_its_request_finds_the_run(
    backend: KfpServer, package: Path, files: StudyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = first_run(package, 3, files)
    play(files)

    def die(*arguments: Any) -> str:
        send(*arguments)
        raise KeyboardInterrupt

    send = next_run.copy_run
    monkeypatch.setattr(next_run, "copy_run", die)
    with pytest.raises(KeyboardInterrupt):
        follow(files, first, 3)
    monkeypatch.setattr(next_run, "copy_run", send)
    assert len(backend.runs) == 2
    assert backend.runs[follow(files, first, 3).run_id]["display_name"] == "stepwise-1 2"
    assert len(backend.runs) == 2


@pytest.mark.parametrize("status", [503, 403])
def test_a_request_that_failed_is_made_again(backend: KfpServer, package: Path, files: StudyFiles, status: int) -> None:
    first = first_run(package, 3, files)
    play(files)
    backend.failures = [status]
    with pytest.raises(UserError, match="failed" if status == 503 else "denies access"):
        follow(files, first, 3)
    assert len(backend.runs) == 1
    assert follow(files, first, 3).run_id in backend.runs
    assert len(backend.runs) == 2


def test_a_chain_ends_once_the_winner_is_registered(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    run_id = first_run(package, 9, files)
    play(files)
    run_id = follow(files, run_id, 9).run_id
    play(files)
    # The budget is spent, but the step that registers the winner has failed.
    again = follow(files, run_id, further_of(backend, run_id)).run_id
    assert again in backend.runs
    next_run.note_conclusion(files)
    end = follow(files, again, further_of(backend, again))
    assert end == next_run.Next("", "the study is at its end: all 6 trials done")
    assert len(backend.runs) == 3


def test_a_failed_run_is_followed_until_it_is_hopeless(
    backend: KfpServer, package: Path, files: StudyFiles, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerted = SPEC.model_copy(update={"alerts": SPEC.alerts.model_copy(update={"url": hook.url})})
    files.write_spec(alerted)
    run_id = first_run(package, 2, files)
    play(files)
    ended = [run_id]
    for _ in range(3):
        ended.append(follow(files, ended[-1], further_of(backend, ended[-1])).run_id)
        backend.set_state(ended[-1], "FAILED")
    assert [further_of(backend, one) for one in ended] == [2, 1, 1, 1], "runs that bring no trial do not count"
    assert hook.heard == []
    end = follow(files, ended[-1], 1)
    assert end == next_run.Next("", "the study is given up: 3 runs in a row have brought no new trial")
    assert follow(files, ended[-1], 1) == end, "told once"
    ((_, body),) = hook.heard
    told = json.loads(body)
    assert (told["event"], told["run"]) == ("failed", ended[-1])
    assert "no new trial" in told["reason"]
    # Whoever sends the study again begins anew.
    first = first_run(package, 2, files)
    assert follow(files, first, 2).run_id in backend.runs


def test_what_waiting_does_not_mend_ends_the_chain_at_once(
    backend: KfpServer, package: Path, files: StudyFiles
) -> None:
    first = first_run(package, 3, files)
    play(files)
    next_run.note_fault(files, "prepare data", Outage("the bucket is away"))
    assert "away" not in follow(files, first, 3).reason
    second = list(backend.runs)[-1]
    next_run.note_fault(files, "prepare data", UserError("there is no table at s3://bucket/table.csv"))
    end = follow(files, second, 2)
    assert end.reason == "the study is given up: prepare data: there is no table at s3://bucket/table.csv"
    assert len(backend.runs) == 2


def test_what_sends_no_run(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    first = first_run(package, 3, files)
    play(files)
    assert follow(files, first, 0).reason == "no further run was asked for"
    files.request_stop()
    assert follow(files, first, 3).reason == "the study was asked to stop"
    assert list(backend.runs) == [first]


def test_nothing_follows_in_an_experiment_that_was_archived(
    backend: KfpServer, package: Path, files: StudyFiles
) -> None:
    first = first_run(package, 3, files)
    play(files)
    (experiment,) = backend.experiments.values()
    experiment["storage_state"] = "ARCHIVED"
    ended = "the experiment 'tuning' is archived, so no run follows in it"
    assert follow(files, first, 3) == next_run.Next("", ended)
    backend.set_state(first, "FAILED")
    assert next_run.supervise(Server.of(), files) == (True, ended)
    assert list(backend.runs) == [first]
    experiment["storage_state"] = "AVAILABLE"
    assert follow(files, first, 3).run_id in backend.runs


def test_a_run_that_the_server_does_not_know(backend: KfpServer, files: StudyFiles) -> None:
    play(files)
    with pytest.raises(UserError, match="does not know the run nonesuch"):
        follow(files, "nonesuch", 1)


def submit_next(files: StudyFiles, place: Path, run_id: str, further: int) -> str:
    return chain.submit_next(files.store.uri, run_id, further, place / "report", place / "note")


def test_the_step_does_so_in_its_pod_and_then_reports(
    backend: KfpServer, package: Path, files: StudyFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = first_run(package, 1, files)
    play(files)
    # There is no MLflow here: that is a warning, once the run is sent.
    sent = submit_next(files, tmp_path, first, 1)
    assert further_of(backend, sent) == 0
    told = capsys.readouterr().out
    assert told.index(sent) < told.index("warning: the report is not whole")
    assert "<h1>stepwise</h1>" in (tmp_path / "report").read_text()


def test_a_step_waits_for_a_server_that_is_away_and_sends_one_run(
    backend: KfpServer, package: Path, files: StudyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_report", lambda *_, **__: None)
    first, time = first_run(package, 3, files), FakeTime()
    play(files)
    backend.failures = [403]
    with time.waiting(), pytest.raises(UserError, match="denies access"):
        submit_next(files, tmp_path, first, 3)
    assert time.said == []
    backend.failures = [503] * 4
    with time.waiting():
        sent = submit_next(files, tmp_path, first, 3)
    assert sorted(backend.runs) == sorted([first, sent])
    assert len(time.said) == 4
    assert "cannot send the next run" in time.said[0]


# -- what looks after a study whose run is dead ------------------------------------------------------------------------


def look(files: StudyFiles) -> tuple[bool, str]:
    return next_run.supervise(Server.of(), files)


def test_a_run_that_died_before_its_last_step_is_followed(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    first = first_run(package, 3, files)
    backend.set_state(first, "RUNNING")
    assert look(files) == (False, f"run {first} goes on with the study")
    play(files)
    backend.set_state(first, "FAILED")
    done, found = look(files)
    second = list(backend.runs)[-1]
    assert not done
    assert found == f"run {first} ended without sending the next one, which was sent in its place: {second}"
    assert further_of(backend, second) == 2
    assert look(files) == (False, f"run {second} goes on with the study")
    for _ in range(2):
        backend.set_state(list(backend.runs)[-1], "FAILED")
        assert not look(files)[0]
    backend.set_state(list(backend.runs)[-1], "FAILED")
    assert look(files) == (True, "the study is given up: 3 runs in a row have brought no new trial")
    assert len(backend.runs) == 4


def test_nothing_is_left_to_look_after(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    first = first_run(package, 3, files)
    client.terminate(Server.of(), first)
    backend.set_state(first, "FAILED")
    assert look(files) == (True, f"run {first} was stopped"), "KFP says FAILED of a run that a person has stopped"
    second = first_run(package, 3, files)
    backend.set_state(second, "FAILED")
    files.request_stop()
    assert look(files) == (True, "the study was asked to stop")
    files.clear_stop()
    for _ in range(2):
        play(files)
    next_run.note_conclusion(files)
    assert look(files) == (True, "the study is at its end: all 6 trials done")
    assert sorted(backend.runs) == sorted([first, second])


def test_a_run_that_was_terminated_between_two_steps_is_ended_in_mlflow(
    backend: KfpServer, package: Path, files: StudyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_store(tmp_path))
    tracker = StudyTracker.open(SPEC, "stepwise-1", tmp_path)
    first = first_run(package, 3, files)
    backend.set_state(first, "RUNNING")
    chain.supervise(files.store.uri, "stepwise-supervisor")
    assert tracker.client.get_run(tracker.run_id).info.status == "RUNNING"
    client.terminate(Server.of(), first)
    backend.set_state(first, "FAILED")
    assert chain.supervise(files.store.uri, "stepwise-supervisor") == f"run {first} was stopped"
    assert tracker.client.get_run(tracker.run_id).info.status == "KILLED"
    assert list(backend.runs) == [first]


def test_the_supervisor_pauses_its_own_schedule_and_no_other(
    backend: KfpServer, package: Path, files: StudyFiles
) -> None:
    first = first_run(package, 3, files)
    made = [
        schedules.schedule(Server.of(), package, name, name, {"store": "s3://b/x"}, "tuning", cron="0 */10 * * * *").id
        for name in ("stepwise-supervisor", "another")
    ]
    backend.set_state(first, "RUNNING")
    assert "goes on" in chain.supervise(files.store.uri, "stepwise-supervisor")
    files.request_stop()
    chain.supervise(files.store.uri, "stepwise-supervisor")
    assert [backend.recurring_runs[one]["status"] for one in made] == ["DISABLED", "ENABLED"]
