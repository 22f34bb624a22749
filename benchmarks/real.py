"""Real trainings: XGBoost on tables, rlhpo with and without prior against TPE and random search.

    python benchmarks/real.py --data DIR --optimisers random,tpe,rlhpo,rlhpo+prior --trials 50 --seeds 3
    python benchmarks/real.py --print

Validation error of the best configuration so far, its error on a holdout that no trial has seen (refitted on training +
validation rows), and the wall time that this took, optimiser included. One thread. A training that takes longer than
--timeout fails, as it would in a study with a trial_timeout. Runs are kept as in the other benchmarks.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.stats import rankdata

from benchmarks import optimisers, traces
from rlhpo_core.evaluators.protocol import StopTrial
from rlhpo_core.space.search_space import SearchSpace, builtin_space
from rlhpo_core.trial import Value

#: Runs of each optimiser.
Own = Mapping[str, Sequence[traces.Trace]]
BUDGETS = (1, 2, 5, 10, 25, 50)
SECONDS = (5, 15, 60, 300)
RESULTS = Path(__file__).parent / "results" / "real"
#: Data sets that no source task of the shipped prior is about.
TABLES = ("breast_cancer_wisconsin_original", "car", "german_credit", "htru2", "wilt")
IMAGES = Path(__file__).parents[1] / "docs" / "images"
MOST_ROWS = 1500
SPACE, PRIOR = "xgboost-wide", "xgboost-wide"


@dataclass(frozen=True)
class TableTask:
    """A table to tune XGBoost on, divided by the seed into training, validation and holdout rows."""

    folder: Path
    table: str
    space_name: str
    seed: int
    timeout: float
    """Seconds that a trial may take."""

    @property
    def name(self) -> str:
        return f"{self.space_name}/{self.table}"

    @cached_property
    def space(self) -> SearchSpace:
        return builtin_space(self.space_name)

    def evaluate(self, config: Mapping[str, Value]) -> float | None:
        """Accuracy on the validation rows; ``None`` if it took too long."""
        ends = time.monotonic() + self.timeout

        def watch(step: int, value: float) -> None:
            if time.monotonic() > ends:
                raise StopTrial

        try:
            return float(_evaluator(self).evaluate(dict(config), watch).value)
        except StopTrial:
            return None

    def holdout(self, config: Mapping[str, Value]) -> float:
        return float(_evaluator(self).refit(dict(config)).metrics["accuracy"])


@cache
def _evaluator(task: TableTask) -> Any:
    """Its one thread is the run's."""
    from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
    from rlhpo_core.study.spec import StudySpec

    spec = StudySpec.model_validate(
        {
            "name": "real",
            "seed": task.seed,
            "data": {"path": str(task.folder / f"{task.table}.csv"), "target": "target", "max_rows": MOST_ROWS},
            "evaluator": {"kind": "xgboost"},
            "objective": "accuracy",
            "space": task.space_name,
            "budget": {"trials": 1},
        }
    )
    return XGBoostEvaluator(spec, threads=1)


class Clocked:
    """A task that notes when each trial ended; the clock starts with the first look at the space."""

    def __init__(self, task: TableTask) -> None:
        self._task = task
        self.ends: list[float] = []
        self.name, self.space = task.name, task.space
        _evaluator(task)
        self._began = time.monotonic()

    def evaluate(self, config: Mapping[str, Value]) -> float | None:
        value = self._task.evaluate(config)
        self.ends.append(time.monotonic() - self._began)
        return value


def run(job: traces.Job) -> traces.Trace:
    """A trace with the holdout's accuracy at each improvement, and the wall seconds at each trial that is reported."""
    task = job.task
    assert isinstance(task, TableTask)
    clocked = Clocked(task)
    played = traces.play(traces.Job(job.optimiser, clocked, job.seed, job.trials, prior=job.prior))
    found = traces.improvements(played.values)
    return traces.trace_of(job, played) | {
        "holdout": [round(task.holdout(played.configs[trial - 1]), traces.DECIMALS) for trial, _ in found],
        "improved_at": [round(clocked.ends[trial - 1], 2) for trial, _ in found],
        "seconds": round(clocked.ends[-1], 2),
        "timed_out": played.values.count(None),
    }


def at_trials(trace: traces.Trace, part: str, budgets: Sequence[float]) -> list[float]:
    """Error after each number of trials; NaN before the first that did not fail, and beyond the end of the run."""
    trials = [trial for trial, _ in trace["improvements"]]
    first = trials[0] if trials else math.inf
    return [_error(trace, part, trials, budget, first <= budget <= trace["trials"]) for budget in budgets]


def at_seconds(trace: traces.Trace, part: str, budgets: Sequence[float]) -> list[float]:
    """Error after each wall time; NaN before the first trial has ended. A finished run keeps its last error."""
    first = trace["improved_at"][0] if trace["improved_at"] else math.inf
    return [_error(trace, part, trace["improved_at"], budget, budget >= first) for budget in budgets]


def _error(trace: traces.Trace, part: str, marks: Sequence[float], budget: float, there: bool) -> float:
    values = trace["holdout"] if part == "holdout" else [value for _, value in trace["improvements"]]
    return 1 - float(values[int(np.searchsorted(marks, budget, side="right")) - 1]) if there else float("nan")


