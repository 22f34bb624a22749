"""Whole studies on a cluster, and one fault of each kind: the trials are those of one process in the end."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rlhpo_core.kubeflow import client
from rlhpo_core.kubeflow.connection import Server
from tests.cluster.places import Cluster, Place
from tests.cluster.studies import (
    ENDED,
    assert_mlflow_is_exact,
    assert_trials_of_one_process,
    files,
    history,
    runs_in_mlflow,
    submit,
    wait_for,
    wait_for_end,
    write_study,
)

#: Steps of the loop that `rlhpo submit` sends.
STEPS = ("prepare-data", "train", "learn-and-propose", "register-best", "submit-next")


@pytest.mark.quick
def test_a_chain_of_two_runs_makes_the_trials_of_one_process(place: Place) -> None:
    study, store = write_study(place.folder, "chain", rounds=2), place.store("chain")
    submit(place, study, store, "--rounds", "1")
    runs = wait_for_end(place, store, trials=4)
    assert [run["state"] for run in runs] == ["SUCCEEDED"] * 2, place.look_at(store)
    assert_trials_of_one_process(place, study, store)
    assert_mlflow_is_exact(place, store)


def strike(place: Place, store: str, fault: str, step: str) -> None:
    """Wait for the step, and do it harm."""
    pod = place.pod(step, store, place.patience / 2)
    (place.delete if fault == "deleted" else place.kill)(pod)


def every(*choices: tuple[str, ...]) -> list[Any]:
    """All combinations, each for `make e2e-cluster-all` alone."""
    return [pytest.param(*one, marks=pytest.mark.every) for one in itertools.product(*choices)]


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        pytest.param("killed", "train", marks=pytest.mark.quick),
        ("deleted", "train"),
        ("deleted", "driver"),
        *every(("killed", "deleted"), STEPS),
    ],
)
def test_a_pod_that_dies_costs_no_trial(place: Place, fault: str, step: str) -> None:
    """Deleted, it runs again; killed by exit code 137, its run fails, and the next goes on."""
    if step == "driver" and not isinstance(place, Cluster):
        pytest.skip("there are no drivers here")
    study, store = write_study(place.folder, f"{fault}-{step}", rounds=2), place.store(f"{fault}-{step}")
    submit(place, study, store, "--rounds", "1", "--supervise")
    strike(place, store, fault, step)
    wait_for_end(place, store, trials=4)
    assert_trials_of_one_process(place, study, store)
    assert_mlflow_is_exact(place, store)


@pytest.mark.parametrize(
    ("service", "step"),
    # KFP is asked at the end of a run alone.
    [("s3", "train"), ("mlflow", "train"), ("kfp", "register-best"), *every(("s3", "mlflow"), STEPS)],
)
def test_a_server_that_is_away_for_ninety_seconds_costs_no_trial(place: Place, service: str, step: str) -> None:
    """From the moment at which that step works: whoever asks next meets it, and waits."""
    study, store = write_study(place.folder, f"{service}-{step}", rounds=2), place.store(f"{service}-{step}")
    submit(place, study, store, "--rounds", "1")
    place.pod(step, store, place.patience / 2)
    with place.away(service, 90):
        runs = wait_for_end(place, store, trials=4)
    assert [run["state"] for run in runs] == ["SUCCEEDED"] * 2, place.look_at(store)
    assert_trials_of_one_process(place, study, store)
    assert_mlflow_is_exact(place, store)


def running(place: Place, study_id: str) -> list[str]:
    """Runs of the study that MLflow takes for being under way."""
    return [one.info.run_id for one in runs_in_mlflow(place.mlflow(), study_id) if one.info.status == "RUNNING"]


def test_a_run_that_is_terminated_in_kfps_pages_ends_everywhere(place: Place) -> None:
    """Nobody has asked the store: pods, KFP, MLflow and who waits come to their ends all the same."""
    study, store = write_study(place.folder, "terminated", rounds=2), place.store("terminated")
    options = ["--store", store, "--upload", *place.options, "--rounds", "1", "--wait"]
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(place.rlhpo, "submit", study, *options, code=1)
        place.pod("train", store, place.patience / 2)
        # Not by the command line, which takes as long as such a trial.
        kfp = Server.of(place.upstream["kfp"])
        (run,) = [one for one in client.runs(kfp, limit=100) if one.store == store]
        client.terminate(kfp, run.id)
        assert any(f"terminated: {state}" in waiting.result(place.patience) for state in ("FAILED", "CANCELED"))
    assert [one["state"] in ENDED for one in place.runs_of(store)] == [True], "no run follows"
    study_id = files(place, store).record().study_id
    wait_for(place, lambda: not running(place, study_id), store)
    (whole,) = [one for one in runs_in_mlflow(place.mlflow(), study_id) if one.data.tags.get("rlhpo.run") == "study"]
    assert whole.info.status == "KILLED"
    submit(place, study, store, "--rounds", "1")
    wait_for_end(place, store, trials=4)
    assert_trials_of_one_process(place, study, store)
    assert_mlflow_is_exact(place, store)


def test_a_study_that_is_stopped_goes_on_when_it_is_submitted_again(place: Place) -> None:
    study, store = write_study(place.folder, "stopped", rounds=2), place.store("stopped")
    run = submit(place, study, store, "--rounds", "1")
    place.pod("train", store, place.patience / 2)
    place.rlhpo("stop", run)
    wait_for(place, lambda: place.run(run)["state"] in ENDED, store)
    assert len(place.runs_of(store)) == 1, "no run follows"
    study_id = files(place, store).record().study_id
    wait_for(place, lambda: not running(place, study_id), store)
    assert len(history(place, store)) < 4, "what was trained before the stop is kept, and nothing else is trained"
    submit(place, study, store, "--rounds", "1")
    wait_for_end(place, store, trials=4)
    assert_trials_of_one_process(place, study, store)
    assert_mlflow_is_exact(place, store)
