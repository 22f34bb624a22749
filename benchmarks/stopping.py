"""Trials that stop early: the training time after which a study is as good as it ends without stopping.

    python -m benchmarks.stopping --data DIR --tables concrete,churn --trials 25 --seeds 3
    python -m benchmarks.stopping --images mnist.npz,fashion.npz --epochs 8 --most-images 2500
    python -m benchmarks.stopping --print

XGBoost on tables, networks on images; rlhpo with each of its rules, and Optuna's TPE with its MedianPruner,
SuccessiveHalvingPruner and HyperbandPruner, if Optuna is installed. First each of the two is run without stopping. The
arms that stop then get the same training time, on the same data with the same seed, and may make up to --more times as
many trials with it. The page has images from the runs of ``benchmarks.cnn``.

Runs are kept as lines of JSON, one file an arm; those that are there are not made again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import cnn, markdown, traces
from benchmarks.reported import RULES, ImageTask, TableTask, Task, family_of, possible, run_missing

RESULTS = markdown.RESULTS / "stopping"
RLHPO = tuple(f"rlhpo+{rule}" for rule in RULES)
TPE = ("tpe+none", "tpe+median", "tpe+halving", "tpe+hyperband")
ARMS = (*RLHPO, *TPE)
#: Of ``benchmarks.cnn``.
RANDOM = ("random+none", "random+halving")
#: What each arm is compared with: its family without stopping.
BASELINES = {arm: f"{family_of(arm)}+none" for arm in (*ARMS, *RANDOM)}


def time_to(trace: traces.Trace, error: float) -> float:
    """Training seconds after which a run has come to an error; infinite if it has not."""
    return next((seconds for seconds, value in trace["improvements"] if value <= error), math.inf)


def share(trace: traces.Trace, base: traces.Trace) -> float:
    """The time to the baseline's last error, of all its time; 1 for a run that had not come to it by then."""
    return min(1.0, time_to(trace, base["improvements"][-1][1]) / base["seconds"])


def tables(found: Sequence[traces.Trace]) -> list[str]:
    """Of each kind of task, a table of rlhpo's arms and one of TPE's, each against its own run without stopping."""
    runs = {(trace["optimiser"], trace["task"], trace["seed"]): trace for trace in found}
    kinds = {"xgboost-paper": "tables", "cnn": "images"}
    return [
        made
        for kind, title in kinds.items()
        for family in (RLHPO, TPE, RANDOM)
        if (made := _table(title, family, {key: run for key, run in runs.items() if key[1].startswith(f"{kind}/")}))
    ]


def _table(title: str, arms: Sequence[str], runs: Mapping[tuple[str, str, int], traces.Trace]) -> str | None:
    rows = []
    for arm in arms:
        pairs = [
            (trace, runs[BASELINES[arm], task, seed])
            for (name, task, seed), trace in runs.items()
            if name == arm and (BASELINES[arm], task, seed) in runs
        ]
        pairs = [(trace, base) for trace, base in pairs if base["improvements"] and trace["improvements"]]
        if not pairs:
            continue
        goals = [base["improvements"][-1] for _, base in pairs]
        reached = [time_to(trace, error) for (trace, _), (_, error) in zip(pairs, goals, strict=True)]
        strict = [min(2.0, at / seconds) for at, (seconds, _) in zip(reached, goals, strict=True)]
        shares = [share(trace, base) for trace, base in pairs]
        trained, stopped = (sum(trace[what] for trace, _ in pairs) for what in ("trained", "stopped"))
        rows.append(
            [
                arm, len(pairs), f"{np.mean(shares):.2f} ({_interval(pairs)})", f"{np.median(shares):.2f}",
                f"{np.mean(strict):.2f}", f"{100 * np.mean(np.isfinite(reached)):.0f} %",
                _ratio([(t["improvements"][-1][1], b["improvements"][-1][1]) for t, b in pairs]),
                _ratio([(t["holdout"], b["holdout"]) for t, b in pairs]),
                f"{trained / len(pairs):.0f}", f"{100 * stopped / trained:.0f} %",
                f"{np.mean([trace['cpu_total'] - trace['seconds'] for trace, _ in pairs]):.1f}",
            ]
        )  # fmt: skip
    head = [
        title, "runs", "time to the last error without stopping, of all time (95 %)", "median",
        "of the time to it without stopping", "came to it", "last error, ratio", "holdout error, ratio", "trials",
        "stopped", "other CPU s",
    ]  # fmt: skip
    return markdown.table(head, rows) if rows else None


