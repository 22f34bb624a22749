"""The training step in a process of its own, which a trial takes down with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.kubeflow.steps import round_under_way, tuning
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import POD_MEMORY, Proposal, Trial, TrialStatus
from tests.helpers.command_line import environment

#: As in a pod: settings are mounted. Deaths are known for sure after half a second.
STEP = """
import sys
from pathlib import Path
from rlhpo_core.kubeflow import pod_settings
from rlhpo_core.storage import attempts
pod_settings.MOUNT = Path(sys.argv[1])
attempts.EXPIRY = 0.5
from rlhpo_core.kubeflow.steps import tuning
if __name__ == "__main__":
    store, proposal, trial = sys.argv[2:]
    tuning.train(store, "", proposal, Path("table"), "", Path(trial))
"""


class Pods:
    """A study of one act, whose step runs in process after process."""

    def __init__(self, folder: Path, act: str, **config: Any) -> None:
        self.folder, self.store = folder, str(folder / "store")
        space = {name: {"type": "fixed", "value": value} for name, value in {"act": act, **config}.items()}
        spec = StudySpec.model_validate(
            {
                "name": "dying",
                "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
                "objective": {"metric": "score", "direction": "maximize"},
                "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
                "budget": {"trials": 2},
                "tuner": {"trials_per_round": 1, "agent": {"nodes": 8}},
                "execution": {"threads": 1},
                "cluster": {"trial_memory": "512M"},
            }
        )
        put_study(self.store, spec)
        tuning.prepare(self.store, "", folder / "table", folder / "state", log_trials=False)
        (text,) = tuning.propose(self.store, folder / "state")
        proposal = Proposal.model_validate_json(text)
        self.proposal = proposal.model_copy(update={"config": {name: one["value"] for name, one in space.items()}})
        self.trial = folder / "trial"
        (folder / "mount").mkdir()
        (folder / "step.py").write_text(STEP)

    @property
    def files(self) -> StudyFiles:
        return StudyFiles(open_store(self.store))

    def start(self) -> subprocess.Popen[bytes]:
        arguments = (self.folder / "mount", self.store, self.proposal.model_dump_json(), self.trial)
        return subprocess.Popen(
            [sys.executable, str(self.folder / "step.py"), *map(str, arguments)],
            env=environment(RLHPO_ALLOWED_MODULES="tests"), cwd=self.folder,
        )  # fmt: skip

    def run(self) -> int:
        return self.start().wait(60)

    def marks(self) -> int:
        return len(self.files.store.keys("attempts/"))


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")


def test_a_trial_that_kills_its_pod_twice_has_failed_and_is_not_trained_again(tmp_path: Path) -> None:
    pods, log = Pods(tmp_path, "take_the_pod_down", log=str(tmp_path / "log")), tmp_path / "log"
    assert [pods.run(), pods.run()] == [-signal.SIGKILL] * 2
    assert (pods.marks(), pods.files.trial(pods.proposal.trial_id)) == (2, None)
    assert pods.run() == 0
    assert log.read_text().splitlines() == ["trained"] * 2
    trial = pods.files.trial(pods.proposal.trial_id)
    assert trial is not None
    assert trial == Trial.model_validate_json(pods.trial.read_bytes())
    assert (trial.status, trial.metrics) == (TrialStatus.FAILED, {POD_MEMORY: 512.0})
    assert trial.error is not None
    assert trial.error.startswith("its pod died twice (exit 137 is the usual sign: out of memory at 512M?)")
    # The round goes on, and the study with it.
    tuning.fit_reward_model(tmp_path / "state", [pods.trial], tmp_path / "fitted")
    assert tuning.update_policy(pods.store, "", tmp_path / "fitted", tmp_path / "after").more == round_under_way.MORE


def test_pods_that_are_ended_by_sigterm_have_not_died(tmp_path: Path) -> None:
    pods = Pods(tmp_path, "train_for_ever", path=str(tmp_path / "file"))
    for _ in range(3):
        step = pods.start()
        deadline = time.monotonic() + 60
        while pods.marks() == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        step.terminate()
        assert step.wait(60) == 128 + signal.SIGTERM
        assert pods.marks() == 0
    assert pods.files.trial(pods.proposal.trial_id) is None


def test_a_result_leaves_no_mark(tmp_path: Path) -> None:
    pods = Pods(tmp_path, "score", x=0.5)
    assert pods.run() == 0
    trial = pods.files.trial(pods.proposal.trial_id)
    assert trial is not None
    assert (trial.value, pods.marks()) == (1.0, 0)
