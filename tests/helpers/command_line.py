"""The command line as users run it: in a process of its own, in a folder with studies and their MLflow store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient

from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.trial import Trial

ROOT = Path(__file__).parents[2]
RLHPO = [sys.executable, "-c", "from rlhpo_core.cli.main import main; main()"]


def environment(**more: str) -> dict[str, str]:
    """That of this process without MLflow's settings, in which the tests' functions may be trained."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"RLHPO_ALLOWED_MODULES": "tests", "PYTHONPATH": str(ROOT), "COLUMNS": "200"} | more


def start(*arguments: str | Path, cwd: Path, **more: str) -> subprocess.Popen[str]:
    """``rlhpo`` with these arguments, running in ``cwd``; ``more`` is added to its environment."""
    command = [*RLHPO, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(**more), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def rlhpo(*arguments: str | Path, cwd: Path, code: int = 0, **more: str) -> str:
    """Run ``rlhpo`` to its end, which must be this exit code without a traceback; returns what it has printed."""
    process = start(*arguments, cwd=cwd, **more)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    assert "Traceback (most recent call last)" not in output
    return output


def write_study(folder: Path, name: str = "toy", **fields: Any) -> Path:
    """A study of a function from tests/helpers/functions.py, quick to run."""
    study = {
        "name": name,
        "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
        "objective": {"metric": "score", "direction": "maximize"},
        "space": {"act": {"type": "fixed", "value": "score"}, "x": {"type": "float", "low": 0.0, "high": 1.0}},
        "budget": {"trials": 6},
        **fields,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def trials(folder: Path) -> list[Trial]:
    """The finished trials of a study, in the order of their numbers."""
    return list(StudyFolder.open(folder).whole_history().trials)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until the condition holds while the process runs; fails if it ends before that."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def trial_files(folder: Path) -> int:
    """How many trials have ended, also while another process tunes."""
    return len(list((folder / "trials").glob("*.json")))


def client(place: Path) -> MlflowClient:
    """The MLflow store of the studies in ``place/runs``."""
    return MlflowClient(f"sqlite:///{place}/runs/mlflow.db")


def children(store: MlflowClient, folder: Path) -> list[Any]:
    """The trial runs of a study."""
    study_id = StudyFolder.open(folder).record().study_id
    experiments = [experiment.experiment_id for experiment in store.search_experiments()]
    runs = store.search_runs(experiments, f"tags.`rlhpo.study_id` = '{study_id}'", max_results=1000)
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]
