from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cnn
from benchmarks.cnn import Task, append, best_by_epoch, read, run, table
from tests.helpers.pictures import as_npz


def test_a_run_that_was_cut_off_goes_on_without_training_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    task = Task(as_npz(tmp_path / "corners.npz"), images=90, epochs=1, seed=0)
    run("random", task, 3, results)
    (file,) = results.glob("*.jsonl")
    whole = file.read_text()
    assert [line.get("trial") for line in read(file)] == [0, 1, 2, None]
    # The last trial was being written when it was killed.
    lines = whole.splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + lines[2][:40])
    trained: list[object] = []
    really = cnn._trained
    monkeypatch.setattr(cnn, "_trained", lambda *given: (trained.append(given[1]), really(*given))[1])
    run("random", task, 3, results)
    assert len(trained) == 1
    again = read(file)
    assert [line.get("trial") for line in again] == [0, 1, 2, None]
    assert again[2]["curve"] == json.loads(lines[2])["curve"]
    assert again[3] == json.loads(lines[3])
    run("random", task, 3, results)
    assert len(trained) == 1
    assert "| corners-90-1 | random | 1 | 3 |" in table(results)


def test_the_best_so_far_counts_epochs_and_passes_over_failures(tmp_path: Path) -> None:
    lines = [
        {"trial": 0, "curve": [0.2, 0.5], "error": None},
        {"trial": 1, "curve": [], "error": "diverged"},
        {"trial": 2, "curve": [0.4, 0.7], "error": None},
    ]
    assert best_by_epoch(lines) == [0.2, 0.5, 0.5, 0.5, 0.7]
    for line in lines:
        append(tmp_path / "a.jsonl", line)
    assert read(tmp_path / "a.jsonl") == lines