def _ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """The geometric mean of the first by the second, ± its standard error; those left out where one is 0."""
    logs = [math.log(own / other) for own, other in pairs if own > 0 and other > 0]
    if not logs:
        return "–"
    error = np.std(logs, ddof=1) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return f"{math.exp(np.mean(logs)):.3f} ± {error:.3f}"


def _interval(pairs: Sequence[tuple[traces.Trace, traces.Trace]]) -> str:
    """Of the mean share: a bootstrap over tasks."""
    by_task: dict[str, list[float]] = {}
    for trace, base in pairs:
        by_task.setdefault(trace["task"], []).append(share(trace, base))
    means = np.array([np.mean(values) for values in by_task.values()])
    drawn = np.random.default_rng(0).choice(means, (2000, len(means))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{low:.2f}–{high:.2f}"


def pages() -> dict[str, str]:
    """The page of docs/measurements."""
    own = traces.load([RESULTS])
    intro = """
How long a study with stopping trains until it is as good as the same study without ends. Each arm that stops has the
training time that its family took without stopping, on the same data with the same seed. A run that did not come to
that error within the time counts with all of it in the third and fourth column, and with twice the time in the fifth,
whose unit is the time at which the run without stopping came to its last error. Errors are log loss, root mean squared
error, or the share of images that are wrong; ratios below 1 are better than without stopping. The runs on images are
those of [networks on images](cnn.md), where all have the time of 24 trials of random search.
"""
    found = [*own, *traces.load([cnn.RESULTS])]
    page = markdown.page(
        "Trials that stop early", intro, "stopping", [RESULTS, cnn.RESULTS], _command(own), tables(found)
    )
    return {"stopping.md": page}


def _command(found: Sequence[traces.Trace]) -> str:
    """By which these runs are made."""
    trials = max(trace["trials"] for trace in found if trace["optimiser"] in BASELINES.values())
    seeds = 1 + max(trace["seed"] for trace in found)
    names = sorted({trace["task"].partition("/")[2] for trace in found if trace["task"].startswith("xgboost")})
    images = "--images mnist_small.npz,fashion_mnist_small.npz"
    of_images = any(trace["task"].startswith("cnn") for trace in found)
    kinds = [f"--data TABLES --tables {','.join(names)}"] * bool(names) + [images] * of_images
    return "\n".join(f"python -m benchmarks.stopping {kind} --trials {trials} --seeds {seeds}" for kind in kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with tables (NAME.csv, with a column `target`)")
    parser.add_argument("--tables", help="names, separated by commas; all in the folder if not given")
    parser.add_argument("--images", default="", help="NPZ files with images, separated by commas")
    parser.add_argument("--most-images", type=int, default=2500)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--arms", default=",".join(ARMS), help=f"some of {', '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=25, help="of the runs without stopping")
    parser.add_argument("--more", type=int, default=4, help="times as many trials may those make that stop")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    given = parser.parse_args()
    if not given.only_print:
        if given.data is None and not given.images:
            parser.error("--data or --images: what is there to train on?")
        arms = possible(given.arms.split(","), ARMS)
        for task in tasks(given):
            run_missing(task, arms, BASELINES, given.trials, given.more, given.results)
    print("\n\n".join(tables(traces.load([given.results]))))


def tasks(given: argparse.Namespace) -> list[Task]:
    """What to train on, seed after seed."""
    names: list[str] = []
    if given.data is not None:
        names = given.tables.split(",") if given.tables else sorted(file.stem for file in given.data.glob("*.csv"))
    files = [Path(file) for file in given.images.split(",") if file]
    return [
        task
        for seed in range(given.seeds)
        for task in (
            *(TableTask(given.data, name, seed) for name in names),
            *(ImageTask(file, given.most_images, given.epochs, seed) for file in files),
        )
    ]


if __name__ == "__main__":
    traces.single_threaded()
    main()
