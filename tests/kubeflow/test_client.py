"""Runs, schedules and versions on a KFP server on loopback."""

from __future__ import annotations

import datetime
import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import kfp
import pytest
import yaml

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import client
from rlhpo_core.kubeflow.client import RunInfo
from rlhpo_core.kubeflow.compiled_pipeline import read_package
from rlhpo_core.kubeflow.connection import Server
from tests.helpers.kfp_pipelines import NIGHTLY, cached_steps, schedule, submit
from tests.helpers.kfp_server import KfpServer

pytestmark = pytest.mark.usefixtures("no_kfp_settings")

# -- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_arrives_as_it_was_sent(backend: KfpServer, server: Server, package: Path) -> None:
    parameters = {"text": "a", "count": 2, "options": {"depth": 3}}
    run = submit(
        server, package, "first", parameters=parameters, pipeline_root="s3://bucket/root", service_account="trainer"
    )
    (sent,) = backend.runs.values()
    assert (run.id, run.name, run.state) == (sent["run_id"], "first", "PENDING")
    assert run.created == datetime.datetime(2026, 1, 1, 0, 0, 2, tzinfo=datetime.UTC)
    assert run.finished is None
    assert run.url == f"{backend.url}/#/runs/details/{run.id}"
    assert sent["runtime_config"] == {"parameters": parameters, "pipeline_root": "s3://bucket/root"}
    assert sent["service_account"] == "trainer"
    assert [one["display_name"] for one in backend.experiments.values()] == ["tuning"]


def test_an_experiment_is_created_once(backend: KfpServer, server: Server, package: Path) -> None:
    submit(server, package)
    submit(server, package)
    submit(server, package, experiment="other")
    assert sorted(one["display_name"] for one in backend.experiments.values()) == ["other", "tuning"]


def test_an_archived_experiment_takes_no_run(backend: KfpServer, server: Server, package: Path) -> None:
    submit(server, package)
    next(iter(backend.experiments.values()))["storage_state"] = "ARCHIVED"
    with pytest.raises(UserError, match="'tuning' is archived; restore it"):
        submit(server, package)


