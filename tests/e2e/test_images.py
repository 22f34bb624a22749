"""Networks on images: the same study in one process and as a pipeline, and a deployed model that is retuned."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.trial import TrialStatus
from tests.helpers.command_line import children, client, rlhpo, trials, write_study
from tests.helpers.comparison import comparable
from tests.helpers.mlflow_store import new_store
from tests.helpers.pictures import SMALL, as_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose studies share one MLflow store, with a folder of class folders."""
    place = tmp_path_factory.mktemp("work")
    new_store(place / "runs")
    as_folder(place / "corners")
    return place


@pytest.mark.parametrize("rule", ["none", "asha"])
def test_the_pipeline_has_the_trials_of_the_runner(rule: str, place: Path) -> None:
    study = write_study(
        place, f"corners-{rule}",
        data={"path": "corners"},
        evaluator={"kind": "cnn", "epochs": 4, "params": {k: v for k, v in SMALL.items() if k != "learning_rate"}},
        objective="log_loss",
        space={"learning_rate": {"type": "float", "low": 0.0001, "high": 0.1, "log": True}},
        budget={"trials": 4 if rule == "none" else 6},
        # Proposals that depend on no score: which trials are stopped is the same on every machine.
        tuner={"trials_per_round": 3, "mode": "random"},
        stopping=rule,
        execution={"threads": 1},
    )  # fmt: skip
    here, there = (place / "runs" / f"{rule}-{engine}" for engine in ("inprocess", "kfp"))
    for folder, engine in ((here, "inprocess"), (there, "kfp")):
        rlhpo("tune", study, "--out", folder, "--engine", engine, cwd=place)
    expected, found = trials(here), trials(there)
    assert comparable(found) == comparable(expected)
    stopped = [trial for trial in expected if trial.stop is not None]
    assert bool(stopped) == (rule != "none")
    for trial in expected:
        assert trial.status is (TrialStatus.PRUNED if trial in stopped else TrialStatus.COMPLETE)
        assert trial.curve is not None
        assert len(trial.curve) == (4 if trial.stop is None else trial.stop.step)
    store = client(place)
    for folder in (here, there):
        assert {run.info.status for run in children(store, folder)} == {"FINISHED"}
        assert list((folder / "checkpoints").iterdir()) == []
