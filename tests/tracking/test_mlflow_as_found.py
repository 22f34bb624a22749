"""MLflow as it is found: runs that somebody has deleted, places that cannot be written, tokens, an own authority.

mlflow/mlflow#689 and #3694 tell of the first.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from rlhpo_core.errors import UserError
from rlhpo_core.production.retuning import run_name
from rlhpo_core.retries import patiently
from rlhpo_core.study.spec import TrackingSpec
from rlhpo_core.tracking.address import experiment_page, run_page
from rlhpo_core.tracking.connection import Connection
from rlhpo_core.tracking.tracker import StudyTracker
from tests.helpers.certificates import self_signed
from tests.helpers.mlflow_store import new_store
from tests.helpers.tracked_studies import make_history, make_spec

pytestmark = pytest.mark.usefixtures("only_these_settings")


class _Mlflow(BaseHTTPRequestHandler):
    """Has an experiment and nothing else; keeps the headers of each request."""

    seen: list[dict[str, str]]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        experiment = {"experiment_id": "1", "name": "x", "artifact_location": "mlflow-artifacts:/1"}
        body = json.dumps({"experiment": {**experiment, "lifecycle_stage": "active"}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def mlflow_over_tls(certificate: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    seen: list[dict[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Mlflow,), {"seen": seen}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_authority_of_ones_own_and_a_token_come_from_the_usual_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    with mlflow_over_tls(certificate) as (address, seen), patiently(0):
        connection = Connection.of(TrackingSpec(uri=address), tmp_path)
        with pytest.raises(UserError, match=r"not trusted\. Set MLFLOW_TRACKING_SERVER_CERT_PATH"):
            connection.check("x")
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
        connection.check("x")
    assert {request.get("authorization") for request in seen} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("gs://bucket/mlflow", "GOOGLE_APPLICATION_CREDENTIALS"),
        pytest.param(
            "wasbs://container@account.blob.core.windows.net/mlflow",
            "azure-storage-blob",
            marks=pytest.mark.skipif(find_spec("azure") is not None, reason="its client is installed"),
        ),
        pytest.param(
            "abfss://files@account.dfs.core.windows.net/mlflow",
            "azure-storage-file-datalake",
            marks=pytest.mark.skipif(find_spec("azure") is not None, reason="its client is installed"),
        ),
        ("file:///dev/null/mlflow", "/dev/null is no folder"),
    ],
)
def test_files_that_cannot_be_written_are_said_before_a_run_begins(
    location: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    uri = new_store(tmp_path)
    client = MlflowClient(uri)
    client.create_experiment("elsewhere", artifact_location=location)
    spec = make_spec("x", tracking={"uri": uri, "experiment": "elsewhere"})
    with pytest.raises(UserError, match=f"the experiment 'elsewhere' .* keeps its files at .*{message}"):
        StudyTracker.open(spec, "x-1", tmp_path)
    experiment = client.get_experiment_by_name("elsewhere")
    assert client.search_runs([experiment.experiment_id]) == []
    with pytest.raises(UserError, match="--serve-artifacts"):
        Connection.of(spec.tracking, tmp_path).check("elsewhere")


def test_a_study_whose_run_was_deleted_has_a_new_one_with_all_trials(tmp_path: Path) -> None:
    uri = new_store(tmp_path)
    spec = make_spec("gone", tracking={"uri": uri})
    client = MlflowClient(uri)
    first = StudyTracker.open(spec, "gone-1", tmp_path)
    assert first.sync(make_history(2), ()) == 2
    client.delete_run(first.run_id)

    again = StudyTracker.open(spec, "gone-1", tmp_path)
    assert again.run_id != first.run_id
    assert again.sync(make_history(3), ()) == 3
    below = client.search_runs([again.experiment_id], f"tags.`mlflow.parentRunId` = '{again.run_id}'")
    assert sorted(run.data.tags["rlhpo.trial"] for run in below) == ["1", "2", "3"]
    assert client.get_run(first.run_id).info.lifecycle_stage == "deleted"


def test_every_page_opens_on_training_runs() -> None:
    assert run_page("http://user:secret@mlflow/", "1", "abc") == (
        "http://user:***@mlflow/#/experiments/1/runs/abc?workflowType=machine_learning"
    )
    assert experiment_page("http://mlflow", "1").endswith("/#/experiments/1/runs?workflowType=machine_learning")


def test_a_retunings_run_is_named_by_its_folder_and_its_date(tmp_path: Path) -> None:
    uri = new_store(tmp_path)
    name = run_name("wine-3")
    assert re.fullmatch(r"wine-3 \d{4}-\d\d-\d\d", name)
    spec = make_spec("named", tracking={"uri": uri})
    tracker = StudyTracker.open(spec, "named-1", tmp_path, name)
    assert tracker.client.get_run(tracker.run_id).info.run_name == name
    # Opened again, by a later step, it keeps it.
    assert StudyTracker.open(spec, "named-1", tmp_path).run_id == tracker.run_id
    assert tracker.client.get_run(tracker.run_id).info.run_name == name
