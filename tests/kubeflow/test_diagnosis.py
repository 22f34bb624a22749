"""Why a run has failed, from KFP's API, its object store and the pods."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import diagnosis, pods
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.kubeflow.diagnosis import Trouble
from rlhpo_core.kubeflow.pods import Pod
from tests.helpers.kfp_pipelines import submit
from tests.helpers.kfp_server import KfpServer

pytestmark = pytest.mark.usefixtures("no_kfp_settings")


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Pod]:
    """The pods that the caller may read."""
    found: list[Pod] = []
    monkeypatch.setattr(pods, "of_run", lambda run_id, namespace, lines: found)
    return found


@pytest.fixture
def run(backend: KfpServer, server: Server, package: Path) -> str:
    """It has failed in its second step."""
    sent = submit(server, package)
    backend.set_steps(sent.id, {"data-prep": "SUCCEEDED", "register-best": "FAILED"})
    backend.set_state(sent.id, "FAILED")
    return sent.id


@pytest.fixture
def artifacts(run: str, tmp_path: Path) -> str:
    for step, text in (("data-prep", "fine\n"), ("register-best", "".join(f"line {n}\n" for n in range(30)))):
        place = tmp_path / "hello" / run / step / "3f1c-uuid"
        place.mkdir(parents=True)
        (place / "executor-logs").write_text(text)
        (place / "note").write_text("another artifact")
    return str(tmp_path)


def test_the_step_is_named_and_its_log_quoted(server: Server, run: str, artifacts: str) -> None:
    (found,) = diagnosis.troubles(server, run, artifacts, lines=2)
    assert found == Trouble("register-best", "has failed", "line 28\nline 29")
    assert str(found) == "step 'register-best' has failed; its log ends with\n    line 28\n    line 29"


def test_without_the_object_store_the_step_is_named(server: Server, run: str) -> None:
    assert diagnosis.troubles(server, run) == [Trouble("register-best", "has failed")]


def test_a_driver_that_failed_is_named(backend: KfpServer, server: Server, run: str) -> None:
    for node in backend.runs[run]["run_details"]["task_details"]:
        if "register-best" in node["task_id"]:
            node["state"] = {"register-best-driver": "FAILED", "register-best": "FAILED"}.get(
                node["display_name"], "SKIPPED"
            )
    assert [one.step for one in diagnosis.troubles(server, run)] == ["register-best-driver"]


def test_what_the_pods_say_goes_first(server: Server, run: str, artifacts: str, seen: list[Pod]) -> None:
    seen += [Pod("p", "register best", "exited with 137, OOMKilled", "last"), Pod("q", "train", "")]
    found = diagnosis.troubles(server, run, artifacts)
    assert found == [Trouble("register best", "exited with 137, OOMKilled", "last")]


def test_a_run_that_goes_on_has_no_trouble(backend: KfpServer, server: Server, package: Path) -> None:
    run = submit(server, package).id
    assert diagnosis.troubles(server, run) == []
    backend.set_steps(run, {"data-prep": "RUNNING"})
    assert diagnosis.troubles(server, run) == []
    with pytest.raises(UserError, match="there is no run 'none'"):
        diagnosis.troubles(server, "none")


def test_logs_of_all_steps(server: Server, run: str, artifacts: str, package: Path) -> None:
    found = diagnosis.logs(server, run, artifacts)
    assert [log.step for log in found] == ["data-prep", "register-best"]
    assert found[0].tail(5) == "fine"
    with pytest.raises(UserError, match="Name it with --artifacts"):
        diagnosis.logs(server, run)
    by_root = submit(server, package, pipeline_root=artifacts).id
    assert diagnosis.logs(server, by_root) == []
