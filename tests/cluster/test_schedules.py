"""Schedules on a cluster: they run, are replaced without harm to what runs, and end."""

from __future__ import annotations

import json
import time

import pytest

from tests.cluster.places import Place
from tests.cluster.studies import ENDED, assert_trials_of_one_process, wait_for_end, write_study

EACH_MINUTE, NEVER = "0 * * * * *", "0 0 0 1 1 *"


def test_a_schedule_runs_is_replaced_and_goes(place: Place) -> None:
    study, store = write_study(place.folder, "scheduled", rounds=1), place.store("scheduled")
    options = ["--store", store, "--upload", *place.options]
    place.rlhpo("schedule", study, *options, "--cron", EACH_MINUTE)
    tick(place)
    run = first_run(place, store)
    # Under way, it is not to be harmed.
    said = place.rlhpo("schedule", study, *options, "--cron", NEVER, code=1)
    assert said == ""
    place.rlhpo("schedule", study, *options, "--cron", NEVER, "--under-way", "wait")
    assert place.run(run)["state"] == "SUCCEEDED", place.look_at(store)
    wait_for_end(place, store, trials=2)
    assert_trials_of_one_process(place, study, store)
    place.rlhpo("unschedule", "scheduled")
    place.rlhpo("unschedule", "scheduled", code=1)


def tick(place: Place) -> None:
    """Here the schedule's time comes when a test says so; on a cluster by itself, within a minute."""
    cluster = getattr(place, "cluster", None)
    if cluster is not None:
        for schedule in list(cluster.recurring_runs):
            cluster.tick(schedule)


def first_run(place: Place, store: str) -> str:
    """The run that the schedule has started. Raises: AssertionError when none comes."""
    deadline = time.monotonic() + place.patience / 2
    while time.monotonic() < deadline:
        if runs := place.runs_of(store):
            assert runs[-1]["schedule"], json.dumps(runs)
            return str(runs[-1]["run"])
        time.sleep(2)
    pytest.fail(f"no scheduled run came\n{place.look_at(store)}")


def test_a_schedule_of_a_finished_study_ends_itself(place: Place) -> None:
    study, store = write_study(place.folder, "finished", rounds=1), place.store("finished")
    options = ["--store", store, "--upload", *place.options]
    place.rlhpo("submit", study, *options)
    wait_for_end(place, store, trials=2)
    place.rlhpo("schedule", study, *options, "--cron", EACH_MINUTE)
    deadline, before = time.monotonic() + place.patience, len(place.runs_of(store))
    while (idle := len(place.runs_of(store)) - before) < 3 or any(
        run["state"] not in ENDED for run in place.runs_of(store)
    ):
        assert time.monotonic() < deadline, f"{idle} runs came\n{place.look_at(store)}"
        if all(run["state"] in ENDED for run in place.runs_of(store)):
            tick(place)
        time.sleep(2)
    time.sleep(5)
    tick(place)
    time.sleep(0 if hasattr(place, "cluster") else 90)
    assert len(place.runs_of(store)) == before + 3, "paused after three idle runs"
    place.rlhpo("unschedule", "finished")