def comparable(found: Sequence[traces.Trace]) -> Own:
    """Each optimiser's runs on the tables and seeds that all of them have."""
    names = sorted({trace["optimiser"] for trace in found})
    pairs = [{_pair(trace) for trace in found if trace["optimiser"] == name} for name in names]
    common = set.intersection(*pairs) if pairs else set()
    kept = [trace for trace in sorted(found, key=_pair) if _pair(trace) in common]
    return {name: [trace for trace in kept if trace["optimiser"] == name] for name in names}


def print_tables(own: Own) -> None:
    """Mean errors, mean ranks, and the last error on each table."""
    names = list(own)
    if not names or not own[names[0]]:
        print("no table has been run with all optimisers yet")
        return
    tables = sorted({trace["task"] for trace in own[names[0]]})
    print(f"tables: {len(tables)}, runs of each optimiser: {len(own[names[0]])}")
    print("\n| a run, on average | seconds | trials that took too long |\n|---|---|---|")
    for name in names:
        seconds, late = (np.mean([trace[key] for trace in own[name]]) for key in ("seconds", "timed_out"))
        print(f"| {name} | {seconds:.0f} | {late:.1f} of {own[name][0]['trials']} |")
    for part in ("validation", "holdout"):
        for axis, budgets, errors in (("trials", BUDGETS, at_trials), ("seconds", SECONDS, at_seconds)):
            print(f"\n| mean {part} error after {axis} | " + " | ".join(str(budget) for budget in budgets) + " |")
            print("|---|" + "---|" * len(budgets))
            for name in names:
                rows = np.array([errors(trace, part, budgets) for trace in own[name]])
                print(f"| {name} | " + " | ".join(_cell(column) for column in rows.T) + " |")
        _print_ranks(part, own)
        print(f"\n| last {part} error | " + " | ".join(tables) + " |")
        print("|---|" + "---|" * len(tables))
        for name in names:
            last = {
                table: [at_trials(trace, part, [trace["trials"]])[0] for trace in own[name] if trace["task"] == table]
                for table in tables
            }
            print(f"| {name} | " + " | ".join(f"{np.mean(last[table]):.4f}" for table in tables) + " |")


def _print_ranks(part: str, own: Own) -> None:
    """Mean ranks by error, 1 the best, ties shared: tables differ in how large errors are."""
    print(f"\n| mean rank by {part} error after trials | " + " | ".join(str(budget) for budget in BUDGETS) + " |")
    print("|---|" + "---|" * len(BUDGETS))
    errors = np.array([[at_trials(trace, part, BUDGETS) for trace in of] for of in own.values()])
    there = ~np.isnan(errors).any(axis=(0, 1))
    for name, ranks in zip(own, rankdata(errors, axis=0), strict=True):
        cells = (f"{mean:.2f}" if known else "–" for mean, known in zip(ranks.mean(axis=0), there, strict=True))
        print(f"| {name} | " + " | ".join(cells) + " |")


def _pair(trace: traces.Trace) -> tuple[str, int]:
    return trace["task"], trace["seed"]


def plot(own: Own, file: Path) -> None:
    """Mean validation error by trials and by wall time; it begins where every run has ended a trial."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    every = [trace for of in own.values() for trace in of]
    if not every:
        return
    trials = [float(n) for n in range(1, 1 + min(trace["trials"] for trace in every))]
    seconds = np.geomspace(0.1, max(trace["seconds"] for trace in every), 200).tolist()
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for axis, label, marks, errors in zip(
        axes, ("trials", "seconds of wall time"), (trials, seconds), (at_trials, at_seconds), strict=True
    ):
        for index, (name, of) in enumerate(own.items()):
            mean = np.array([errors(trace, "validation", marks) for trace in of]).mean(axis=0)
            style = "-" if name.startswith("rlhpo") else "--"
            axis.step(marks, np.maximum(mean, 1e-4), style, where="post", color=f"C{index}", label=name)
        axis.set(xscale="log", yscale="log", xlabel=label)
    axes[0].set(ylabel="mean validation error")
    axes[0].legend(fontsize=8)
    tables = len({trace["task"] for trace in every})
    figure.suptitle(f"XGBoost on {tables} real tables, {len(every) // len(own)} runs an optimiser", fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _cell(values: Any) -> str:
    return "–" if np.isnan(values).any() else f"{np.mean(values):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the tables (NAME.csv, last column `target`)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--optimisers", default="random,tpe,rlhpo,rlhpo+prior", help=f"some of {', '.join(optimisers.names())}"
    )
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--space", default=SPACE, help=f"a built-in space; {SPACE} if not given")
    parser.add_argument(
        "--prior", type=Path, default=Path(PRIOR), help="what NAME+prior begins with: built in, or a file"
    )
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds that a trial may take")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder for the plot")
    parser.add_argument("--workers", type=int, default=1, help="runs at once, one thread each")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    given = parser.parse_args()
    failed = 0
    if not given.only_print:
        if given.data is None:
            parser.error("--data: where are the tables?")
        chosen = given.optimisers.split(",")
        jobs = [
            traces.Job(
                name,
                TableTask(given.data, table, given.space, seed, given.timeout),
                seed,
                given.trials,
                prior=given.prior if name.endswith("+prior") else None,
            )
            for seed in range(given.seeds)
            for table in given.tables.split(",")
            for name in chosen
        ]
        failed = traces.run_all(jobs, given.results, given.workers, run)
    own = comparable([trace for trace in traces.load([given.results]) if trace["task"].startswith(given.space + "/")])
    print_tables(own)
    plot(own, given.images / "real.png")
    sys.exit(failed > 0)


if __name__ == "__main__":
    traces.single_threaded()
    main()
