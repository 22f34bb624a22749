"""Schedules on a KFP server on loopback, which deletes running workflows with their schedule, as KFP does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.execution.engines import RunUnderWay
from rlhpo_core.kubeflow import client, connection, schedules
from rlhpo_core.kubeflow.compiled_pipeline import read_package
from rlhpo_core.kubeflow.connection import Server
from tests.helpers.kfp_pipelines import NIGHTLY, cached_steps, schedule, submit
from tests.helpers.kfp_server import KfpServer

pytestmark = pytest.mark.usefixtures("no_kfp_settings")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = client.time.sleep
    monkeypatch.setattr(client.time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))


def tick(backend: KfpServer, schedule_id: str) -> dict[str, Any]:
    run = backend.tick(schedule_id)
    assert run is not None
    return run


def test_a_schedule_arrives_as_it_was_sent(backend: KfpServer, server: Server, package: Path) -> None:
    made = schedule(server, package, service_account="trainer")
    (sent,) = backend.recurring_runs.values()
    assert sent["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert (sent["max_concurrency"], sent["no_catchup"], sent["mode"]) == ("1", True, "ENABLE")
    assert sent["service_account"] == "trainer"
    (version,) = backend.versions.values()
    assert cached_steps(version["pipeline_spec"]) == [False, False, False]
    assert made == schedules.schedules(server)[0]
    assert (made.name, made.cron, made.enabled, made.max_concurrency) == ("nightly", NIGHTLY, True, 1)
    assert made.url == f"{backend.url}/#/recurringrun/details/{made.id}"


def test_a_schedule_replaces_that_of_the_same_name(backend: KfpServer, server: Server, package: Path) -> None:
    schedule(server, package, "other")
    first = schedule(server, package)
    second = schedule(server, package, cron="0 0 4 * * 1", enabled=False, max_concurrency=2, no_catchup=False)
    assert {one.name: one.cron for one in schedules.schedules(server)} == {"other": NIGHTLY, "nightly": "0 0 4 * * 1"}
    assert first.id not in backend.recurring_runs
    assert (second.enabled, second.max_concurrency) == (False, 2)
    assert backend.recurring_runs[second.id]["no_catchup"] is False
    assert schedule(server, package).enabled
    assert len(backend.recurring_runs) == 2


def test_a_schedule_that_is_refused_leaves_the_old_one(backend: KfpServer, server: Server, package: Path) -> None:
    first = schedule(server, package)
    for wrong in ({"parameters": {}}, {"cron": "30 2 * * *"}, {"max_concurrency": 11}):
        with pytest.raises(UserError):
            schedule(server, package, **wrong)
    assert list(backend.recurring_runs) == [first.id]
    assert schedules.schedules(server)[0].enabled


def test_a_schedule_that_was_interrupted_is_mended(backend: KfpServer, server: Server, package: Path) -> None:
    schedule(server, package)
    twin = {**next(iter(backend.recurring_runs.values())), "recurring_run_id": "twin"}
    backend.recurring_runs["twin"] = twin
    last = schedule(server, package)
    assert list(backend.recurring_runs) == [last.id]


def test_unscheduling(backend: KfpServer, server: Server, package: Path) -> None:
    schedule(server, package)
    schedule(server, package, "weekly")
    schedules.unschedule(server, "nightly")
    with pytest.raises(UserError, match="there is no schedule 'nightly'; there are: weekly"):
        schedules.unschedule(server, "nightly")
    schedules.unschedule(server, "weekly")
    with pytest.raises(UserError, match="there are: none"):
        schedules.unschedule(server, "weekly")


def test_the_server_itself_would_take_five_fields(backend: KfpServer, server: Server, package: Path) -> None:
    """What makes our own check necessary."""
    import kfp_server_api as api

    submit(server, package)
    body = api.V2beta1RecurringRun(
        display_name="five",
        experiment_id=next(iter(backend.experiments)),
        max_concurrency="1",
        mode="ENABLE",
        pipeline_spec=read_package(package)["pipeline_spec"],
        runtime_config=api.V2beta1RuntimeConfig(parameters={"text": "a"}),
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron="30 2 * * *")),
    )
    made = connection.call(server, "recurring_run_service_create_recurring_run", body)
    assert made.trigger.cron_schedule.cron == "30 2 * * *"
    with pytest.raises(UserError, match=r"Did you mean '0 30 2 \* \* \*'"):
        schedule(server, package, cron="30 2 * * *")


# -- a run that is under way ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [schedule, lambda server, package: schedules.unschedule(server, "nightly")])
def test_a_schedule_with_a_run_under_way_is_left_alone(
    backend: KfpServer, server: Server, package: Path, again: Any
) -> None:
    made = schedule(server, package)
    run = tick(backend, made.id)
    with pytest.raises(UserError, match=rf"has a run under way \({run['run_id']}\).*--under-way wait"):
        again(server, package)
    assert backend.orphans == set()
    assert [(one.id, one.enabled) for one in schedules.schedules(server)] == [(made.id, True)]


def test_a_run_under_way_is_waited_for_while_no_other_starts(backend: KfpServer, server: Server, package: Path) -> None:
    made = schedule(server, package, max_concurrency=2)
    run = tick(backend, made.id)
    told: list[str] = []

    def end(line: str) -> None:
        told.append(line)
        assert backend.tick(made.id) is None, "the old schedule is paused"
        assert [one["status"] for one in backend.recurring_runs.values()] == ["DISABLED", "DISABLED"]
        timer = threading.Timer(0.1, backend.set_state, (run["run_id"], "SUCCEEDED"))
        timer.start()

    second = schedule(server, package, under_way=RunUnderWay.WAIT, tell=end)
    assert told == [f"waiting for run {run['run_id']} to end"]
    assert backend.runs[run["run_id"]]["state"] == "SUCCEEDED"
    assert (list(backend.recurring_runs), backend.orphans) == ([second.id], set())
    assert second.enabled


def test_a_run_under_way_is_stopped_before_its_schedule_goes(backend: KfpServer, server: Server, package: Path) -> None:
    made = schedule(server, package)
    run = tick(backend, made.id)
    backend.states = ["CANCELING", "FAILED"]
    schedules.unschedule(server, "nightly", RunUnderWay.STOP)
    assert ("POST", f"/apis/v2beta1/runs/{run['run_id']}:terminate") in backend.requests
    assert (backend.recurring_runs, backend.orphans) == ({}, set())


def test_a_wait_that_fails_leaves_the_old_schedule_as_it_was(
    backend: KfpServer, server: Server, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = schedule(server, package)
    tick(backend, made.id)

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        schedule(server, package, cron="0 0 4 * * 1", under_way=RunUnderWay.WAIT)
    assert [(one.id, one.enabled) for one in schedules.schedules(server)] == [(made.id, True)]


def test_runs_of_others_are_not_waited_for(backend: KfpServer, server: Server, package: Path) -> None:
    made, other = schedule(server, package), schedule(server, package, "other")
    submit(server, package)
    tick(backend, other.id)
    backend.set_state(tick(backend, made.id)["run_id"], "FAILED")
    schedules.unschedule(server, "nightly")
    assert list(backend.recurring_runs) == [other.id]


# -- what a schedule runs ---------------------------------------------------------------------------------------------


def test_with_the_mlflow_plugin_a_schedule_keeps_its_parameters(
    backend: KfpServer, server: Server, package: Path
) -> None:
    backend.mlflow_plugin = True
    made = schedule(server, package, parameters={"text": "a", "count": 2})
    assert tick(backend, made.id)["runtime_config"]["parameters"] == {"text": "a", "count": 2}
    assert "pipeline_version_id" not in backend.recurring_runs[made.id]["pipeline_version_reference"]
    pinned = backend.recurring_runs[made.id] | {"pipeline_version_reference": {
        "pipeline_id": next(iter(backend.pipelines)), "pipeline_version_id": next(iter(backend.versions))
    }}  # fmt: skip
    backend.recurring_runs["pinned"] = pinned | {"recurring_run_id": "pinned"}
    assert backend.tick("pinned") is None, "what a version would have come to"


def test_what_a_schedule_runs_does_not_change_under_it(
    backend: KfpServer, server: Server, package: Path, package_with_secret: Path
) -> None:
    made = schedule(server, package)
    schedule(server, package_with_secret, "other", parameters={})
    schedule(server, package, "third", version="v1")
    of = {one["display_name"]: one["pipeline_version_reference"] for one in backend.recurring_runs.values()}
    assert of["nightly"] == of["third"], "one content, one pipeline"
    assert of["nightly"] != of["other"]
    assert tick(backend, made.id)["pipeline_version_reference"] == of["nightly"]
    assert all(name["name"].startswith("hello-") for name in backend.pipelines.values())
