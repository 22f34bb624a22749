"""``rlhpo runs | logs | stop`` and ``status`` of an address, against a KFP server on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler
from typer.testing import CliRunner, Result

from rlhpo_core.cli import main
from rlhpo_core.cli.cluster import runs as cluster_runs
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.kubeflow import client, pods, schedules, stopping
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.kubeflow.pods import Pod
from rlhpo_core.storage import object_store
from rlhpo_core.storage.object_store import FolderStore
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.study.spec import parse_study
from tests.helpers.kfp_pipelines import of_a_store
from tests.helpers.kfp_server import KfpServer
from tests.helpers.kubernetes_api import KubernetesApi, pod
from tests.helpers.stepwise import study

STORE = "s3://bucket/studies/stepwise"
_KUBECONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "package.yaml"
    compiler.Compiler().compile(of_a_store, str(path))
    return path


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Pod]:
    """The pods that the caller may read."""
    found: list[Pod] = []
    monkeypatch.setattr(pods, "of_run", lambda run_id, namespace, lines: found)
    monkeypatch.setattr(_KUBECONFIG, "/nonesuch")
    return found


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFiles:
    """A study in an object store, which is a folder here."""
    spec = parse_study(study(trials=6), "the study")

    def opened(uri: str) -> FolderStore:
        return FolderStore(tmp_path / uri.removeprefix("s3://"))

    for module in (object_store, stopping):
        monkeypatch.setattr(module, "open_store", opened)
    found = StudyFiles(opened(STORE))
    found.claim(StudyRecord(study_id="stepwise-1"))
    found.write_spec(spec)
    begin_study(found, spec)
    return found


def send(package: Path, name: str = "stepwise", experiment: str = "rlhpo", store: str = STORE) -> str:
    return client.submit(Server.of(), package, name, {"store": store}, experiment).id


def rlhpo(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main.app, [str(one) for one in arguments])


def test_runs_are_listed(backend: KfpServer, package: Path) -> None:
    assert "no runs" in rlhpo("runs").output
    first, second = send(package, experiment="a"), send(package, "another-name-that-is-rather-long" * 3, "b")
    listed = rlhpo("runs").output
    assert listed.index(second) < listed.index(first), "whole, though the output is no terminal"
    assert "created (UTC)" in listed
    assert "2026-01-01 00:00" in listed
    assert STORE in listed
    only = rlhpo("runs", "--experiment", "a").output
    assert first in only
    assert second not in only


def test_runs_name_their_schedule(backend: KfpServer, package: Path) -> None:
    made = schedules.schedule(
        Server.of(), package, "of-a-store", "nightly", {"store": STORE}, "rlhpo", cron="0 0 3 * * *"
    )
    run = backend.tick(made.id)
    assert run is not None
    (line,) = rlhpo("runs", "--json").output.splitlines()
    found = json.loads(line)
    assert (found["run"], found["schedule"], found["store"]) == (run["run_id"], "nightly", STORE)
    assert found["created"].endswith("+00:00")
    assert " nightly " in rlhpo("runs").output


def test_runs_say_what_keeps_a_pod_from_starting(
    backend: KfpServer, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = KubernetesApi()
    monkeypatch.setattr(_KUBECONFIG, str(api.kubeconfig(tmp_path / "config")))
    first, second = send(package), send(package)
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "registry.example.com/none:1"'}
    status = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": waiting}}]}
    api.pods["team"] = [pod(run, "train", **status) for run in (first, second)]
    backend.set_state(second, "FAILED")
    try:
        said = rlhpo("runs").output
        waits = f"step 'train' does not start: ImagePullBackOff: {waiting['message']}"
        assert said.splitlines()[-1] == f"run {first} waits: {waits}"
        assert f"run {second}" not in said
        assert [json.loads(line)["waits"] for line in rlhpo("runs", "--json").output.splitlines()] == [None, waits]
    finally:
        api.stop()


def test_logs_are_printed_by_step(backend: KfpServer, package: Path, tmp_path: Path) -> None:
    run = send(package)
    assert "--artifacts" in str(rlhpo("logs", run).exception)
    assert "there are no logs of run" in str(rlhpo("logs", run, "--artifacts", tmp_path).exception)
    for step in ("data-prep", "register-best"):
        place = tmp_path / "of-a-store" / run / step / "uuid"
        place.mkdir(parents=True)
        (place / "executor-logs").write_text(f"first\n[{step}]\n")
    assert rlhpo("logs", run, "--artifacts", tmp_path, "--step", "reg", "--lines", "1").output == (
        "register-best\n[register-best]\n"
    )
    assert "data-prep\nfirst\n[data-prep]" in rlhpo("logs", run, "--artifacts", tmp_path).output


def test_a_study_is_stopped_by_its_store(
    backend: KfpServer, package: Path, files: StudyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = send(package), send(package, store="s3://bucket/other")
    assert "ends after the trials at hand" in rlhpo("stop", STORE).output
    assert files.stop_requested()
    assert backend.runs[run]["state"] == "PENDING"
    monkeypatch.setattr(stopping, "mark_killed", lambda files: True)
    backend.states = ["RUNNING", "FAILED"]
    assert f"run {run} is stopped" in rlhpo("stop", STORE, "--now").output
    assert backend.runs[other]["state"] == "PENDING"
    assert "holds no study" in str(rlhpo("stop", "s3://bucket/nothing").exception)
    assert not (files.store.root.parent / "nothing").exists()  # type: ignore[attr-defined]


def test_status_of_a_store_says_why_its_run_failed(
    backend: KfpServer, package: Path, files: StudyFiles, seen: list[Pod]
) -> None:
    assert "none among the latest" in rlhpo("status", STORE).output
    send(package)
    run = send(package)
    send(package, store="s3://bucket/other")
    backend.set_steps(run, {"register-best": "FAILED"})
    backend.set_state(run, "FAILED")
    said = rlhpo("status", STORE).output
    assert "trials     0 of 6" in said
    assert f"run        {run} FAILED, of 2026-01-01 00:00 UTC" in said
    assert "step 'register-best' has failed" in said
    seen.append(Pod("p", "register best", "exited with 137, OOMKilled", "Traceback [1]\nlast words"))
    said = rlhpo("status", STORE).output
    assert "step 'register best' exited with 137, OOMKilled; its log ends with\n    Traceback [1]\n    last" in said


def test_status_of_a_store_does_without_kfp(files: StudyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KFP_API_HOST", "KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    said = rlhpo("status", STORE)
    assert said.exit_code == 0
    assert "KFP was not asked: which KFP server?" in said.output


def test_what_keeps_a_run_waiting_is_told_once(
    backend: KfpServer, package: Path, seen: list[Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(cluster_runs.errors, "print", lambda text, **options: told.append(text))
    clock = [0.0]
    monkeypatch.setattr(cluster_runs.time, "monotonic", lambda: clock[0])
    server = Server.of()
    run = client.run(server, send(package))
    watch = cluster_runs.Watch.of(server, None)
    seen.append(Pod("p", "train", "is taken by no node: 0/1 nodes are available: 1 Insufficient cpu."))
    for seconds in (10, 31, 40, 80):
        clock[0] = seconds
        watch.look(run)
    assert told == ["step 'train' is taken by no node: 0/1 nodes are available: 1 Insufficient cpu."]
    backend.failures = [503]
    clock[0] = 120
    watch.look(run)
    assert len(told) == 1
