"""Whole studies by the command line, in processes of their own, as users run them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.trial import Trial
from tests.helpers.servers import MlflowServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent
RLHPO = [sys.executable, "-c", "from rlhpo_core.cli.main import main; main()"]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"RLHPO_ALLOWED_MODULES": "tests", "PYTHONPATH": str(ROOT), "COLUMNS": "200"} | more


def start(*arguments: str | Path, cwd: Path, **more: str) -> subprocess.Popen[str]:
    command = [*RLHPO, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(**more), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def rlhpo(*arguments: str | Path, cwd: Path, code: int = 0, **more: str) -> str:
    process = start(*arguments, cwd=cwd, **more)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    assert "Traceback (most recent call last)" not in output
    return output


def write_study(folder: Path, name: str = "toy", **fields: Any) -> Path:
    """A study of a function from tests/functions.py, quick to run."""
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
    opened = StudyFolder.open(folder)
    return list(opened.history().trials)


def comparable(found: Iterable[Trial]) -> list[dict[str, Any]]:
    """All that has to be the same when a study is run again: everything but identities and times."""
    changing = {"proposal": {"trial_id"}, "started_at": True, "seconds": True}
    return [trial.model_dump(exclude=changing) for trial in found]


def wait_for(condition: Any, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def trial_files(folder: Path) -> int:
    return len(list((folder / "trials").glob("*.json")))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose studies share one MLflow store: making a new one takes seconds."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def car(place: Path) -> Path:
    """The folder of a finished study of the example on real data."""
    output = rlhpo("tune", ROOT / "examples" / "car.yaml", "--trials", "16", "--out", "runs/car", cwd=place)
    assert "all 16 trials done" in output
    assert re.search(r"best +accuracy 0\.\d+ \(trial \d+\)", output)
    assert re.search(r"holdout +accuracy 0\.\d+", output)
    assert "registered car version 1" in output
    assert f"mlflow ui --backend-store-uri sqlite:///{place}/runs/mlflow.db" in output
    return place / "runs" / "car"


def client(place: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{place}/runs/mlflow.db")


def children(store: MlflowClient, folder: Path) -> list[Any]:
    """The trial runs of a study."""
    study_id = StudyFolder.open(folder).record().study_id
    experiments = [experiment.experiment_id for experiment in store.search_experiments()]
    found = store.search_runs(experiments, f"tags.`rlhpo.study_id` = '{study_id}'", max_results=1000)
    return [run for run in found if "mlflow.parentRunId" in run.data.tags]


# -- the main job ----------------------------------------------------------------------------------------------------


def test_one_seed_gives_the_same_trials_twice_and_after_a_kill(car: Path, place: Path) -> None:
    again = place / "runs" / "again"
    rlhpo("tune", ROOT / "examples" / "car.yaml", "--trials", "16", "--out", again, cwd=place)
    assert comparable(trials(again)) == comparable(trials(car))

    killed = place / "runs" / "killed"
    for count in (1, 8):
        arguments = ["resume", killed] if killed.exists() else [
            "tune", ROOT / "examples" / "car.yaml", "--trials", "16", "--out", killed
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
    study = ROOT / "examples" / "car.yaml"
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
    assert {"progress.png", "parallel_coordinates.png", "importance.png", "predicted_vs_real.png"} <= pictures
    assert {data.dataset.digest for data in run.inputs.dataset_inputs} != set()
    assert run.info.status == "FINISHED"
    assert "holdout.accuracy" in run.data.metrics
    assert "Best configuration" in run.data.tags["mlflow.note.content"]
    page = (car / "report.html").read_text()
    assert "data:image/png;base64," in page


def test_status_and_report_need_no_training(car: Path, place: Path) -> None:
    output = rlhpo("status", cwd=place)
    assert re.search(r"runs/car +finished +16/16 +0 +accuracy 0\.\d+ +car version 1", output)
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


@pytest.mark.parametrize("example", ["credit", "wine", "car-with-prior"])
def test_examples_run_as_they_stand(example: str, place: Path) -> None:
    output = rlhpo("tune", ROOT / "examples" / f"{example}.yaml", "--trials", "6", cwd=place)
    assert "all 6 trials done" in output
    assert "version 1" in output
    assert ("begins with what 52 earlier studies have taught: prior xgboost-wide" in output) == (
        example == "car-with-prior"
    )


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


# -- interruptions ---------------------------------------------------------------------------------------------------


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


# -- bad luck and bad input ------------------------------------------------------------------------------------------


def test_a_study_of_failures_ends_with_their_cause_and_its_state(place: Path) -> None:
    space = {"act": {"type": "fixed", "value": "crash"}, "x": {"type": "float", "low": 0.0, "high": 1.0}}
    study = write_study(place, "doomed", space={**space}, evaluator={
        "kind": "function", "function": "tests.helpers.functions:always_crash"
    })  # fmt: skip
    output = rlhpo("tune", study, cwd=place, code=1)
    assert "none of the 6 trials succeeded" in output
    assert "6 × ArithmeticError: the loss exploded" in output
    assert len(trials(place / "runs" / "doomed")) == 6
    runs = children(client(place), place / "runs" / "doomed")
    assert {run.info.status for run in runs} == {"FAILED"}


def test_mlflow_out_of_reach_at_the_start_fails_before_any_trial(place: Path) -> None:
    study = write_study(place, "unseen")
    output = rlhpo("tune", study, cwd=place, code=1, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "MLflow at http://127.0.0.1:9 (from MLFLOW_TRACKING_URI) cannot be reached" in output
    assert not (place / "runs" / "unseen").exists()


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


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no such file": ({"data": {"path": "absent.csv", "target": "target"}}, "there is no file"),
    "empty table": ({"data": {"path": "empty.csv", "target": "target"}}, "cannot read"),
    "missing target": ({"data": {"path": "good.csv", "target": "tagret"}}, "did you mean 'target'?"),
    "one class": ({"data": {"path": "one.csv", "target": "target"}}, "one class only"),
    "target with gaps": ({"data": {"path": "gaps.csv", "target": "target"}}, "is missing in 1 of 40 rows"),
    "column of a wrong type": ({"data": {"path": "stray.csv", "target": "target"}}, "row 4 has 'broken'"),
    "unknown metric": ({"objective": "acuracy"}, "unknown metric 'acuracy'"),
    "metric of another task": ({"objective": "rmse"}, "rmse does not fit classification"),
    "unknown hyperparameter": ({"space": {"depth": {"type": "int", "low": 1, "high": 9}}}, "space.depth: XGBoost"),
    "empty range": ({"space": {"gamma": {"type": "float", "low": 2, "high": 1}}}, "space.gamma: empty range"),
    "unknown field": ({"budget": {"trails": 10}}, "budget.trails"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_words(case: str, tmp_path: Path) -> None:
    good = pd.DataFrame({"x": [row / 7 for row in range(40)], "target": ["a", "b"] * 20})
    good.to_csv(tmp_path / "good.csv", index=False)
    (tmp_path / "empty.csv").write_text("")
    good.assign(target="a").to_csv(tmp_path / "one.csv", index=False)
    good.assign(target=[None, *good["target"][1:]]).to_csv(tmp_path / "gaps.csv", index=False)
    good.assign(x=[*good["x"][:3].astype(str), "broken", *good["x"][4:].astype(str)]).to_csv(
        tmp_path / "stray.csv", index=False
    )
    fields, message = BAD[case]
    study = {
        "name": "bad",
        "data": {"path": "good.csv", "target": "target"},
        "evaluator": {"kind": "xgboost"},
        "objective": "accuracy",
        "space": "xgboost-paper",
        **fields,
    }
    (tmp_path / "bad.yaml").write_text(json.dumps(study))
    output = rlhpo("tune", "bad.yaml", cwd=tmp_path, code=1)
    assert message in output
    assert not (tmp_path / "runs").exists()
