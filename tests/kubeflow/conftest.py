from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler

from rlhpo_core.kubeflow import connection
from rlhpo_core.kubeflow.connection import Server
from tests.helpers.kfp_pipelines import hello, with_secret
from tests.helpers.kfp_server import KfpServer


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "hello.yaml"
    compiler.Compiler().compile(hello, str(path))
    return path


@pytest.fixture(scope="module")
def package_with_secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "secret.yaml"
    compiler.Compiler().compile(with_secret, str(path))
    return path


@pytest.fixture
def no_kfp_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that names no KFP server, as outside of a cluster."""
    for name in (
        "KFP_API_HOST",
        "KF_PIPELINES_ENDPOINT",
        "KF_PIPELINES_UI_ENDPOINT",
        "KF_PIPELINES_SA_TOKEN_PATH",
        "KUBERNETES_SERVICE_HOST",
        "RLHPO_KFP_TOKEN",
        "RLHPO_KFP_NAMESPACE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection, "TOKEN_FILE", tmp_path / "no-token")
    monkeypatch.setattr(connection, "_POD_NAMESPACE", tmp_path / "no-namespace")


@pytest.fixture
def start() -> Iterator[Callable[..., KfpServer]]:
    started: list[KfpServer] = []

    def one(**options: Any) -> KfpServer:
        started.append(KfpServer(**options))
        return started[-1]

    yield one
    for server in started:
        server.stop()


@pytest.fixture
def backend(start: Callable[..., KfpServer]) -> KfpServer:
    return start()


@pytest.fixture
def server(backend: KfpServer) -> Server:
    return Server.of(backend.url)
