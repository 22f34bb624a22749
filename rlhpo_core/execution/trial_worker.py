"""A trial worker: a fresh interpreter that builds the study's evaluator once and then evaluates trial after trial.

It talks with the pool in JSON over a pipe:

    pool → worker   evaluate (config, seed, drill, trial, watch);  stop (the trial under way)
    worker → pool   ready | failed (error)  after building;
                    report (step, value) …  done (value, metrics, step) | stopped (stop) | infeasible (error)
                    | failed (error)  for a trial

Whether a trial stops early is decided here, at the report that it follows from: a verdict that came back over the pipe
would take effect some reports later, at another one each time.

Every trial seeds the global random generators anew, so that it does not matter which worker takes it, after which
other trials.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np

from rlhpo_core.data.schema import TableSchema
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.evaluators.protocol import NO_CHECKPOINT, Checkpoint, Evaluator, Infeasible, StopTrial
from rlhpo_core.stopping.watch import Watch
from rlhpo_core.storage.checkpoints import StoredCheckpoint
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Stop

#: One message of the protocol above; ``kind`` says which.
Message = dict[str, Any]
T = TypeVar("T")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def encode(message: Message) -> bytes:
    """A message as it goes over the pipe."""
    return json.dumps(message).encode()


def work(
    connection: Connection, spec_json: str, schema_json: str | None, threads: int, checkpoints: str | None, parent: int
) -> None:
    """The life of a worker: build the evaluator, then evaluate until the parent closes the pipe.

    Args:
        connection: The worker's end of the pipe; the worker closes it by ending.
        spec_json: The study as JSON.
        schema_json: The schema by which its table is read, as JSON; ``None`` if there is none.
        threads: Of each trial.
        checkpoints: Address of the store in which trials keep what they go on from; ``None`` if they keep nothing.
        parent: Process id of the pool; the worker dies with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.setsid()
    _die_with(parent)
    schema = None if schema_json is None else TableSchema.model_validate_json(schema_json)
    evaluator = _attempt(lambda: build_evaluator(StudySpec.model_validate_json(spec_json), threads, schema))
    # An error of the pipe means that the pool is gone, or has no more use for this worker.
    with suppress(EOFError, OSError):
        if isinstance(evaluator, dict):
            connection.send_bytes(encode(evaluator))
            return
        connection.send_bytes(encode({"kind": "ready"}))
        store = None if checkpoints is None else cache(partial(open_store, checkpoints))
        while True:
            message = json.loads(connection.recv_bytes())
            # A request to stop may arrive just after the trial has ended: there is nothing left to stop.
            if message["kind"] == "evaluate":
                watch = None if message["watch"] is None else Watch.model_validate(message["watch"])
                report = _Reporter(connection, watch, evaluator.last_step(message["config"]))
                clock = time.monotonic()
                checkpoint = NO_CHECKPOINT if store is None else StoredCheckpoint(store, message["trial"])
                end = _attempt(partial(_evaluate, evaluator, message, report, checkpoint))
                # Whatever a routine makes of the signal (it may clean up and return what it had): that is no score.
                end = end if report.stop is None else {"kind": "stopped", "stop": report.stop.model_dump()}
                connection.send_bytes(encode({**end, "seconds": time.monotonic() - clock}))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the parent dies, even by SIGKILL, which leaves the parent no last word.

    The pipe tells, too, but only who reads it: not a training deep in a library, which would hold its cores for hours.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent died while this worker started")


class _Reporter:
    """Sends reports to the parent, and raises StopTrial from when the parent has asked for it, or the rule says so."""

    def __init__(self, connection: Connection, watch: Watch | None, last_step: int | None) -> None:
        self._connection = connection
        self._watch = watch
        self._last_step = last_step
        self._curve: list[tuple[int, float]] = []
        self._stop = False
        self.stop: Stop | None = None
        """Why the rule has stopped the trial, if it has."""

    def __call__(self, step: int, value: float) -> None:
        step, value = int(step), float(value)
        self._connection.send_bytes(encode({"kind": "report", "step": step, "value": value}))
        if self._watch is not None and self.stop is None and math.isfinite(value):
            self._curve.append((step, value))
            self.stop = self._watch.stop(self._curve, self._last_step)
        if self._connection.poll():
            # The parent has nothing else to say during a trial.
            self._connection.recv_bytes()
            self._stop = True
        if self._stop or self.stop is not None:
            raise StopTrial


def _evaluate(evaluator: Evaluator, message: Message, report: _Reporter, checkpoint: Checkpoint) -> Message:
    _seed_globals(message["seed"])
    if message["drill"]:
        raise RuntimeError("made to fail on purpose, by execution.drill")
    evaluation = evaluator.evaluate(message["config"], report, checkpoint)
    metrics = {str(name): float(value) for name, value in evaluation.metrics.items()}
    step = None if evaluation.step is None else int(evaluation.step)
    return {"kind": "done", "value": float(evaluation.value), "metrics": metrics, "step": step}


def _seed_globals(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _attempt(task: Callable[[], T]) -> T | Message:
    """What a task returns, or a message about what it raised."""
    try:
        return task()
    except StopTrial:
        return {"kind": "stopped", "stop": None}
    except Infeasible as reason:
        return {"kind": "infeasible", "error": str(reason)}
    except UserError as error:
        return {"kind": "failed", "error": str(error)}
    except Exception as error:  # The code is the user's or a library's: it may raise anything, and that is a result.
        return {"kind": "failed", "error": _describe(error)}


def _describe(error: BaseException) -> str:
    """The last frames, then ``Type: message`` on one line."""
    frames = traceback.format_tb(error.__traceback__, limit=-4)
    message = " ".join("".join(traceback.format_exception_only(error)).split())
    text = "".join(frames) + (message if len(message) <= 500 else message[:500] + "…")
    # File names that are not UTF-8 come as lone surrogates, which no JSON file can hold.
    return text.encode(errors="replace").decode()
