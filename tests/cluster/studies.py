"""The study that is run on the cluster, and what has to be true of it when all is over."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mlflow import MlflowClient

from rlhpo_core.errors import UserError
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.trial import Trial
from tests.cluster.places import Place
from tests.helpers.comparison import comparable

#: States of a KFP run that does not go on.
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
EACH = 2


def write_study(folder: Path, name: str, rounds: int = 2, **fields: Any) -> Path:
    """A study of XGBoost on a small table, of so many rounds of two trials."""
    draw = np.random.default_rng(0)
    x, kind = draw.random(400), draw.choice(list("abc"), 400)
    label = np.where(x + (kind == "a") / 3 + draw.normal(0, 0.1, 400) > 0.7, "yes", "no")
    lines = [f"{row[0]:.6f},{row[1]},{row[2]}" for row in zip(x, kind, label, strict=True)]
    (folder / "table.csv").write_text("\n".join(["x,kind,label", *lines]) + "\n")
    study = {
        "name": name,
        "data": {"path": "table.csv", "target": "label"},
        "evaluator": {"kind": "xgboost"},
        "objective": "accuracy",
        "prior": "none",
        "space": {
            "max_depth": {"type": "int", "low": 1, "high": 6},
            "learning_rate": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
            "n_estimators": {"type": "fixed", "value": 20},
        },
        "budget": {"trials": EACH * rounds},
        "tuner": {"trials_per_round": EACH, "agent": {"nodes": 8}},
        "execution": {"threads": 1},
        **fields,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def submit(place: Place, study: Path, store: str, *more: str) -> str:
    """The id of the run that is sent."""
    said = place.rlhpo("submit", study, "--store", store, "--upload", "--json", *place.options, *more)
    return str(json.loads(said.splitlines()[-1])["run"])


def wait_for_end(place: Place, store: str, trials: int) -> list[dict[str, Any]]:
    """Wait until all trials are in the study's state and no run of it is under way; its runs, the newest first.

    Raises: AssertionError with what there is to be looked at, when the place's patience is at its end.
    """
    deadline, quiet = time.monotonic() + place.patience, 0
    while time.monotonic() < deadline:
        runs = place.runs_of(store)
        over = bool(runs) and all(run["state"] in ENDED for run in runs)
        # The next run is sent by the end of the one before: two looks lie between "all ended" and "nothing follows".
        quiet = quiet + 1 if over else 0
        if over and (len(history(place, store)) >= trials or quiet > 10):
            break
        time.sleep(2)
    else:
        raise AssertionError(f"{store} has not ended within {place.patience:.0f} s\n{place.look_at(store)}")
    found = len(history(place, store))
    assert found == trials, f"{store} has {found} of {trials} trials, and nothing runs\n{place.look_at(store)}"
    return runs


def wait_for(place: Place, condition: Callable[[], bool], store: str) -> None:
    """Wait until it holds. Raises: AssertionError with what there is to be looked at, after the place's patience."""
    deadline = time.monotonic() + place.patience
    while not condition():
        assert time.monotonic() < deadline, f"waited for {place.patience:.0f} s\n{place.look_at(store)}"
        time.sleep(2)


def files(place: Place, store: str) -> StudyFiles:
    """The study's files, read from here."""
    os.environ.update(place.environment)
    return StudyFiles(open_store(store))


def history(place: Place, store: str) -> list[Trial]:
    """The trials of the study's state; none before there is one."""
    try:
        return list(files(place, store).history().trials)
    except UserError:
        return []


def assert_trials_of_one_process(place: Place, study: Path, store: str) -> None:
    """The study's trials are those that ``rlhpo tune`` makes here; where nodes compute otherwise, the first round's."""
    out = place.folder / "alone"
    place.rlhpo("tune", study, "--out", out)
    alone = list(StudyFiles(open_store(str(out))).history().trials)
    there = history(place, store)
    count = len(alone) if place.same_processor else EACH
    assert comparable(there[:count]) == comparable(alone[:count])


def assert_mlflow_is_exact(place: Place, store: str) -> None:
    """One run of each trial, all of them finished, and the study's run as well."""
    client, trials = place.mlflow(), history(place, store)
    runs = runs_in_mlflow(client, files(place, store).record().study_id)
    own = [run for run in runs if "rlhpo.trial" in run.data.tags]
    assert sorted(int(run.data.tags["rlhpo.trial"]) for run in own) == list(range(1, len(trials) + 1))
    assert {run.info.status for run in runs} == {"FINISHED"}, place.look_at(store)


def runs_in_mlflow(client: MlflowClient, study_id: str) -> list[Any]:
    """The study's run and its trials' runs."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`rlhpo.study_id` = '{study_id}'", max_results=1000))
