"""What every step does in its pod."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rlhpo_core.execution import cgroup, resources
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.kubeflow import pod, pod_settings
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.kubeflow.steps import tuning
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.study.spec import ExecutionSpec, parse_study
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Proposal
from tests.helpers.mlflow_store import new_store
from tests.helpers.stepwise import study

SPEC = parse_study(study(trials=6), "the study")
#: A step that trains for ever, in a worker of its own.
STEP = """
import subprocess, sys, time
from pathlib import Path
from rlhpo_core.kubeflow import pod, pod_settings

pod_settings.MOUNT = Path(sys.argv[1])

@pod.step
def train(store: str) -> None:
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        print(worker.pid, flush=True)
        time.sleep(600)
    finally:
        worker.kill()

train(sys.argv[2])
"""


@pytest.fixture
def in_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "rlhpo"
    (place / "config").mkdir(parents=True)
    (place / "config" / "RLHPO_PATIENCE").write_text("0")
    monkeypatch.setattr(pod_settings, "MOUNT", place)
    return place


def test_a_step_has_the_settings_of_its_pod(in_pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(resources, "cores", lambda: 5)

    @pod.step
    def look(store: str) -> tuple[str | None, str | None]:
        return os.environ.get("RLHPO_PATIENCE"), os.environ.get("OMP_NUM_THREADS")

    assert look("s3://bucket/it") == ("0", "5")
    monkeypatch.setattr(pod_settings, "MOUNT", in_pod / "none")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert look("s3://bucket/it")[1] is None, "no pod"


def test_threads_of_a_trial_are_the_cpus_of_its_pod(in_pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 8)
    assert pod.threads(ExecutionSpec()) == 8
    assert pod.threads(ExecutionSpec(workers=4)) == 8, "workers are pods at once, and nothing else"
    assert pod.threads(ExecutionSpec(threads=2)) == 2
    monkeypatch.setattr(pod_settings, "MOUNT", in_pod / "none")
    assert pod.threads(ExecutionSpec(workers=4)) == 2


def test_a_trial_has_as_many_threads_as_its_pod_has_cpus(
    in_pod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node of 64 cores, in a pod of three CPUs, of a study with four pods at once: what its process says."""
    (in_pod / "config" / "RLHPO_ALLOWED_MODULES").write_text("tests")
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(cgroup, "cpus", lambda: 3.0)
    text = study(
        trials=1, data=None, registry={}, execution={"workers": 4},
        objective={"metric": "score", "direction": "maximize"},
        evaluator={"kind": "function", "function": "tests.helpers.functions:act"},
        space={"act": {"type": "fixed", "value": "describe_process"}, "x": {"type": "float", "low": 0.0, "high": 1.0}},
    )  # fmt: skip
    store = str(tmp_path / "store")
    put_study(store, parse_study(text, "sent"))
    prepared = tuning.prepare(store, "", tmp_path / "table", tmp_path / "state", log_trials=False)
    (text,) = prepared.proposals
    proposal = Proposal.model_validate_json(text).model_copy(update={"config": {"act": "describe_process"}})
    trial = tuning.train(store, "", proposal.model_dump_json(), tmp_path / "table", "", tmp_path / "trial")
    assert trial is not None
    assert {trial.metrics[f"{name}_threads"] for name in ("OMP", "MKL", "OPENBLAS")} == {3.0}


def test_sigterm_ends_a_step_and_mlflow_says_killed(
    in_pod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_store(tmp_path)
    (in_pod / "config" / "MLFLOW_TRACKING_URI").write_text(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    files = StudyFiles(open_store(str(tmp_path / "store")))
    files.claim(StudyRecord(study_id="stepwise-1"))
    files.write_spec(SPEC)
    begin_study(files, SPEC)
    tracker = StudyTracker.open(SPEC, "stepwise-1", tmp_path)
    command = [sys.executable, "-c", STEP, str(in_pod), files.store.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=600) == 143
    assert not _alive(worker)
    assert MlflowClient(uri).get_run(tracker.run_id).info.status == "KILLED"
    # If the pod was only moved, whoever logs next says that the study goes on.
    StudyTracker.attach(SPEC, tracker.run_id, tmp_path)
    assert MlflowClient(uri).get_run(tracker.run_id).info.status == "RUNNING"


def _alive(process: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True
