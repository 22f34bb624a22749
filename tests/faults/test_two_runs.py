"""Two runs of the pipeline's steps on one store at once: state, files and MLflow agree, whoever is first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from tests.helpers.servers import shared_s3_server, shared_server

ROOT = Path(__file__).parents[2]

#: No two trainings of a configuration score the same.
STUDY = {
    "name": "two-runs",
    "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
    "objective": {"metric": "score", "direction": "maximize"},
    "space": {"act": {"type": "fixed", "value": "noisy"}, "x": {"type": "float", "low": 0.0, "high": 1.0}},
    "budget": {"trials": 4},
    "tuner": {"trials_per_round": 2},
    "execution": {"threads": 1},
    "tracking": {"experiment": "two-runs"},
}


@pytest.mark.e2e
def test_they_agree_on_every_trial_and_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3, server = shared_s3_server(), shared_server()
    settings = {**s3.environment(), "MLFLOW_TRACKING_URI": server.url, "RLHPO_ALLOWED_MODULES": "tests"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    path, store = tmp_path / "study.yaml", f"s3://{s3.bucket}/{tmp_path.name}"
    path.write_text(yaml.safe_dump(STUDY))
    command = [sys.executable, "-m", "tests.helpers.chunk", str(path), store]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen([*command, str(tmp_path / name), "2"], cwd=ROOT, env=environment) for name in ("a", "b")]
    try:
        assert [run.wait(timeout=600) for run in runs] == [0, 0]
    finally:
        for run in runs:
            run.kill()

    files = StudyFiles(open_store(store))
    state, whole = files.state(), files.whole_history()
    assert state.round == 2
    values = {trial.trial_id: trial.value for trial in state.history.trials}
    assert len(values) == 4
    assert {trial.trial_id: trial.value for trial in whole.trials} == values
    assert [len(trial.curve or ()) for trial in whole.trials] == [1] * 4
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name("two-runs")
    found = client.search_runs([experiment.experiment_id], "tags.`rlhpo.run` = 'trial'")
    assert sorted(run.data.tags["rlhpo.trial_id"] for run in found) == sorted(values)
    for run in found:
        assert run.data.metrics["objective"] == values[run.data.tags["rlhpo.trial_id"]]
        assert run.info.status == "FINISHED"