def test_an_experiment_that_appears_meanwhile_is_taken(
    backend: KfpServer, server: Server, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(server, package)
    look = client._experiment
    answers = itertools.chain([lambda *a: None], itertools.repeat(look))
    monkeypatch.setattr(client, "_experiment", lambda *a: next(answers)(*a))
    submit(server, package)
    assert len(backend.experiments) == 1
    assert len(backend.runs) == 2


def test_what_only_kubernetes_has_is_sent_too(backend: KfpServer, server: Server, package_with_secret: Path) -> None:
    submit(server, package_with_secret, parameters={})
    (sent,) = backend.runs.values()
    assert "store" in str(sent["pipeline_spec"]["platform_spec"])
    assert sent["pipeline_spec"]["pipeline_spec"]["pipelineInfo"] == {"name": "with-secret"}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "parameter text is not optional"),
        ({"text": "a", "txet": "b"}, "not required by pipeline: txet"),
        ({"text": 1}, "parameter text requires type string"),
        ({"text": "a", "count": "3"}, "parameter count requires type double or integer"),
        ({"text": "a", "count": True}, "parameter count requires type double or integer"),
        ({"text": "a", "options": [1]}, "parameter options requires type struct"),
        ({"text": "a", "rate": float("nan")}, "without NaN and infinity"),
        ({"text": "a", "rate": Path("x")}, "parameters must be what JSON knows"),
    ],
)
def test_wrong_parameters_are_refused(server: Server, package: Path, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        submit(server, package, parameters=parameters)


def test_runs_are_listed_newest_first_over_many_pages(
    backend: KfpServer, server: Server, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [submit(server, package, f"run-{number % 3}") for number in range(7)]
    submit(server, package, "elsewhere", experiment="other")
    newest_first = [run.id for run in reversed(made)]
    monkeypatch.setattr(client, "_PAGE", 2)
    assert [run.id for run in client.runs(server, "tuning")] == newest_first
    assert [run.id for run in client.runs(server, "tuning", limit=3)] == newest_first[:3]
    assert [run.name for run in client.runs(server, limit=1)] == ["elsewhere"]
    assert len(client.runs(server, limit=50)) == 8
    assert [run.id for run in client.runs(server, name="run-0")] == [made[6].id, made[3].id, made[0].id]
    backend.set_state(made[0].id, "FAILED")
    failed = client.runs(server, "tuning")[-1]
    assert (failed.state, failed.ended, failed.succeeded, failed.error) == ("FAILED", True, False, None)
    assert failed.finished is not None


def test_runs_of_an_unknown_experiment(server: Server) -> None:
    assert client.runs(server) == []
    with pytest.raises(UserError, match="there is no experiment 'nonesuch'; `rlhpo submit` creates one"):
        client.runs(server, "nonesuch")


@pytest.mark.filterwarnings("ignore:This client only works with Kubeflow Pipeline:FutureWarning")
def test_kfps_own_client_and_this_one_see_the_same(
    backend: KfpServer, server: Server, package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server in these tests is not made to measure for our client."""
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    own = kfp.Client(host=backend.url)
    theirs = own.create_run_from_pipeline_package(
        str(package), {"text": "a"}, run_name="theirs", experiment_name="tuning", enable_caching=False
    )
    ours = submit(server, package, "ours")
    assert [run.id for run in client.runs(server, "tuning")] == [ours.id, theirs.run_id]
    listed = own.list_runs(experiment_id=own.get_experiment(experiment_name="tuning").experiment_id, page_size=1)
    assert [run.run_id for run in listed.runs] == [theirs.run_id]
    assert listed.next_page_token
    assert own.get_run(ours.id).display_name == "ours"
    made = schedule(server, package)
    assert own.get_recurring_run(made.id).trigger.cron_schedule.cron == NIGHTLY
    version = client.upload(server, package, "hello", "v1")
    assert own.get_pipeline_version(version.pipeline_id, version.id).display_name == "v1"


# -- waiting and stopping ---------------------------------------------------------------------------------------------


def test_waiting_tells_of_each_state_once(backend: KfpServer, server: Server, package: Path) -> None:
    run = submit(server, package)
    backend.states = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    told: list[str] = []
    ended = client.wait(server, run.id, poll=0.001, on_state=lambda info: told.append(info.state))
    assert told == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert ended.succeeded
    assert ended.finished is not None


@pytest.mark.parametrize("state", sorted(client.ENDED))
def test_waiting_ends_with_every_last_state(backend: KfpServer, server: Server, package: Path, state: str) -> None:
    run = submit(server, package)
    backend.states = [state]
    assert client.wait(server, run.id, poll=0.001).state == state


def test_waiting_lives_through_an_outage(backend: KfpServer, server: Server, package: Path) -> None:
    run = submit(server, package)
    backend.states = ["RUNNING", "SUCCEEDED"]

    def fail(info: RunInfo) -> None:
        if info.state == "RUNNING":
            backend.failures = [503, 500, 429]

    assert client.wait(server, run.id, poll=0.001, on_state=fail).succeeded
    assert backend.failures == []


def test_waiting_lives_through_a_restart_of_the_server(
    start: Callable[..., KfpServer], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = start()
    server = Server.of(backend.url)
    run = submit(server, package)
    backend.set_state(run.id, "RUNNING")
    pauses = iter([backend.stop, lambda: None, lambda: restarted.extend([_restarted(start, backend)])])
    restarted: list[KfpServer] = []
    monkeypatch.setattr(client.time, "sleep", lambda seconds: next(pauses)())
    assert client.wait(server, run.id).succeeded
    assert restarted


def _restarted(start: Callable[..., KfpServer], before: KfpServer) -> KfpServer:
    again = start(port=before.port)
    again.experiments, again.runs = before.experiments, before.runs
    again.states = ["SUCCEEDED"]
    return again


def test_pauses_grow_in_an_outage_and_have_an_end(
    backend: KfpServer, server: Server, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit(server, package)
    clock, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds
        backend.failures = [503]

    monkeypatch.setattr(client.time, "sleep", sleep)
    monkeypatch.setattr(client.time, "monotonic", lambda: clock[0])
    with pytest.raises(UserError, match=f"(?s)status 503.*The run {run.id} goes on without being watched"):
        client.wait(server, run.id, poll=10, outage=300)
    assert pauses == [10, 20, 40, 60, 60, 60, 60]


def test_waiting_is_bounded(backend: KfpServer, server: Server, package: Path) -> None:
    run = submit(server, package)
    with pytest.raises(UserError, match=r"has not ended within 0.01 seconds; it goes on"):
        client.wait(server, run.id, poll=0.001, timeout=0.01)


def test_waiting_does_not_go_on_without_hope(backend: KfpServer, server: Server) -> None:
    with pytest.raises(UserError, match="there is no run 'nonesuch'; see `rlhpo runs`"):
        client.wait(server, "nonesuch")
    backend.failures = [503]
    with pytest.raises(UserError, match="status 503"):
        client.wait(server, "nonesuch")


def test_a_run_is_stopped_once(backend: KfpServer, server: Server, package: Path) -> None:
    run = submit(server, package)
    client.terminate(server, run.id)
    assert client.runs(server)[0].state == "CANCELING"
    with pytest.raises(UserError, match="cannot be stopped: it has ended, or is being stopped"):
        client.terminate(server, run.id)
    with pytest.raises(UserError, match="there is no run 'nonesuch'"):
        client.terminate(server, "nonesuch")


# -- pipeline versions ------------------------------------------------------------------------------------------------


def test_versions_of_a_pipeline(backend: KfpServer, server: Server, package: Path, package_with_secret: Path) -> None:
    first = client.upload(server, package, "hpo loop/ü", "v1")
    second = client.upload(server, package, "hpo loop/ü", "v2")
    assert first.pipeline_id == second.pipeline_id
    assert {one["name"] for one in backend.versions.values()} == {"v1", "v2"}
    assert [one["name"] for one in backend.pipelines.values()] == ["hpo loop/ü"]
    assert second.url == f"{backend.url}/#/pipelines/details/{second.pipeline_id}/version/{second.id}"
    again = client.upload(server, package, "hpo loop/ü", "v1")
    assert again == first, "the same content under the same name is the same version"
    with pytest.raises(UserError, match="has a version 'v1' with another content; choose another name"):
        client.upload(server, package_with_secret, "hpo loop/ü", "v1")


def test_a_run_of_a_version(backend: KfpServer, server: Server, package: Path, package_with_secret: Path) -> None:
    version = client.upload(server, package_with_secret, "secret", "v1")
    assert cached_steps(read_package(package_with_secret)) == [True, False, False], "a nested pipeline, not its steps"
    submit(server, version, parameters={"text": "b"})
    (sent,) = backend.runs.values()
    assert sent["pipeline_version_reference"] == {
        "pipeline_id": version.pipeline_id,
        "pipeline_version_id": version.id,
    }
    with pytest.raises(UserError, match="parameter text requires type string"):
        submit(server, version, parameters={"text": 3})
    with pytest.raises(UserError, match="PipelineVersion gone not found"):
        submit(server, replace(version, id="gone"))


def test_a_version_that_caches_is_not_run_as_if_it_did_not(server: Server, package: Path) -> None:
    version = client.upload(server, package, "hello", "v1")
    with pytest.raises(UserError, match="was compiled with caching"):
        submit(server, version)
    assert submit(server, version, cache=True).state == "PENDING"


def test_a_pipeline_that_only_the_server_finds_wrong(server: Server, package: Path, tmp_path: Path) -> None:
    spec = yaml.safe_load(package.read_text())
    spec["components"].pop("comp-inner")
    path = tmp_path / "dangling.yaml"
    path.write_text(yaml.safe_dump(spec))
    with pytest.raises(UserError, match="no component 'comp-inner'"):
        submit(server, path)
    with pytest.raises(UserError, match="no component 'comp-inner'"):
        client.upload(server, path, "p", "v")


def test_importing_the_client_imports_nothing_slow() -> None:
    program = (
        "import sys, rlhpo_core.kubeflow.schedules; "
        "print([name for name in ('kfp', 'kfp_server_api', 'urllib3', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
