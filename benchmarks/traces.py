"""Runs of an optimiser on a task, and the files that keep them: one line of JSON a run, one file an optimiser.

A trace holds the best value so far where it improved, and what the optimiser itself cost. Runs that the files hold
already are not made again, so an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks import optimisers
from rlhpo_core.space import SearchSpace
from rlhpo_core.trial import Config, Value

Floats = NDArray[np.float64]
Trace = dict[str, Any]

#: Numbers of trials at which the optimiser's CPU seconds are noted, each the mean of the CPU_WINDOW trials before it:
#: an optimiser that works in rounds has dear and cheap trials.
CPU_AT, CPU_WINDOW = (25, 50, 100, 200, 500, 1000, 2000), 20
#: Values are kept to this many decimals: what lies closer is a tie.
DECIMALS = 7
_PACKAGES = {"tpe": "optuna", "gp": "optuna", "cmaes": "cmaes", "smac": "smac", "ax": "ax-platform"}


class Task(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def space(self) -> SearchSpace: ...

    def evaluate(self, config: Mapping[str, Value]) -> float: ...


@dataclass(frozen=True)
class Job:
    """One run to make. Its optimiser is named as ``optimisers.make`` takes it."""

    optimiser: str
    task: Task
    seed: int
    trials: int
    first: tuple[Config, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        return self.optimiser, self.task.name, self.seed


def run(job: Job) -> Trace:
    """One trial after another, in this process."""
    import torch

    torch.set_num_threads(1)
    seed = optimisers.seed_of(job.task.name, job.seed)
    start = optimisers.Start(job.task.space, seed, job.trials, job.first)
    began = time.process_time()
    optimiser = optimisers.make(job.optimiser, start)
    setup = time.process_time() - began
    values, seconds = [], []
    for _ in range(job.trials):
        began = time.process_time()
        config = optimiser.ask()
        asked = time.process_time() - began
        value = job.task.evaluate(config)
        began = time.process_time()
        optimiser.tell(config, value)
        values.append(value)
        seconds.append(asked + time.process_time() - began)
    costs = {str(n): round(float(np.mean(seconds[max(0, n - CPU_WINDOW) : n])), 5) for n in CPU_AT if n <= job.trials}
    return {
        "optimiser": job.optimiser,
        "task": job.task.name,
        "seed": job.seed,
        "trials": job.trials,
        "version": version(job.optimiser),
        "improvements": improvements(values),
        "cpu_seconds": costs,
        "cpu_total": round(setup + sum(seconds), 3),
    }


def version(optimiser: str) -> str:
    """Of the package that does the work."""
    package = _PACKAGES.get(optimiser.removeprefix("portfolio-"))
    return f"{package} {metadata.version(package)}" if package else ""


def improvements(values: Sequence[float]) -> list[tuple[int, float]]:
    """(trial counted from 1, value) wherever the best so far rises."""
    found: list[tuple[int, float]] = []
    for trial, value in enumerate(values, start=1):
        rounded = round(float(value), DECIMALS)
        if not found or rounded > found[-1][1]:
            found.append((trial, rounded))
    return found


def best_so_far(trace: Trace, budgets: Sequence[int]) -> Floats:
    """The best value after each number of trials, NaN beyond the end of the run."""
    trials, values = zip(*trace["improvements"], strict=True)
    index = np.searchsorted(np.array(trials), np.array(budgets), side="right") - 1
    return np.where(np.array(budgets) <= trace["trials"], np.array(values)[index], np.nan)


# -- files -----------------------------------------------------------------------------------------------------------


def load(folders: Iterable[Path]) -> list[Trace]:
    """All traces in the folders' files. A run that is there twice is taken from the later folder."""
    found: dict[tuple[str, str, int], Trace] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.jsonl")):
            for line in file.read_text(encoding="utf-8").splitlines():
                trace = json.loads(line)
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


def run_all(jobs: Sequence[Job], folder: Path, workers: int) -> int:
    """Make the runs that the folder lacks, in the jobs' order; progress on stderr. Returns how many failed."""
    waiting = missing(jobs, load([folder]))
    failed = 0
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_one_thread) as pool:
        for count, result in enumerate(pool.imap_unordered(_attempt, waiting), start=1):
            if isinstance(result, str):
                failed += 1
                print(result, file=sys.stderr, flush=True)
                continue
            append(folder, result)
            spent = time.monotonic() - started
            line = f"{count}/{len(waiting)} {result['optimiser']} {result['task']} seed {result['seed']}"
            print(f"{line}: {result['cpu_total']:.1f} CPU s; {spent:.0f} s in all", file=sys.stderr, flush=True)
    return failed


def single_threaded() -> None:
    """To be called before NumPy and torch start their threads: by the script, so that its workers inherit it."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _attempt(job: Job) -> Trace | str:
    """A trace, or what went wrong: one optimiser's failure must not end the others' runs."""
    try:
        return run(job)
    except Exception:
        return f"{job.optimiser} on {job.task.name}, seed {job.seed}, failed:\n{traceback.format_exc()}"
