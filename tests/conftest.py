from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.helpers.webhooks import Hook

# Small networks run fastest on one thread, and the suite shares its cores with worker processes.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
settings.register_profile("rlhpo", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rlhpo")


@pytest.fixture
def only_these_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names no MLflow and no object store, in which the tests' functions may be trained."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_")) and "TELEMETRY" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
