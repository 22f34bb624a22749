from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

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
