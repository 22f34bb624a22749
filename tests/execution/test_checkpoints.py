"""Trials that go on where a process that was killed has left them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.storage.checkpoints import CHECKPOINTS
from rlhpo_core.storage.object_store import FolderStore
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.trial import Config, Proposal, Trial, TrialStatus
from tests.helpers import pool_study
from tests.helpers.pictures import SMALL, as_npz, study

ROOT = Path(__file__).parents[2]

#: Epochs that are quick, and many enough to be interrupted in their midst.
EPOCHS = 60


def proposal(config: Config, number: int = 0) -> Proposal:
    return Proposal(trial_id=f"trial-{number}", number=number, round=0, index=number, config=config, actions=(0.0,))


def trained(path: Path, store: Path | None, epochs: int, *configs: Config, padding: str = "half") -> list[Trial]:
    spec = study(path, epochs=epochs, evaluator={"padding": padding})
    with TrialPool(spec, 1, 1, checkpoints=None if store is None else str(store)) as pool:
        proposals = [proposal(config, number) for number, config in enumerate(configs)]
        return list(pool.run(proposals, lambda: False, lambda *_: None))


def without_time(trial: Trial) -> Trial:
    return trial.model_copy(update={"started_at": 0.0, "seconds": 0.0})


def test_a_killed_trial_goes_on_from_its_epoch(tmp_path: Path) -> None:
    """SIGKILL to all that trains it; in another process it ends as if nothing had happened."""
    path, store = as_npz(tmp_path / "corners.npz"), tmp_path / "study"
    script = textwrap.dedent(f"""
        from pathlib import Path
        from tests.execution.test_checkpoints import EPOCHS, SMALL, trained
        if __name__ == "__main__":
            trained(Path({str(path)!r}), Path({str(store)!r}), EPOCHS, SMALL)
    """)
    (tmp_path / "killed.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "killed.py")],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    kept, deadline = store / CHECKPOINTS / "trial-0", time.monotonic() + 120
    while not kept.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "it never kept anything"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (whole,) = trained(path, None, EPOCHS, SMALL)
    (resumed,) = trained(path, store, EPOCHS, SMALL)
    assert without_time(resumed) == without_time(whole)
    assert [step for step, _ in resumed.curve or ()] == list(range(1, EPOCHS + 1))
    # Whoever writes the trial's file clears it.
    assert kept.exists()
    StudyFiles(FolderStore(store)).write_trial(resumed)
    assert not kept.exists()


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_trial_whose_worker_is_killed_goes_on_once(deaths: int, tmp_path: Path) -> None:
    path, store = as_npz(tmp_path / "corners.npz"), tmp_path / "study"
    (whole,) = trained(path, None, 12, SMALL)
    steps: list[int] = []
    killed: set[int] = set()
    with TrialPool(study(path, epochs=12), 1, 1, checkpoints=str(store)) as pool:

        def kill(_: Proposal, step: int, value: float) -> None:
            steps.append(step)
            if step >= 4 and len(killed) < deaths:
                for worker in pool_study.workers():
                    killed.add(worker.pid)
                    worker.kill()

        (trial,) = pool.run([proposal(SMALL)], lambda: False, kill)
    if deaths == 1:
        assert without_time(trial) == without_time(whole)
        assert steps.count(1) == 2
        assert trial.seconds > 0
    else:
        assert trial.status is TrialStatus.FAILED
        assert trial.cause is not None
        assert "killed by SIGKILL" in trial.cause
        assert "gone on from its checkpoint once before" in trial.cause


def test_a_trial_whose_worker_is_killed_before_it_kept_anything_has_failed(tmp_path: Path) -> None:
    path, store = as_npz(tmp_path / "corners.npz"), tmp_path / "study"
    spec = study(path, epochs=5000, evaluator={"checkpoint_mb": 0})
    with TrialPool(spec, 1, 1, checkpoints=str(store)) as pool:
        (trial,) = pool.run(
            [proposal(SMALL)], lambda: False, lambda *_: [worker.kill() for worker in pool_study.workers()]
        )
    assert trial.status is TrialStatus.FAILED
    assert trial.cause is not None
    assert trial.cause.endswith("the process was killed by SIGKILL (out of memory?)")


def test_a_trial_that_is_given_up_for_now_keeps_its_checkpoint(tmp_path: Path) -> None:
    path, store = as_npz(tmp_path / "corners.npz"), tmp_path / "study"
    spec = study(path, epochs=5000)
    with TrialPool(spec, 1, 1, checkpoints=str(store)) as pool:
        ended = list(pool.run([proposal(SMALL)], lambda: False, lambda *_: pool.cancel()))
    assert ended == []
    assert FolderStore(store).keys() == ["checkpoints/trial-0"]


def test_what_cannot_be_trained_is_infeasible_and_what_diverges_has_failed(tmp_path: Path) -> None:
    impossible = {**SMALL, "conv1_stride": 5, "pool1_kernel": 5}
    wild = {**SMALL, "learning_rate": 10.0, "momentum": 0.99, "weight_decay": 1.0}
    trials = trained(as_npz(tmp_path / "a.npz"), None, 2, impossible, wild, SMALL, padding="none")
    statuses = {trial.proposal.number: trial.status for trial in trials}
    assert statuses == {0: TrialStatus.INFEASIBLE, 1: TrialStatus.FAILED, 2: TrialStatus.COMPLETE}
    errors = {trial.proposal.number: trial.cause for trial in trials}
    assert errors[0] is not None
    assert errors[0].startswith("pool1: a kernel of 5 is larger")
    assert errors[1] is not None
    assert "a smaller learning_rate may help" in errors[1]


@pytest.mark.usefixtures("only_these_settings")
def test_kinds_that_keep_nothing_leave_nothing(tmp_path: Path) -> None:
    with TrialPool(pool_study.spec(), 1, 1, checkpoints=str(tmp_path / "study")) as pool:
        (trial,) = pool_study.run(pool, pool_study.proposal(0, "score", x=0.5))
    assert trial.status is TrialStatus.COMPLETE
    assert not (tmp_path / "study").exists()
