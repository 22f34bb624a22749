"""What a worker makes of a trial; that workers survive their trials is tested with the pool."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import NO_CHECKPOINT, Checkpoint, Evaluation, Infeasible, StopTrial
from rlhpo_core.execution import trial_worker
from rlhpo_core.execution.trial_worker import encode
from rlhpo_core.stopping.watch import Watch
from rlhpo_core.study.stopping_settings import MedianStopping
from tests.helpers.courses import ended


class Draws:
    """An evaluator whose score comes from the global random generators, and which reports twice."""

    def evaluate(self, config: dict[str, Any], report: Any, checkpoint: Checkpoint) -> Evaluation:
        report(np.int64(1), np.float32(0.5))
        report(2, 0.75)
        return Evaluation(value=random.random() + np.random.random(), metrics={"twice": np.float32(0.5)})  # noqa: S311


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    parents, workers = Pipe()
    yield parents, workers
    parents.close()
    workers.close()


def evaluate(workers: Connection, seed: int = 3, drill: bool = False) -> dict[str, Any]:
    message = {"kind": "evaluate", "config": {}, "seed": seed, "drill": drill}
    report = trial_worker._Reporter(workers, None, None)
    end: dict[str, Any] = trial_worker._attempt(
        lambda: trial_worker._evaluate(Draws(), message, report, NO_CHECKPOINT)  # type: ignore[arg-type]
    )
    return end


def messages(parents: Connection) -> list[dict[str, Any]]:
    received = []
    while parents.poll():
        received.append(json.loads(parents.recv_bytes()))
    return received


def test_reports_and_scores_go_out_as_json(pipe: tuple[Connection, Connection]) -> None:
    parents, workers = pipe
    end = evaluate(workers)
    assert messages(parents) == [
        {"kind": "report", "step": 1, "value": 0.5}, {"kind": "report", "step": 2, "value": 0.75},
    ]  # fmt: skip
    assert json.loads(encode(end)) == end
    assert (end["kind"], end["metrics"]) == ("done", {"twice": 0.5})


def test_a_trial_has_the_random_numbers_of_its_own_seed(pipe: tuple[Connection, Connection]) -> None:
    _, workers = pipe
    first, other, again = evaluate(workers, 3), evaluate(workers, 4), evaluate(workers, 3)
    assert first == again
    assert first["value"] != other["value"]


def test_a_request_to_stop_is_heeded_at_the_next_report(pipe: tuple[Connection, Connection]) -> None:
    parents, workers = pipe
    parents.send_bytes(encode({"kind": "stop"}))
    assert evaluate(workers) == {"kind": "stopped", "stop": None}
    assert [message["step"] for message in messages(parents)] == [1]


def test_the_rule_stops_at_the_report_that_it_follows_from_and_from_then_on(
    pipe: tuple[Connection, Connection],
) -> None:
    parents, workers = pipe
    settings = MedianStopping(rule="median", min_trials=1)
    watch = Watch(settings=settings, direction="maximize", earlier=(ended([(1, 0.4), (2, 0.8), (9, 0.9)]),))
    report = trial_worker._Reporter(workers, watch, None)
    report(1, 0.5)
    report(2, math.nan)
    for _ in range(2):
        with pytest.raises(StopTrial):
            report(2, 0.6)
    assert report.stop is not None
    assert (report.stop.step, report.stop.value) == (2, 0.6)
    assert len(messages(parents)) == 4, "what was reported is known, also that at which it stopped"


def test_a_drill_fails_before_anything_is_trained(pipe: tuple[Connection, Connection]) -> None:
    parents, workers = pipe
    end = evaluate(workers, drill=True)
    assert end["kind"] == "failed"
    assert end["error"].endswith("RuntimeError: made to fail on purpose, by execution.drill")
    assert messages(parents) == []


def raising(error: BaseException) -> dict[str, Any]:
    def task() -> dict[str, Any]:
        raise error

    return trial_worker._attempt(task)


def test_an_error_is_a_result() -> None:
    assert raising(StopTrial()) == {"kind": "stopped", "stop": None}
    assert raising(Infeasible("too small")) == {"kind": "infeasible", "error": "too small"}
    assert raising(UserError("mend it so")) == {"kind": "failed", "error": "mend it so"}
    error = raising(ValueError("too\n  deep"))["error"]
    assert "in task\n" in error, "where it was raised"
    assert error.splitlines()[-1] == "ValueError: too deep"
    assert len(raising(ValueError("x" * 9999))["error"].splitlines()[-1]) == 501
    odd = raising(OSError("cannot read " + os.fsdecode(b"caf\xe9.csv")))["error"]
    assert odd.endswith("OSError: cannot read caf?.csv")
    with pytest.raises(KeyboardInterrupt):
        raising(KeyboardInterrupt())
