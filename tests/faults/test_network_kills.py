"""A few kills inside the trainings of networks; `python -m tests.soak --networks` makes as many as are wanted."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.soak import networks
from tests.soak.networks import PLACES, STEP, TUNE, WORKER, Kill, draw, judge

ROOT = Path(__file__).parents[2]


def first(whom: str, *places: str) -> int:
    """The first seed that draws such a kill."""
    return next(seed for seed in itertools.count(1) if (kill := draw(seed)).whom == whom and kill.place in places)


@pytest.mark.timeout(600)
def test_trials_that_are_killed_go_on_to_the_same_weights(tmp_path: Path) -> None:
    """A worker, the whole of ``rlhpo tune`` and a step of the pipeline; in an epoch and while a checkpoint is kept."""
    seeds = [first(WORKER, PLACES[0]), first(TUNE, PLACES[1]), first(STEP, *PLACES[2:4])]
    command = [sys.executable, "-m", "tests.soak", "--networks", "--work", tmp_path, "--seeds", *seeds]
    ended = subprocess.run(
        list(map(str, command)), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 of 3 went on from their checkpoint to the same weights" in ended.stdout
    assert not list(tmp_path.glob("network-*"))


def test_the_seeds_draw_all_kills() -> None:
    drawn = [draw(seed) for seed in range(1, 51)]
    assert drawn == [draw(seed) for seed in range(1, 51)]
    assert {kill.whom for kill in drawn} == {WORKER, TUNE, STEP}
    assert {kill.place for kill in drawn} == set(PLACES)
    assert {kill.unnamed for kill in drawn} == {True, False}
    assert not any(kill.whom == WORKER and kill.place in PLACES[-2:] for kill in drawn)


def kill(place: str) -> Kill:
    return Kill(seed=1, whom=TUNE, place=place, trial=0, epoch=3, share=0.5, unnamed=True)


def course(*steps: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"key": "a", "what": what, "epoch": epoch} for what, epoch in steps]


BEFORE = (("begin", 0), ("kept", 1), ("kept", 2), ("kill", 0))


@pytest.mark.parametrize(
    ("place", "after", "wrong"),
    [
        (PLACES[1], (("begin", 2), ("end", 0)), None),
        (PLACES[1], (("begin", 0), ("end", 0)), "went on from epochs [0]"),
        (PLACES[1], (("begin", 3), ("end", 0)), "went on from epochs [3]"),
        (PLACES[0], (("begin", 3), ("end", 0)), None),
        (PLACES[1], (), "went on from epochs []"),
        (PLACES[4], (), None),
        (PLACES[5], (("begin", 5),), "trained again"),
    ],
)
def test_a_trial_that_did_not_go_on_is_found_out(
    place: str, after: tuple[tuple[str, int], ...], wrong: str | None
) -> None:
    found = judge(course(*BEFORE, *after), kill(place), "a")
    assert (found == []) == (wrong is None)
    assert wrong is None or wrong in found[0]


def test_other_weights_are_found_out(tmp_path: Path) -> None:
    lines = ['{"key": "a", "what": "end", "digest": "1"}', '{"key": "a", "what": "end", "digest": "2"}']
    (tmp_path / networks.NOTES).write_text("\n".join(lines))
    assert networks.weights(tmp_path) == {"a": ["1", "2"]}
