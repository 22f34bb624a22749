"""The benchmark of networks, on pictures that are learnt in moments."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cnn
from benchmarks.reported import ImageTask, run_missing
from benchmarks.traces import load
from tests.helpers.pictures import as_npz


def test_one_arm_sets_the_time_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ImageTask(as_npz(tmp_path / "corners.npz"), images=90, epochs=3, seed=0)
    monkeypatch.setattr(cnn, "CLOCK", "rlhpo+none")
    run_missing(task, ["rlhpo+none", "rlhpo+asha"], {"rlhpo+asha": "rlhpo+none"}, 6, 2, tmp_path / "results")
    base, other = sorted(load([tmp_path / "results"]), key=lambda trace: trace["optimiser"], reverse=True)
    assert (base["trained"], base["stopped"]) == (6, 0)
    assert other["trained"] == 12 or other["seconds"] >= base["seconds"]
    assert all(seconds <= base["seconds"] for seconds, _ in other["improvements"])
    assert all(0 <= trace["holdout"] <= 1 for trace in (base, other))
    made = cnn.table([base, other])
    assert "| corners, 90 images, 3 epochs | rlhpo, no stopping | 1 |" in made
    assert "| corners, 90 images, 3 epochs | rlhpo, asha | 1 |" in made


def test_how_fast_trials_are_is_told(tmp_path: Path) -> None:
    said = cnn.speed(as_npz(tmp_path / "corners.npz"), 90, 1, "cpu", minutes=0.02)
    assert "trials a minute" in said
    assert "best error" in said
