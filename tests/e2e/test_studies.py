"""Whole studies by the command line, in processes of their own, as users run them."""

from __future__ import annotations

import os
import re
import shlex
from itertools import takewhile
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from rlhpo_core.study.spec import load_study
from tests.helpers.command_line import ROOT, children, client, rlhpo, start, trial_files, trials, wait_for, write_study
from tests.helpers.comparison import comparable
from tests.helpers.mlflow_store import new_store

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FIRST, *OTHERS = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose studies share one MLflow store."""
    place = tmp_path_factory.mktemp("work")
    new_store(place / "runs")
    return place


@pytest.fixture(scope="module")
def car(place: Path) -> Path:
    """The folder of a finished study of the example on real data."""
    output = rlhpo("tune", FIRST, "--trials", "16", "--out", "runs/car", cwd=place)
    assert "all 16 trials done" in output
    assert re.search(r"best +accuracy 0\.\d+ \(trial \d+\)", output)
    assert re.search(r"holdout +accuracy 0\.\d+", output)
    assert "registered car version 1" in output
    assert f"mlflow ui --backend-store-uri sqlite:///{place}/runs/mlflow.db" in output
    return place / "runs" / "car"


# -- the main job ----------------------------------------------------------------------------------------------------


def test_one_seed_gives_the_same_trials_twice_and_after_a_kill(car: Path, place: Path) -> None:
    again = place / "runs" / "again"
    rlhpo("tune", FIRST, "--trials", "16", "--out", again, cwd=place)
    assert comparable(trials(again)) == comparable(trials(car))

    killed = place / "runs" / "killed"
    for count in (1, 8):
        arguments = ["resume", killed] if killed.exists() else [
            "tune", FIRST, "--trials", "16", "--out", killed
        ]  # fmt: skip
        process = start(*arguments, cwd=place)
        wait_for(lambda count=count: trial_files(killed) >= count, process)
        process.kill()
        process.communicate()
    assert 8 <= trial_files(killed) < 16
    output = rlhpo("status", killed, cwd=place)
    assert "interrupted" in output
    rlhpo("resume", killed, cwd=place)
    assert comparable(trials(killed)) == comparable(trials(car))

    runs = children(client(place), killed)
    assert sorted(int(run.data.tags["rlhpo.trial"]) for run in runs) == list(range(1, 17))
    assert {run.info.status for run in runs} == {"FINISHED"}
    values = {int(run.data.tags["rlhpo.trial"]): run.data.metrics["objective"] for run in runs}
    assert values == {trial.proposal.number + 1: trial.value for trial in trials(killed)}


def test_another_seed_gives_other_trials(car: Path, place: Path) -> None:
    study = FIRST
    rlhpo("tune", study, "--trials", "2", "--seed", "7", "--out", "runs/seven", cwd=place)
    assert [t.config for t in trials(place / "runs" / "seven")] != [t.config for t in trials(car)][:2]


def test_the_registered_winner_predicts_raw_rows(car: Path, place: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{place}/runs/mlflow.db")
    try:
        model = mlflow.pyfunc.load_model("models:/car@champion")
    finally:
        mlflow.set_tracking_uri(None)
    rows = pd.read_csv(ROOT / "examples" / "data" / "car.csv")
    served = model.predict(rows.drop(columns="target"))
    assert (served["prediction"] == rows["target"]).mean() > 0.8


def test_the_study_has_its_pictures_in_mlflow(car: Path, place: Path) -> None:
    store = client(place)
    (run,) = [
        store.get_run(parent)
        for parent in {child.data.tags["mlflow.parentRunId"] for child in children(store, car)}
    ]  # fmt: skip
    pictures = {Path(file.path).name for file in store.list_artifacts(run.info.run_id, "figures")}
    # So few trials may say nothing of what matters; then importance.png is held back.
    assert {"progress.png", "parallel_coordinates.png", "predicted_vs_real.png"} <= pictures
    assert {data.dataset.digest for data in run.inputs.dataset_inputs} != set()
    assert run.info.status == "FINISHED"
    assert "holdout.accuracy" in run.data.metrics
    assert "Best configuration" in run.data.tags["mlflow.note.content"]
    page = (car / "report.html").read_text()
    assert "data:image/png;base64," in page


def test_status_and_report_need_no_training(car: Path, place: Path) -> None:
    output = rlhpo("status", cwd=place)
    assert re.search(r"runs/car +finished +16/16 +0 +0 +accuracy 0\.\d+ +car version 1", output)
    (car / "report.html").unlink()
    assert "report.html" in rlhpo("report", car, cwd=place)
    assert (car / "report.html").exists()
    rlhpo("report", car, "--html", place / "charts.html", cwd=place)
    assert "Plotly.newPlot" in (place / "charts.html").read_text()


def test_a_finished_study_goes_on_with_a_larger_budget(place: Path) -> None:
    study = write_study(place, "longer")
    rlhpo("tune", study, cwd=place)
    assert "all 6 trials done" in rlhpo("resume", "runs/longer", cwd=place)
    assert "all 9 trials done" in rlhpo("resume", "runs/longer", "--trials", "9", cwd=place)
    assert len(children(client(place), place / "runs" / "longer")) == 9


def test_a_second_study_of_a_name_gets_a_folder_of_its_own(place: Path) -> None:
    study = write_study(place, "twin", budget={"trials": 1})
    rlhpo("tune", study, cwd=place)
    rlhpo("tune", study, cwd=place)
    assert trial_files(place / "runs" / "twin") == trial_files(place / "runs" / "twin-2") == 1


def command_in(example: Path) -> tuple[dict[str, str], list[str]]:
    """Variables and arguments of the command with which an example says that it is run; paths made absolute."""
    (line,) = re.findall(r"^# Run it: +(.+)$", example.read_text(), re.MULTILINE)
    words = [re.sub(r"\bexamples\b", str(ROOT / "examples"), word) for word in shlex.split(line)]
    variables = dict(word.split("=", 1) for word in takewhile(lambda word: "=" in word, words))
    program, *arguments = words[len(variables) :]
    assert program == "rlhpo"
    return variables, arguments


@pytest.mark.parametrize("example", OTHERS, ids=lambda example: example.stem)
def test_examples_run_as_they_say(example: Path, place: Path) -> None:
    """All but the first, which is the fixture's. KFP's engine, which one of them names, has tests of its own."""
    variables, arguments = command_in(example)
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), variables.get("PYTHONPATH", "")])
    output = rlhpo(*arguments, "--trials", "6", "--engine", "inprocess", cwd=place, **variables)
    assert "all 6 trials done" in output
    spec = load_study(example)
    assert (f"registered {spec.registry.model} version" in output) == (spec.registry.model is not None)
    assert output.count("made to fail on purpose") == len(spec.execution.drill)
    prior = "earlier studies have taught: prior xgboost-accuracy"
    assert (prior in output) == (spec.name == "car-with-prior")


def test_init_writes_a_study_that_runs(place: Path) -> None:
    data = ROOT / "examples" / "data" / "german_credit.csv"
    init = ("init", "--data", data, "--target", "target", "--out", "mine.yaml")
    output = rlhpo(*init, cwd=place)
    assert "1000 rows, 20 columns, 13 of them categorical" in output
    assert "rlhpo tune mine.yaml" in output
    assert "mine.yaml exists" in rlhpo(
        "init", "--data", data, "--target", "target", "--out", "mine.yaml", cwd=place, code=1
    )
    output = rlhpo("tune", "mine.yaml", "--trials", "2", cwd=place)
    assert "registered german_credit version 1" in output
