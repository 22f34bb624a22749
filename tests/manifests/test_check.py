"""The program that ``manifests/base/check.yaml`` runs in a cluster, run here."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.helpers.mlflow_store import new_store
from tests.manifests.rendering import MANIFESTS


def run_check() -> None:
    """Raises: SystemExit with the message of a check that fails."""
    (container,) = [
        container
        for document in yaml.safe_load_all((MANIFESTS / "base" / "check.yaml").read_text())
        for container in document["spec"].get("template", document)["spec"]["containers"]
    ]
    (program,) = container["args"]
    exec(compile(program, "check.yaml", "exec"), {"__name__": "__main__"})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLHPO_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_store(tmp_path))
    return tmp_path


def test_it_passes_where_both_can_be_used(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_check()
    assert capsys.readouterr().out == "the store and MLflow can be used\n"


def test_it_fails_with_words_where_one_cannot(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(SystemExit, match=r"MLflow at http://127\.0\.0\.1:9 .* cannot be reached"):
        run_check()
    (place / "file").write_text("")
    monkeypatch.setenv("RLHPO_STORE", str(place / "file" / "store"))
    with pytest.raises(SystemExit, match="cannot write"):
        run_check()
