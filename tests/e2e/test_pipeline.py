"""The looping pipeline by KFP's local runner: the same study, the same trials."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.helpers.command_line import children, client, rlhpo, start, trial_files, trials, wait_for, write_study
from tests.helpers.comparison import comparable
from tests.helpers.mlflow_store import new_store

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("work")
    new_store(place / "runs")
    return place


def test_the_pipeline_has_the_trials_of_the_runner_also_if_killed_in_the_middle(place: Path) -> None:
    rounds = {"single_rounds": 1, "trials_per_round": 3}
    study = write_study(place, "both", budget={"trials": 5}, tuner=rounds, execution={"drill": [2]})
    here, there = place / "runs" / "here", place / "runs" / "there"
    rlhpo("tune", study, "--out", here, cwd=place)

    process = start("tune", study, "--out", there, "--engine", "kfp", cwd=place)
    wait_for(lambda: trial_files(there) >= 1, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert "Finishing the trials at hand" in output
    assert 1 <= trial_files(there) < 5

    output = rlhpo("resume", there, "--engine", "kfp", cwd=place)
    assert "all 5 trials done" in output
    assert comparable(trials(there)) == comparable(trials(here))
    runs = children(client(place), there)
    assert sorted(run.info.status for run in runs) == ["FAILED", *["FINISHED"] * 4]
    assert {run.data.tags["rlhpo.trial"] for run in runs} == set("12345")


def test_a_pipeline_without_a_success_ends_with_the_cause(place: Path) -> None:
    study = write_study(place, "broken", budget={"trials": 2}, execution={"drill": [1, 2]})
    output = rlhpo("tune", study, "--engine", "kfp", cwd=place, code=1)
    assert "none of the 2 trials succeeded" in output
