"""Steps of a retuning, each in a process that kills itself at a given point.

``python -m tests.helpers.promotion_steps`` reads one step a line as JSON from standard input, carries it out in a fork,
and writes one line about it. Forks of a process that has imported everything take tenths of a second, others seconds.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import sqlalchemy
from mlflow import MlflowClient

from rlhpo_core.errors import UserError
from rlhpo_core.production import promotion, retuning
from rlhpo_core.production.gate import Measured, Verdict
from rlhpo_core.storage.lock import locked
from rlhpo_core.study.spec import StudySpec
from tests.helpers.retuned_models import registered_model

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Step:
    """Something that is done to the model."""

    action: str
    """``check``, ``decide``, ``promote`` or ``rollback``."""
    version: str
    now: float
    """Unix time in seconds; it stands still during the step."""
    after: str = ""
    """Points are counted once a file has been made whose path contains this."""
    kill: int | None = None
    """Before which point it is killed, from 1; ``None`` lets it end."""


@dataclass(frozen=True)
class Ended:
    """What a step came to."""

    killed: bool
    points: int
    """That were counted; 0 if it was killed."""
    error: str
    """The text of a UserError."""


class Processes:
    """The process that carries out steps."""

    def __init__(self, spec: StudySpec, gains: Mapping[str, float], source: str, scratch: str) -> None:
        """``source``: files of a version; ``scratch``: an empty MLflow database. Both are there to warm up with."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.promotion_steps"], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            # A fork has none of the threads that OpenMP has started, and would wait for them.
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self._write({"spec": spec.model_dump_json(), "gains": dict(gains), "source": source, "scratch": scratch})

    def run(self, step: Step) -> Ended:
        """Carry out one step."""
        self._write(asdict(step))
        assert self._process.stdout is not None
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _write(self, content: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(content) + "\n")
        self._process.stdin.flush()


class _Points:
    """Counts what changes a file or the database, and kills the process before the one that was asked for."""

    def __init__(self, step: Step) -> None:
        self.step, self.count, self.counting = step, 0, step.after == ""
        for name in ("link", "replace", "unlink"):
            setattr(os, name, self._counted(getattr(os, name)))
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", lambda connection: self.point())

    def _counted(self, effect: Callable[..., None]) -> Callable[..., None]:
        def counted(*paths: Any, **options: Any) -> None:
            self.point()
            effect(*paths, **options)
            self.counting |= self.step.after in str(paths[-1])

        return counted

    def point(self) -> None:
        self.count += self.counting
        if self.counting and self.count == self.step.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def _carry_out(step: Step, spec: StudySpec, gains: Mapping[str, float]) -> None:
    def judge(champion: str, challengers: Sequence[str]) -> dict[str, Verdict]:
        return {version: _verdict(gains[version] - gains[champion]) for version in challengers}

    promotion.locked = functools.partial(locked, clock=lambda: step.now)
    model = registered_model(spec)
    client, ledger = model.client, model.ledger
    match step.action:
        case "check":
            retuning.check(spec, model, warn=lambda text: None)
        case "decide":
            champion = promotion.champion_of(client, model.name)
            promotion.enter(client, ledger, step.version, f"study-{step.version}", champion)
            promotion.decide(client, ledger, step.version, f"study-{step.version}", "digest", judge)
        case "promote":
            promotion.promote(client, ledger, step.version, "a test")
        case "rollback":
            promotion.rollback(client, ledger, "a test")


def _verdict(gain: float) -> Verdict:
    measured = Measured(champion=0, challenger=gain, gain=gain, low=gain, high=gain, margin=0, detectable=0)
    return Verdict(
        decision="promote" if gain > 0 else "keep", reason=f"gain {gain}", metric="accuracy", rows=500,
        confidence=0.95, measured=measured,
    )  # fmt: skip


def _forked(step: Step, spec: StudySpec, gains: Mapping[str, float]) -> Ended:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        points, error = _Points(step), ""
        try:
            _carry_out(step, spec, gains)
        except UserError as raised:
            error = str(raised)
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
        os.write(writing, json.dumps({"points": points.count, "error": error[:500]}).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    return Ended(killed=killed, **({"points": 0, "error": ""} if killed else json.loads(said)))


def _warm_up(source: str, scratch: str) -> None:
    """Import what MLflow imports late. The forks' database is not opened: SQLite forbids to take it along."""
    MlflowClient(scratch).search_registered_models()
    mlflow.pyfunc.load_model(source)


def main() -> None:
    """Carry out steps until standard input ends."""
    begin = json.loads(sys.stdin.readline())
    spec = StudySpec.model_validate_json(begin["spec"])
    _warm_up(begin["source"], begin["scratch"])
    for line in sys.stdin:
        print(json.dumps(asdict(_forked(Step(**json.loads(line)), spec, begin["gains"]))), flush=True)


if __name__ == "__main__":
    main()
