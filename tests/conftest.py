from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, settings
from kfp.dsl import pipeline_task

from tests.helpers.webhooks import Hook

# The tests that come with rlhpo are to show what they have compared, too.
pytest.register_assert_rewrite("rlhpo_core.testing.evaluators")
# Small networks run fastest on one thread, and the suite shares its cores with worker processes.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
settings.register_profile("rlhpo", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rlhpo")
# At each setting of a task KFP takes a picture of the whole stack, to name the setter in an error. For the frames of
# pytest's workers, which have no source, that searches all modules: seconds for a pipeline (findings/).
pipeline_task.inspect = SimpleNamespace(stack=lambda: [None, (None, None, None, sys._getframe(2).f_code.co_name)])


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
