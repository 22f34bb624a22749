"""Networks on images: the same study in one process and as a pipeline, and a deployed model that is retuned."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.utils.file_utils import local_file_uri_to_path

from rlhpo_core.data.images.encoded import png
from rlhpo_core.evaluators.cnn.evaluator import CNNEvaluator
from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.evaluators.metrics import measure
from rlhpo_core.production.ledger import Ledger
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.trial import TrialStatus
from tests.helpers.command_line import children, client, environment, rlhpo, trials, write_study
from tests.helpers.comparison import comparable
from tests.helpers.kfp_pipelines import RETUNING
from tests.helpers.mlflow_store import new_store
from tests.helpers.only_packages import linked, run_with
from tests.helpers.pictures import SMALL, as_folder, as_npz, as_parquet, pictures

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose studies share one MLflow store, with a folder of class folders."""
    place = tmp_path_factory.mktemp("work")
    new_store(place / "runs")
    as_folder(place / "corners")
    return place


def test_the_pipeline_has_the_trials_of_the_runner_also_those_that_are_stopped(place: Path) -> None:
    study = write_study(
        place, "corners",
        data={"path": "corners"},
        evaluator={"kind": "cnn", "epochs": 4, "params": {k: v for k, v in SMALL.items() if k != "learning_rate"}},
        objective="log_loss",
        space={"learning_rate": {"type": "float", "low": 0.0001, "high": 0.1, "log": True}},
        budget={"trials": 5},
        # Proposals that depend on no score, so that the same ones are stopped on every machine.
        tuner={"trials_per_round": 3, "mode": "random"},
        stopping="asha",
        execution={"threads": 1},
    )  # fmt: skip
    here, there = (place / "runs" / engine for engine in ("inprocess", "kfp"))
    for folder in (here, there):
        rlhpo("tune", study, "--out", folder, "--engine", folder.name, cwd=place)
    expected, found = trials(here), trials(there)
    assert comparable(found) == comparable(expected)
    stops = {trial.proposal.number: trial.stop.step for trial in expected if trial.stop is not None}
    assert stops == {4: 1}, "the first round is never stopped, and the fourth trial is the best until then"
    for trial in expected:
        assert trial.status is (TrialStatus.PRUNED if trial.proposal.number in stops else TrialStatus.COMPLETE)
        assert len(trial.curve or ()) == stops.get(trial.proposal.number, 4)
    store = client(place)
    for folder in (here, there):
        assert {run.info.status for run in children(store, folder)} == {"FINISHED"}
        assert list((folder / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("form", [as_npz, as_folder, as_parquet])
def test_init_writes_a_study_of_images_that_runs(form: Callable[..., Path], place: Path) -> None:
    name = form.__name__.removeprefix("as_")
    data = form(place / f"new-{name}{'' if form is as_folder else '.' + name}")
    target = ("--target", "corner") if form is as_parquet else ()
    output = rlhpo("init", "--data", data, *target, "--out", f"{name}.yaml", cwd=place)
    assert "90 images of 10 × 10 pixels, grey; there are 3 classes, so classification by accuracy" in output
    output = rlhpo("tune", f"{name}.yaml", "--trials", "1", cwd=place)
    assert f"registered new-{name} version 1" in output


def arrive(folder: Path, x: Any, y: list[str]) -> None:
    """New images are there, in place of those before."""
    np.savez(folder / "current.npz", x=x[..., 0], y=np.array(y))


def deployed(folder: Path, epochs: int) -> Path:
    """The study of a model in production."""
    return write_study(
        folder, "corners",
        data={"path": "current.npz", "holdout": 0.4},
        evaluator={"kind": "cnn", "epochs": epochs, "params": {k: v for k, v in SMALL.items() if k != "learning_rate"}},
        objective="accuracy",
        space={"learning_rate": {"type": "float", "low": 0.04, "high": 0.06}},
        budget={"trials": 2},
        tuner={"trials_per_round": 2},
        execution={"workers": 1, "threads": 1},
        registry={"model": "corners", "store": "registry", "must_beat_constant": False},
        gate={"margin": 0.0, "latency_ratio": None, "size_ratio": None, "log_loss_increase": None, "min_rows": 20},
    )  # fmt: skip


def aliases(folder: Path) -> dict[str, str]:
    registered = client(folder).get_registered_model("corners")
    return {alias: str(version) for alias, version in registered.aliases.items()}


def outcomes(folder: Path) -> list[str]:
    return [record.outcome for record in Ledger.of("corners", str(folder / "registry")).records()]


ALONE = """
import mlflow.pyfunc, numpy, pandas
model = mlflow.pyfunc.load_model({source!r})
for name in ("arrays", "encoded"):
    rows = pandas.DataFrame({{"image": list(numpy.load(name + ".npy", allow_pickle=True))}})
    numpy.save("answer-" + name, model.predict(rows).drop(columns="prediction").to_numpy())
"""


def test_a_deployed_network_is_retuned_served_and_rolled_back(tmp_path: Path) -> None:
    new_store(tmp_path / "runs")
    x, y = pictures(420)
    arrive(tmp_path, x[:120], y[:120])
    rlhpo("tune", deployed(tmp_path, epochs=1), cwd=tmp_path)
    assert aliases(tmp_path)["champion"] == "1"
    study = deployed(tmp_path, epochs=12)
    assert "unchanged: the data is that of the champion" in rlhpo("retune", study, cwd=tmp_path)

    # Images of half the brightness, some of which the champion knows as they were.
    arrive(tmp_path, x[60:] // 2, y[60:])
    output = rlhpo("retune", study, cwd=tmp_path)
    assert "grey mean" in output
    assert "promoted: accuracy" in output
    assert aliases(tmp_path) == {"champion": "2", "previous": "1"}

    # Where there are only PyTorch and MLflow, it gives the holdout's score that was registered, to the last bit.
    store = client(tmp_path)
    version = store.get_model_version("corners", "2")
    tuned = StudyFolder.open(tmp_path / "runs" / "corners-2")
    winner = tuned.record().winner
    assert winner is not None
    logged = store.get_run(version.run_id).data.metrics
    assert {name: logged[f"holdout.{name}"] for name in winner.holdout} == winner.holdout
    evaluator = build_evaluator(tuned.spec(), 1, tuned.schema())
    assert isinstance(evaluator, CNNEvaluator)
    rows = evaluator.split.holdout
    images = evaluator.images.pixels[rows, :, :, 0]
    np.save(tmp_path / "arrays.npy", images)
    np.save(tmp_path / "encoded.npy", np.array([png(image[..., None]) for image in images], dtype=object))
    source = local_file_uri_to_path(store.get_model_version_download_uri("corners", "2"))
    assert {Path(name).suffix for name in os.listdir(f"{source}/artifacts")} <= {".json", ".npy", ".safetensors"}
    ended = run_with(linked(tmp_path / "site", "torch", "mlflow"), ALONE.format(source=source), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for form in ("arrays", "encoded"):
        assert measure(evaluator.images, rows, np.load(tmp_path / f"answer-{form}.npy")) == winner.holdout

    output = rlhpo("rollback", "corners", "--store", "registry", "--reason", "complaints", cwd=tmp_path)
    assert "the champion is version 1, before that version 2" in output
    assert aliases(tmp_path) == {"champion": "1", "previous": "2"}
    assert outcomes(tmp_path) == ["skipped", "promoted", "rolled_back"]
    output = rlhpo("audit", "corners", "--store", "registry", cwd=tmp_path)
    assert "complaints" in output
    assert "1 → 2" in output


def test_the_retuning_pipeline_promotes_a_network(tmp_path: Path) -> None:
    new_store(tmp_path / "runs")
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs/mlflow.db"}
    x, y = pictures(420)
    arrive(tmp_path, x[:120], y[:120])
    rlhpo("tune", deployed(tmp_path, epochs=1), cwd=tmp_path, **uri)
    arrive(tmp_path, x[60:] // 2, y[60:])
    study = deployed(tmp_path, epochs=12)
    command = [sys.executable, "-c", RETUNING, str(study), str(tmp_path / "place"), str(tmp_path / "root")]
    process = subprocess.run(command, env=environment(**uri), cwd=tmp_path, text=True, capture_output=True, check=False)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    assert aliases(tmp_path) == {"champion": "2", "previous": "1"}
    assert outcomes(tmp_path) == ["promoted"]
    (tuned,) = (tmp_path / "place" / "studies").iterdir()
    assert list((tuned / "checkpoints").iterdir()) == []
