"""A study that runs on a cluster as a chain of runs, against a KFP server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler

from pipelines.hpo_loop.pipeline import build
from rlhpo_core.errors import UserError
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.kubeflow import client, connection, next_run, steps
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.study.spec import parse_study
from rlhpo_core.trial import Trial, TrialStatus
from rlhpo_core.tuner import algorithm, state_file
from tests.helpers.kfp_server import KfpServer
from tests.helpers.stepwise import study
from tests.helpers.weather import FakeTime

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
    compiler.Compiler().compile(build(1, 3), str(path))
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


def first_run(package: Any, further: int, **options: Any) -> str:
    parameters = {"store": "s3://bucket/it", "image": "registry.example.com/rlhpo:2", next_run.FURTHER: further}
    return client.submit(Server.of(), package, "first", parameters, "tuning", **options).id


def follow(files: StudyFiles, run_id: str, further: int, began: int = 0) -> next_run.Next:
    return next_run.send_next(Server.of(), files, SPEC, run_id, began, further)


def test_the_next_run_is_a_copy_with_one_fewer_to_follow(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    first = first_run(package, 3, pipeline_root="s3://bucket/root", service_account="rlhpo-runner")
    play(files)
    found = follow(files, first, 3)
    before, after = backend.runs[first], backend.runs[found.run_id]
    changed = {"run_id", "display_name", "description", "created_at", "runtime_config"}
    assert {name: after[name] for name in after if name not in changed} == {
        name: before[name] for name in before if name not in changed
    }
    parameters = before["runtime_config"]["parameters"] | {next_run.FURTHER: 2}
    assert after["runtime_config"] == {"parameters": parameters, "pipeline_root": "s3://bucket/root"}
    assert after["display_name"] == "stepwise-1 from round 2"
    assert first in after["description"]


def test_a_run_of_an_uploaded_version_is_followed_by_one_of_the_same(
    backend: KfpServer, package: Path, files: StudyFiles
) -> None:
    version = client.upload(Server.of(), package, "rlhpo-hpo-loop", "v1")
    first = first_run(version, 1)
    play(files)
    after = backend.runs[follow(files, first, 1).run_id]
    assert after["pipeline_version_reference"]["pipeline_version_id"] == version.id
    assert "pipeline_spec" not in after


def test_a_step_that_is_run_again_sends_nothing_more(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    first = first_run(package, 3)
    play(files)
    sent = follow(files, first, 3).run_id
    assert follow(files, first, 3).run_id == sent
    # A second run of the same chunk reached the same round.
    assert follow(files, first_run(package, 3), 3).run_id == sent
    assert len(backend.runs) == 3


def test_a_step_that_died_after_its_request_finds_the_run(
    backend: KfpServer, package: Path, files: StudyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = first_run(package, 3)
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
    assert backend.runs[follow(files, first, 3).run_id]["display_name"] == "stepwise-1 from round 2"
    assert len(backend.runs) == 2


@pytest.mark.parametrize("status", [503, 403])
def test_a_request_that_failed_is_made_again(
    backend: KfpServer, package: Path, files: StudyFiles, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = first_run(package, 3)
    play(files)
    backend.failures = [status]
    with pytest.raises(UserError, match="failed" if status == 503 else "denies access"):
        follow(files, first, 3)
    assert len(backend.runs) == 1
    assert follow(files, first, 3).run_id in backend.runs
    assert len(backend.runs) == 2


def test_a_chain_ends(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    run_id, sent = first_run(package, 9), []
    for began in range(2):
        play(files)
        further = backend.runs[run_id]["runtime_config"]["parameters"][next_run.FURTHER]
        found = follow(files, run_id, further, began)
        sent.append(found.run_id)
        run_id = found.run_id or run_id
    assert sent[0]
    assert sent[1] == "", "all six trials are done"
    assert found.reason == "the study is at its end: all 6 trials done"
    assert len(backend.runs) == 2


def test_what_sends_no_run(backend: KfpServer, package: Path, files: StudyFiles) -> None:
    first = first_run(package, 3)
    assert "no round" in follow(files, first, 3).reason, "nothing has happened yet"
    play(files)
    assert follow(files, first, 0).reason == "no further run was asked for"
    assert "no round" in follow(files, first, 3, began=1).reason
    files.request_stop()
    assert follow(files, first, 3).reason == "the study was asked to stop"
    assert list(backend.runs) == [first]


def test_a_run_that_the_server_does_not_know(backend: KfpServer, files: StudyFiles) -> None:
    play(files)
    with pytest.raises(UserError, match="does not know the run nonesuch"):
        follow(files, "nonesuch", 1)


def test_the_step_does_so_in_its_pod(
    backend: KfpServer, package: Path, files: StudyFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = first_run(package, 1)
    state_file.save(files.state(), tmp_path / "start")
    play(files)
    sent = steps.submit_next(str(tmp_path / "store"), tmp_path / "start", first, 1)
    assert backend.runs[sent]["runtime_config"]["parameters"][next_run.FURTHER] == 0
    assert sent in capsys.readouterr().out


def test_a_step_waits_for_a_server_that_is_away_and_sends_one_run(
    backend: KfpServer, package: Path, files: StudyFiles, tmp_path: Path
) -> None:
    first, time = first_run(package, 3), FakeTime()
    state_file.save(files.state(), tmp_path / "start")
    play(files)
    backend.failures = [403]
    with time.waiting(), pytest.raises(UserError, match="denies access"):
        steps.submit_next(files.store.uri, tmp_path / "start", first, 3)
    assert time.said == []
    backend.failures = [503] * 4
    with time.waiting():
        sent = steps.submit_next(files.store.uri, tmp_path / "start", first, 3)
    assert sorted(backend.runs) == sorted([first, sent])
    assert len(time.said) == 4
    assert "cannot send the next run" in time.said[0]
