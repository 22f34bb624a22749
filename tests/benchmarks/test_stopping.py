"""The benchmark of rules that stop trials, on a table that is trained in moments."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import stopping, traces
from benchmarks.reported import TableTask, run_missing


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TableTask:
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    features = rng.random((120, 3))
    rows = [",".join(map(str, [*row, row @ [1, 2, 3] + rng.normal() / 10])) for row in features]
    (folder / "small.csv").write_text("\n".join(["x,y,z,target", *rows]))
    return TableTask(folder, "small", 0)


def test_runs_are_kept_and_compared_at_equal_time(task: TableTask, tmp_path: Path) -> None:
    arms = ["rlhpo+none", "rlhpo+median"]
    run_missing(task, arms, stopping.BASELINES, 12, 3, tmp_path)
    base, other = sorted(traces.load([tmp_path]), key=lambda trace: trace["stopped"])
    assert (base["optimiser"], base["trained"], base["stopped"]) == ("rlhpo+none", 12, 0)
    assert (other["optimiser"], other["trials"]) == ("rlhpo+median", 36)
    assert other["stopped"] > 0
    assert other["trained"] == 36 or other["seconds"] >= base["seconds"]
    assert all(seconds <= base["seconds"] for seconds, _ in other["improvements"])
    for trace in (base, other):
        errors = [error for _, error in trace["improvements"]]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1.0
        assert trace["holdout"] < 1.0
    written = {file: file.read_bytes() for file in tmp_path.glob("*.jsonl")}
    run_missing(task, arms, stopping.BASELINES, 12, 3, tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.glob("*.jsonl")} == written, "nothing is run twice"
    (made,) = stopping.tables(traces.load([tmp_path]))
    assert "| tables | runs |" in made
    assert "| rlhpo+none | 1 |" in made
    assert "| 1.00 | 100 % | 1.000 ± nan | 1.000 ± nan | 12 | 0 % |" in made


def test_the_time_to_an_error_is_infinite_if_it_was_not_reached() -> None:
    trace = {"improvements": [(1.0, 0.5), (4.0, 0.25)]}
    assert [stopping.time_to(trace, error) for error in (0.6, 0.5, 0.3, 0.25, 0.1)] == [1, 1, 4, 4, math.inf]


def test_a_run_that_did_not_come_to_the_error_counts_with_all_the_time() -> None:
    base = {"improvements": [(1.0, 0.5), (4.0, 0.25)], "seconds": 8.0}
    assert stopping.share(base, base) == 0.5
    assert stopping.share({"improvements": [(7.0, 0.3)], "seconds": 8.0}, base) == 1.0


def test_without_runs_there_is_no_table() -> None:
    assert stopping.tables([]) == []
