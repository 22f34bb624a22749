"""Retunings of a model on a cluster: quiet, promoted, rolled back, and one whose pod dies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.cluster.places import Place
from tests.cluster.studies import ENDED, submit, wait_for, write_study


def arrive(folder: Path, month: int) -> None:
    """A month's table under the study's name: in the second, the label's meaning has turned."""
    draw = np.random.default_rng(month)
    x, noise = draw.random(600), draw.normal(0, 0.05, 600)
    label = np.where((x + noise > 0.5) == (month == 0), "yes", "no")
    rows = [
        f"{value:.6f},{kind},{one}" for value, kind, one in zip(x, draw.choice(list("abc"), 600), label, strict=True)
    ]
    (folder / "table.csv").write_text("\n".join(["x,kind,label", *rows]) + "\n")


def test_a_model_is_left_alone_promoted_and_rolled_back(place: Place) -> None:
    store = place.store("model")
    model = f"e2e-{store.rsplit('/', 1)[1]}"
    study = write_study(
        place.folder, "retuned", rounds=1, registry={"model": model},
        gate={"margin": 0.02, "min_rows": 100, "latency_ratio": None},
        data={"path": "table.csv", "target": "label", "holdout": 0.3},
    )  # fmt: skip
    client = place.mlflow()

    def retune() -> None:
        run = submit(place, study, store, "--retune")
        wait_for(place, lambda: place.run(run)["state"] in ENDED, store)
        assert place.run(run)["state"] == "SUCCEEDED", place.look_at(store)

    def champion() -> str:
        return str(client.get_registered_model(model).aliases["champion"])

    arrive(place.folder, 0)
    retune()
    assert champion() == "1", "the first model becomes champion"
    retune()
    assert champion() == "1"
    assert len(client.search_model_versions(f"name = '{model}'")) == 1, "nothing was trained on the same table"
    arrive(place.folder, 1)
    retune()
    assert champion() == "2"
    ledger = ["--store", f"{store}/registry"]
    place.rlhpo("rollback", model, *ledger, "--reason", "a test")
    assert champion() == "1"
    told = place.rlhpo("audit", model, *ledger)
    assert [word in told for word in ("promoted", "a test")] == [True, True]


def test_a_retuning_whose_trial_is_killed_is_in_the_log(place: Place) -> None:
    store = place.store("killed-retuning")
    model = f"e2e-{store.rsplit('/', 1)[1]}"
    study = write_study(place.folder, "killed-retuning", rounds=1, registry={"model": model})
    arrive(place.folder, 0)
    run = submit(place, study, store, "--retune")
    place.kill(place.pod("train", store, place.patience / 2))
    wait_for(place, lambda: place.run(run)["state"] in ENDED, store)
    assert place.run(run)["state"] == "FAILED", place.look_at(store)
    (record,) = map(json.loads, place.rlhpo("audit", model, "--json", "--store", f"{store}/registry").splitlines())
    assert (record["outcome"], record["run"]) == ("failed", run)
    assert "trials trained: " in record["reason"]
