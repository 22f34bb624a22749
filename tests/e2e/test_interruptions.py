"""Studies that are interrupted by their users, or by an outage of MLflow."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.helpers.command_line import children, rlhpo, start, trial_files, trials, wait_for, write_study
from tests.helpers.mlflow_store import new_store
from tests.helpers.pictures import SMALL, as_npz
from tests.helpers.servers import MlflowServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose studies share one MLflow store."""
    place = tmp_path_factory.mktemp("work")
    new_store(place / "runs")
    return place


def test_ctrl_c_finishes_the_trials_at_hand_and_says_how_to_resume(place: Path) -> None:
    space = {"act": {"type": "fixed", "value": "nap"}, "x": {"type": "float", "low": 0.0, "high": 1.0}}
    study = write_study(place, "polite", space=space, budget={"trials": 40})
    process = start("tune", study, cwd=place)
    folder = place / "runs" / "polite"
    wait_for(lambda: trial_files(folder) >= 1, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Finishing the trials at hand" in output
    assert "rlhpo resume runs/polite" in output
    assert 1 <= len(trials(folder)) < 40
    assert all(trial.status == "complete" for trial in trials(folder))


def test_a_second_ctrl_c_gives_the_trials_up(place: Path) -> None:
    space = {"act": {"type": "fixed", "value": "hang"}, "path": {"type": "fixed", "value": str(place / "pids")},
             "x": {"type": "float", "low": 0.0, "high": 1.0}}  # fmt: skip
    study = write_study(place, "stubborn", space=space, evaluator={
        "kind": "function", "function": "tests.helpers.functions:hang_anyhow"
    })  # fmt: skip
    process = start("tune", study, "--workers", "1", cwd=place)
    wait_for((place / "pids").exists, process)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert trials(place / "runs" / "stubborn") == []
    assert "rlhpo resume runs/stubborn" in output


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    running = MlflowServer(tmp_path)
    running.start()
    yield running
    running.stop()


def test_mlflow_lost_in_the_middle_loses_no_trial(server: MlflowServer, place: Path) -> None:
    space = {"act": {"type": "fixed", "value": "nap"}, "x": {"type": "float", "low": 0.0, "high": 1.0}}
    study = write_study(place, "outage", space=space, budget={"trials": 12}, tracking={"uri": server.url})
    folder = place / "runs" / "outage"
    process = start("tune", study, cwd=place)
    wait_for(lambda: trial_files(folder) >= 3, process)
    server.stop()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert "cannot be reached" in output
    assert "rlhpo resume runs/outage" in output
    assert len(trials(folder)) == 12
    server.start()
    rlhpo("resume", folder, cwd=place)
    runs = children(MlflowClient(server.url), folder)
    assert sorted(int(run.data.tags["rlhpo.trial"]) for run in runs) == list(range(1, 13))


def test_a_network_whose_study_is_killed_goes_on_from_its_epoch(place: Path) -> None:
    """SIGKILL to the study and all below it, in the midst of a trial; the study ends as it would have without."""
    data = as_npz(place / "corners.npz")
    params = {name: value for name, value in SMALL.items() if name != "learning_rate"}
    for name in ("whole", "killed"):
        write_study(
            place, name,
            data={"path": str(data)},
            evaluator={"kind": "cnn", "epochs": 100, "params": params},
            objective="log_loss",
            space={"learning_rate": {"type": "float", "low": 0.001, "high": 0.05}},
            budget={"trials": 2},
            execution={"workers": 1, "threads": 1},
        )  # fmt: skip
    rlhpo("tune", "whole.yaml", cwd=place)
    process = start("tune", "killed.yaml", cwd=place)
    checkpoints = place / "runs" / "killed" / "checkpoints"
    wait_for(lambda: checkpoints.exists() and any(checkpoints.glob("[0-9a-f]*")), process)
    process.kill()
    process.wait()
    assert len(trials(place / "runs" / "killed")) < 2
    assert "all 2 trials done" in rlhpo("resume", "runs/killed", cwd=place)
    whole, killed = (
        [(t.config, t.value, t.curve, t.metrics) for t in trials(place / "runs" / name)] for name in ("whole", "killed")
    )
    assert sorted(whole, key=str) == sorted(killed, key=str)
    assert list(checkpoints.iterdir()) == []
