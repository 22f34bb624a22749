"""Runs of an optimiser on a task, and the files that keep them: one line of JSON a run, one file an optimiser.

A trace holds the best value so far where it improved, and what the optimiser itself cost. Runs that the files hold
already are not made again, so an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks import optimisers
from benchmarks.markdown import note_versions
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import Config, Value

Floats = NDArray[np.float64]
Trace = dict[str, Any]

#: Numbers of trials at which the optimiser's CPU seconds are noted, each the mean of the CPU_WINDOW trials before it:
#: an optimiser that works in rounds has dear and cheap trials.
CPU_AT, CPU_WINDOW = (25, 50, 100, 200, 500, 1000, 2000), 20
#: How many given configurations NAME+portfolio and NAME+best begin with: as many as TPE and the Gaussian process would
#: otherwise draw at random before they start.
BEGIN_WITH = 10
#: Values are kept to this many decimals: what lies closer is a tie.
DECIMALS = 7
_PACKAGES = {"tpe": "optuna", "gp": "optuna", "cmaes": "cmaes", "smac": "smac", "ax": "ax-platform"}


class Task(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def space(self) -> SearchSpace: ...

    def evaluate(self, config: Mapping[str, Value]) -> float | None:
        """What it scores, higher is better; ``None`` if the training failed."""
        ...


@dataclass(frozen=True)
class Job:
    """One run to make. Its optimiser is named as ``optimisers.make`` takes it; what it begins with is optional."""

    optimiser: str
    task: Task
    seed: int
    trials: int
    first: tuple[Config, ...] = ()
    prior: Path | None = None
    earlier: Job | None = None
    """A run to make beforehand, which this one goes on from."""

    @property
    def key(self) -> tuple[str, str, int]:
        return self.optimiser, self.task.name, self.seed


@dataclass(frozen=True)
class Played:
    """A run in full. ``seconds`` are the optimiser's own CPU seconds a trial, ``setup`` those before the first."""

    configs: list[Config]
    values: list[float | None]
    seconds: list[float]
    setup: float
    optimiser: Any


def play(job: Job) -> Played:
    """One trial after another, in this process."""
    import torch

    torch.set_num_threads(1)
    earlier, first = None, job.first
    if job.earlier is not None:
        past = play(job.earlier)
        earlier = optimisers.Earlier(past.configs, past.values, past.optimiser)
        if job.optimiser.endswith("+best"):
            first = tuple(earlier.best(BEGIN_WITH))
    seed = optimisers.seed_of(job.task.name, job.seed)
    start = optimisers.Start(job.task.space, seed, job.trials, first, job.prior, earlier)
    began = time.process_time()
    optimiser = optimisers.make(job.optimiser, start)
    played = Played([], [], [], time.process_time() - began, optimiser)
    for _ in range(job.trials):
        began = time.process_time()
        config = optimiser.ask()
        asked = time.process_time() - began
        value = job.task.evaluate(config)
        began = time.process_time()
        optimiser.tell(config, value)
        played.seconds.append(asked + time.process_time() - began)
        played.configs.append(config)
        played.values.append(value)
    return played


def run(job: Job) -> Trace:
    return trace_of(job, play(job))


def trace_of(job: Job, played: Played) -> Trace:
    """What is kept of a run."""
    costs = {n: played.seconds[max(0, n - CPU_WINDOW) : n] for n in CPU_AT if n <= job.trials}
    return {
        "optimiser": job.optimiser,
        "task": job.task.name,
        "seed": job.seed,
        "trials": job.trials,
        "version": version(job.optimiser),
        "improvements": improvements(played.values),
        "cpu_seconds": {str(n): round(float(np.mean(seconds)), 5) for n, seconds in costs.items()},
        "cpu_total": round(played.setup + sum(played.seconds), 3),
    }


def version(optimiser: str) -> str:
    """Of the package that does the work."""
    package = _PACKAGES.get(optimiser.split("+")[0])
    return f"{package} {metadata.version(package)}" if package else ""


def improvements(values: Sequence[float | None]) -> list[tuple[int, float]]:
    """(trial counted from 1, value) wherever the best so far rises."""
    found: list[tuple[int, float]] = []
    for trial, value in enumerate(values, start=1):
        if value is None:
            continue
        rounded = round(float(value), DECIMALS)
        if not found or rounded > found[-1][1]:
            found.append((trial, rounded))
    return found


def best_so_far(trace: Trace, budgets: Sequence[int]) -> Floats:
    """The best value after each number of trials, NaN before the first that has one and beyond the end of the run."""
    trials, values = zip((0, np.nan), *trace["improvements"], strict=True)
    index = np.searchsorted(np.array(trials), np.array(budgets), side="right") - 1
    return np.where(np.array(budgets) <= trace["trials"], np.array(values)[index], np.nan)


# -- files -----------------------------------------------------------------------------------------------------------


def load(folders: Iterable[Path]) -> list[Trace]:
    """All traces in the folders' files. A run that is there twice is taken from the later folder."""
    found: dict[tuple[str, str, int], Trace] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.jsonl")):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                try:
                    trace = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{file}, line {number}: cut short; delete the line to run it again") from error
                found[(trace["optimiser"], trace["task"], trace["seed"])] = trace
    return list(found.values())


def append(folder: Path, trace: Trace) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{trace['optimiser']}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(trace, separators=(",", ":")) + "\n")


def missing(jobs: Iterable[Job], traces: Iterable[Trace]) -> list[Job]:
    """Jobs without a trace of at least as many trials."""
    done = {(trace["optimiser"], trace["task"], trace["seed"]): trace["trials"] for trace in traces}
    return [job for job in jobs if done.get(job.key, 0) < job.trials]


def run_all(jobs: Sequence[Job], folder: Path, workers: int, perform: Callable[[Job], Trace] = run) -> int:
    """Make the runs that the folder lacks, in the jobs' order; progress on stderr. Returns how many failed.

    With one worker in this process, else in processes of their own.
    """
    waiting = missing(jobs, load([folder]))
    failed = 0
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        results = map(partial(_attempt, perform), waiting)
        if workers > 1:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
            results = pool.imap_unordered(partial(_attempt, perform), waiting)
        for count, result in enumerate(results, start=1):
            if isinstance(result, str):
                failed += 1
                print(result, file=sys.stderr, flush=True)
                continue
            append(folder, result)
            note_versions(folder)
            spent = time.monotonic() - started
            line = f"{count}/{len(waiting)} {result['optimiser']} {result['task']} seed {result['seed']}"
            print(f"{line}: {result['cpu_total']:.1f} CPU s; {spent:.0f} s in all", file=sys.stderr, flush=True)
    return failed


def single_threaded() -> None:
    """To be called before NumPy and torch start their threads: by the script, so that its workers inherit it."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"


def _attempt(perform: Callable[[Job], Trace], job: Job) -> Trace | str:
    """A trace, or what went wrong: one optimiser's failure must not end the others' runs."""
    try:
        return perform(job)
    except Exception:
        return f"{job.optimiser} on {job.task.name}, seed {job.seed}, failed:\n{traceback.format_exc()}"
