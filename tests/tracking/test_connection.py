from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import TrackingSpec
from rlhpo_core.tracking.address import redacted, tracking_uri, ui_command
from rlhpo_core.tracking.connection import Connection
from rlhpo_core.tracking.tracker import StudyTracker
from tests.helpers.servers import MlflowServer
from tests.helpers.tracked_studies import make_spec

pytestmark = pytest.mark.usefixtures("only_these_settings")

BOUNDS = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")


def test_mlflow_is_imported_with_telemetry_off_and_few_words_unless_the_user_wants_them() -> None:
    names = ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_LOGGING_LEVEL")
    program = f"import sys, os, rlhpo_core; print('mlflow' in sys.modules, *(os.environ[name] for name in {names}))"

    def shown(**environment: str) -> str:
        rest = {name: value for name, value in os.environ.items() if name not in names}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env={**rest, **environment}, capture_output=True, text=True, check=True).stdout

    assert shown().split() == ["False", "true", "WARNING"]
    assert shown(MLFLOW_LOGGING_LEVEL="DEBUG").split() == ["False", "true", "DEBUG"]


def test_where_mlflow_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert tracking_uri(TrackingSpec(), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-environment")
    assert tracking_uri(TrackingSpec(), tmp_path) == "http://from-environment"
    assert tracking_uri(TrackingSpec(uri="http://from-study"), tmp_path) == "http://from-study"


def test_how_to_open_the_pages() -> None:
    assert ui_command("sqlite:////a b/mlflow.db").endswith("mlflow ui --backend-store-uri 'sqlite:////a b/mlflow.db'")
    assert ui_command("https://user:secret@mlflow.example") == "https://user:***@mlflow.example"


def test_a_password_is_not_shown() -> None:
    assert redacted("postgresql://user:se:cret@host/db") == "postgresql://user:***@host/db"
    assert redacted("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_bounds_are_in_force_inside_only_and_those_of_the_user_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    with Connection.of(TrackingSpec(), tmp_path).open(timeout=3):
        assert [os.environ[name] for name in BOUNDS] == ["77", "0", "true"]
    assert [os.environ.get(name) for name in BOUNDS] == ["77", None, None]


@pytest.mark.parametrize("origin", ["study", "environment"])
def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        tracking: dict[str, Any] = {"experiment": "x"}
        if origin == "study":
            tracking["uri"] = uri
        else:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UserError, match=f"MLflow at {uri}.*cannot be reached: Connection refused") as caught:
            StudyTracker.open(make_spec("x", tracking=tracking), "toy-1", tmp_path)
    assert ("tracking.uri in the study file" if origin == "study" else "MLFLOW_TRACKING_URI") in str(caught.value)
    assert not any(name in os.environ for name in BOUNDS)


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="timed out") as caught:
            StudyTracker.open(make_spec("x", tracking={"uri": uri}), "toy-1", tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("postgresql://localhost:1/x", "cannot be reached: Connection refused"),
        ("postgresql+nodriver://localhost/x", "cannot be reached"),
        ("sqlite:////proc/nowhere/mlflow.db", "cannot be reached: No such file or directory"),
        ("nonsense://x", "refused: .*nonsense"),
    ],
)
def test_a_database_that_is_not_there(tmp_path: Path, uri: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        StudyTracker.open(make_spec("x", tracking={"uri": uri}), "toy-1", tmp_path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("some other file, longer than the header of a database" * 20)
    with pytest.raises(UserError, match="file is not a database"):
        StudyTracker.open(make_spec("x"), "toy-1", tmp_path)


def test_access_denied(server: MlflowServer, tmp_path: Path) -> None:
    uri = server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(UserError, match=r"denies access(.|\n)*MLFLOW_TRACKING_USERNAME"):
        StudyTracker.open(make_spec("x", tracking={"uri": uri}), "toy-1", tmp_path)


@pytest.mark.parametrize(
    ("text", "passes"), [("database is locked", True), ("database or disk is full", True), ("no such table", False)]
)
def test_which_errors_of_a_database_are_waited_for(text: str, passes: bool, tmp_path: Path) -> None:
    connection = Connection(f"sqlite:///{tmp_path}/mlflow.db", "the default")
    with pytest.raises(UserError) as raised, connection.open():
        raise OperationalError("INSERT", {}, sqlite3.OperationalError(text))
    assert raised.value.passing == passes
