"""Real trainings: XGBoost on tables, rlhpo with and without prior against TPE and random search.

    python -m benchmarks.real --data DIR --optimisers random,tpe,rlhpo,rlhpo+prior --trials 50 --seeds 3
    python -m benchmarks.real --print

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

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from benchmarks import markdown, optimisers, report, traces
from rlhpo_core.evaluators.protocol import StopTrial
from rlhpo_core.space.search_space import SearchSpace, builtin_space
from rlhpo_core.trial import Value

#: Runs of each optimiser.
Runs = Mapping[str, Sequence[traces.Trace]]
BUDGETS = (1, 2, 5, 10, 25, 50)
SECONDS = (5, 15, 60, 300)
RESULTS = markdown.RESULTS / "real"
#: Data sets that neither the built-in priors nor the one from surrogates are about.
TABLES = ("breast_cancer_wisconsin_original", "car", "german_credit", "htru2", "wilt")
MOST_ROWS = 1500
SPACE, NARROW, PRIOR = "xgboost-wide", "xgboost-paper", "xgboost-accuracy"


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


def comparable(found: Sequence[traces.Trace]) -> Runs:
    """Each optimiser's runs on the tables and seeds that all of them have."""
    names = sorted({trace["optimiser"] for trace in found})
    pairs = [{_pair(trace) for trace in found if trace["optimiser"] == name} for name in names]
    common = set.intersection(*pairs) if pairs else set()
    kept = [trace for trace in sorted(found, key=_pair) if _pair(trace) in common]
    return {name: [trace for trace in kept if trace["optimiser"] == name] for name in names}


def tables(runs: Runs) -> list[str]:
    """Mean errors, mean ranks if there is anyone to compare with, and the last error on each table."""
    if not any(runs.values()):
        return ["no table has been run with all optimisers yet"]
    parts = [effort(runs)]
    for part in ("validation", "holdout"):
        parts.append(mean_errors(runs, part, "trials", BUDGETS))
        parts.append(mean_errors(runs, part, "seconds", SECONDS))
        if len(runs) > 1:
            parts.append(mean_ranks(runs, part))
        parts.append(last_errors(runs, part))
    return parts


def effort(runs: Runs) -> str:
    """Wall time of a run, and how many of its trials took too long."""
    rows = []
    for name, of in runs.items():
        seconds, late = (np.mean([trace[key] for trace in of]) for key in ("seconds", "timed_out"))
        rows.append([name, len(of), f"{seconds:.0f}", f"{late:.1f} of {of[0]['trials']}"])
    return markdown.table(["a run, on average", "runs", "seconds", "trials that took too long"], rows)


def mean_errors(runs: Runs, part: str, axis: str, budgets: Sequence[int]) -> str:
    """Errors after so many ``trials`` or ``seconds``; none where a run has none yet."""
    errors = at_trials if axis == "trials" else at_seconds
    rows = []
    for name, of in runs.items():
        columns = np.array([errors(trace, part, budgets) for trace in of]).T
        rows.append([name, *(_cell(column) for column in columns)])
    return markdown.table([f"mean {part} error after {axis}", *budgets], rows)


def mean_ranks(runs: Runs, part: str) -> str:
    """Mean ranks by error, 1 the best, ties shared: tables differ in how large errors are."""
    errors = np.array([[at_trials(trace, part, BUDGETS) for trace in of] for of in runs.values()])
    there = ~np.isnan(errors).any(axis=(0, 1))
    rows = []
    for name, ranks in zip(runs, rankdata(errors, axis=0), strict=True):
        means = zip(ranks.mean(axis=0), there, strict=True)
        rows.append([name, *(f"{mean:.2f}" if known else "–" for mean, known in means)])
    return markdown.table([f"mean rank by {part} error after trials", *BUDGETS], rows)


def last_errors(runs: Runs, part: str) -> str:
    """The error at the end of a run, a mean over seeds."""
    names = sorted({trace["task"] for of in runs.values() for trace in of})
    rows = []
    for optimiser, of in runs.items():
        last = [
            np.mean([at_trials(trace, part, [trace["trials"]])[0] for trace in of if trace["task"] == name])
            for name in names
        ]
        rows.append([optimiser, *(f"{error:.4f}" for error in last)])
    return markdown.table([f"last {part} error", *(name.split("/")[-1] for name in names)], rows)


def _pair(trace: traces.Trace) -> tuple[str, int]:
    return trace["task"], trace["seed"]


def plot(runs: Runs, file: Path) -> None:
    """Mean validation error by trials and by wall time; it begins where every run has ended a trial."""
    every = [trace for of in runs.values() for trace in of]
    if not every:
        return
    trials = [float(n) for n in range(1, 1 + min(trace["trials"] for trace in every))]
    seconds = np.geomspace(0.1, max(trace["seconds"] for trace in every), 200).tolist()
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, label, marks, errors in zip(
        axes, ("trials", "seconds of wall time"), (trials, seconds), (at_trials, at_seconds), strict=True
    ):
        for index, (name, of) in enumerate(runs.items()):
            mean = np.array([errors(trace, "validation", marks) for trace in of]).mean(axis=0)
            style = "-" if name.startswith("rlhpo") else "--"
            axis.step(marks, np.maximum(mean, 1e-4), style, where="post", color=f"C{index}", label=name)
        axis.set(xscale="log", yscale="log", xlabel=label)
    axes[0].set(ylabel="mean validation error")
    axes[0].legend(fontsize=8)
    count = len({trace["task"] for trace in every})
    figure.suptitle(f"XGBoost on {count} real tables, {len(every) // len(runs)} runs an optimiser", fontsize=10)
    report.save(figure, file)


def _cell(values: Any) -> str:
    return "–" if np.isnan(values).any() else f"{np.mean(values):.4f}"


def _runs(results: Path, space: str) -> Runs:
    return comparable([trace for trace in traces.load([results]) if trace["task"].startswith(f"{space}/")])


INTRO = """
XGBoost on five tables of UCI (at most 1,500 rows, drawn by seed; 20 % validation, 20 % holdout), 50 trials, one
thread. A training run that takes longer than 10 s fails. `rlhpo+prior` begins from the built-in prior, which was
learnt from real trainings on other tables; its first trial is XGBoost's defaults. `rlhpo` was run with an earlier
version of the tuner, which began at random. Errors are 1 − accuracy. The holdout is scored after refitting on
training and validation rows. Wall times are those of two cores shared with other work.
[benchmarks.md](../benchmarks.md#real-tables) says what to take from the tables.
"""
COMMAND = """
python -m benchmarks.real --data DIR --trials 50 --seeds 3
python -m benchmarks.real --data DIR --trials 50 --seeds 3 --space xgboost-paper --optimisers rlhpo
"""


def pages() -> dict[str, str]:
    """The file of docs/measurements about real tables."""
    content = [
        "## Wide ranges: 13 hyperparameters",
        "![Validation error by trials and by wall time](../images/real.png)",
        *tables(_runs(RESULTS, SPACE)),
        "## Narrow ranges: the paper's ten hyperparameters, without a prior",
        *tables(_runs(RESULTS, NARROW)),
    ]
    return {"real.md": markdown.page("Real tables", INTRO, "real", [RESULTS], COMMAND, content)}


def pictures(folder: Path) -> None:
    """The picture of this file."""
    plot(_runs(RESULTS, SPACE), folder / "real.png")


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
    print("\n\n".join(tables(_runs(given.results, given.space))))
    sys.exit(failed > 0)


if __name__ == "__main__":
    traces.single_threaded()
    main()
