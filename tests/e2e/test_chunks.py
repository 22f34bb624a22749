"""A study of thirty rounds as runs of ten, one of them killed in the middle and started again: the same trials."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rlhpo_core.execution.runner import run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import load_study
from tests.helpers.command_line import ROOT, environment, trial_files, trials, write_study
from tests.helpers.comparison import comparable
from tests.helpers.mlflow_store import new_store

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

ROUNDS, CHUNK, EACH = 30, 10, 2
#: Trials after which the second run is killed: in the middle of its sixth round.
KILLED_AFTER = 2 * 15 + 1
BY_KFP = f"""
import sys
from pathlib import Path
from rlhpo_core.cli.local_pipeline import chunk
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.study.spec import load_study
put_study(sys.argv[2], load_study(Path(sys.argv[1])))
chunk(sys.argv[2], int(sys.argv[4]), {EACH}, sys.argv[3])
"""


def command(engine: str, *arguments: str | Path) -> list[str]:
    program = ["-m", "tests.helpers.chunk"] if engine == "steps" else ["-c", BY_KFP]
    return [sys.executable, *program, *map(str, arguments)]


@pytest.mark.parametrize("engine", ["steps", "kfp"])
def test_chunks_make_the_trials_of_one_run(engine: str, tmp_path: Path) -> None:
    if engine == "kfp" and not os.environ.get("RLHPO_E2E_CHUNKS"):
        pytest.skip("takes a quarter of an hour: make e2e-chunks runs it")
    study = write_study(
        tmp_path,
        "chunks",
        budget={"trials": ROUNDS * EACH},
        tuner={"trials_per_round": EACH, "agent": {"nodes": 8}},
        execution={"drill": [3], "threads": 1},
    )
    spec = load_study(study)
    whole = StudyFolder.create(tmp_path / "whole", spec, StudyRecord.new(spec))
    # The function is one of the tests', and its module has to be allowed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHPO_ALLOWED_MODULES", "tests")
        with TrialPool(spec, 1, 1) as pool:
            run(whole, spec, pool, [])

    store, tracking = tmp_path / "store", new_store(tmp_path)
    known = environment(MLFLOW_TRACKING_URI=tracking, OMP_NUM_THREADS="1")
    done = []
    for number, killed in enumerate((False, True, False, False)):
        log = (tmp_path / f"log-{number}").open("wb")
        process = subprocess.Popen(
            command(engine, study, store, tmp_path / f"artifacts-{number}", CHUNK),
            cwd=ROOT,
            env=known,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while killed and process.poll() is None:
            if trial_files(store) >= KILLED_AFTER:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.02)
        code = process.wait()
        assert code == (-signal.SIGKILL if killed else 0), (tmp_path / f"log-{number}").read_text()[-3000:]
        opened = StudyFolder.open(store)
        done.append(opened.state().round)
        print(f"run {number + 1}: {trial_files(store)} trials, {done[-1]} rounds")
    # The killed run lost a round that had begun, and the next one went through it again.
    assert done[0] == CHUNK
    assert CHUNK < done[1] < 2 * CHUNK
    assert done[2:] == [done[1] + CHUNK, ROUNDS]

    found = trials(store)
    assert len(found) == ROUNDS * EACH
    assert comparable(found) == comparable(trials(whole.path))
    client = MlflowClient(tracking)
    runs = client.search_runs(["0", "1"], "tags.`rlhpo.trial` != ''", max_results=1000)
    assert sorted(int(one.data.tags["rlhpo.trial"]) for one in runs) == list(range(1, ROUNDS * EACH + 1))
