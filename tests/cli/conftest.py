"""A KFP server on loopback, and the environment of somebody who may use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhpo_core.kubeflow import connection
from tests.helpers.kfp_server import KfpServer


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KfpServer]:
    backend = KfpServer(tokens={"mine"}, namespaces={"team"})
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection, "TOKEN_FILE", tmp_path / "no-token")
    monkeypatch.setattr(connection, "_POD_NAMESPACE", tmp_path / "no-namespace")
    monkeypatch.setenv("KFP_API_HOST", backend.url)
    monkeypatch.setenv("RLHPO_KFP_NAMESPACE", "team")
    monkeypatch.setenv("RLHPO_KFP_TOKEN", "mine")
    yield backend
    backend.stop()
