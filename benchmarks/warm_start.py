"""Warm against cold: is a model that was tuned before tuned faster on newer data?

    OMP_NUM_THREADS=1 python benchmarks/warm_start.py --data DIR     run what the results file lacks, then print
    python benchmarks/warm_start.py --print                          print the results file

Each table is cut into two months: `newer` at random, `drifted` so that rows with a high value in the first column of
numbers tend to come in the second month. A study of the first month is what came before. On the second month a cold
study (the defaults, with the prior that comes with rlhpo where it fits) and a warm one, which starts from the first
month's, as `rlhpo retune` does, spend the same budget. Counted are the trials until each reaches the best value that
the cold one finds within it. Values are log-losses of the validation rows.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rlhpo_core.data import drift
from rlhpo_core.data.table import load_table
from rlhpo_core.evaluators import build_evaluator
from rlhpo_core.execution.beginning import prior_of
from rlhpo_core.study.production_settings import RetuneSpec
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Proposal, Trial, TrialStatus
from rlhpo_core.tuner import algorithm
from rlhpo_core.tuner.algorithm import TunerState, initial_state
from rlhpo_core.tuner.warm_start import warm_state

#: Those with rows enough for two months in which the differences between configurations are more than chance.
TABLES = ("winequality_white", "phoneme", "wilt", "phishing", "adult")
WAYS = ("newer", "drifted")
RESULTS = Path(__file__).parent / "results" / "warm_start.jsonl"
SPACE = {
    "n_estimators": {"type": "int", "low": 10, "high": 150, "log": True},
    "learning_rate": {"type": "float", "low": 0.01, "high": 0.6, "log": True},
    "max_depth": {"type": "int", "low": 1, "high": 10},
    "min_child_weight": {"type": "float", "low": 0.1, "high": 20.0, "log": True},
    "subsample": {"type": "float", "low": 0.4, "high": 1.0},
    "colsample_bytree": {"type": "float", "low": 0.3, "high": 1.0},
    "reg_lambda": {"type": "float", "low": 0.01, "high": 30.0, "log": True},
}


def spec_of(path: Path, seed: int) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "bench", "seed": seed,
            "data": {"path": str(path), "target": "target", "task": "classification", "validation": 0.4,
                     "holdout": 0.1},
            "evaluator": {"kind": "xgboost", "report_every": 1000}, "objective": "log_loss", "space": SPACE,
        }
    )  # fmt: skip


def run(state: TunerState, spec: StudySpec, trials: int) -> TunerState:
    evaluator = build_evaluator(spec, threads=1)

    def train(proposal: Proposal) -> Trial:
        found = evaluator.evaluate(proposal.config, lambda *_: None)
        return Trial(proposal=proposal, status=TrialStatus.COMPLETE, value=found.value)

    while len(state.history) < trials:
        done = [train(proposal) for proposal in algorithm.propose(state)]
        state = algorithm.update_policy(algorithm.fit_reward_model(algorithm.observe(state, done)))
    return state


def months(path: Path, way: str, rows: int, seed: int, folder: Path) -> tuple[Path, Path]:
    """Two tables of at most so many rows each, cut anew for each seed."""
    rng = np.random.default_rng(seed)
    frame = pd.read_csv(path)
    counts = frame["target"].value_counts()
    frame = frame[frame["target"].isin(counts[counts >= 30].index)]
    frame = frame.iloc[rng.permutation(len(frame))[: 2 * rows]]
    if way == "drifted":
        column = frame.drop(columns="target").select_dtypes("number").iloc[:, 0]
        # The rank and as much chance again, so that the two overlap.
        frame = frame.iloc[np.argsort(column.rank(pct=True).to_numpy() + rng.random(len(frame)))]
    half = len(frame) // 2
    parts = frame.iloc[:half], frame.iloc[half:]
    found = folder / f"{path.stem}-{way}-{seed}-0.csv", folder / f"{path.stem}-{way}-{seed}-1.csv"
    for part, place in zip(parts, found, strict=True):
        part.iloc[rng.permutation(len(part))].to_csv(place, index=False)
    return found


def perform(table: Path, way: str, seed: int, trials: int, rows: int) -> dict[str, Any]:
    """The three studies of one table and seed."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        before, now = (spec_of(path, seed) for path in months(table, way, rows, seed, Path(folder)))
        assert before.data is not None
        assert now.data is not None
        then, later = (drift.profile(load_table(data, 0)) for data in (before.data, now.data))
        moved = drift.compare(then, later, RetuneSpec()).moved
        prior = prior_of(now)
        fresh = ("minimize", now.tuner)
        known = run(initial_state("before", seed, before.space, *fresh, prior), before, trials)
        cold = run(initial_state("cold", seed + 1000, now.space, *fresh, prior), now, trials)
        start = warm_state(known, "warm", seed + 2000, now.space, *fresh, moved, prior=prior)
        warm = run(start, now, trials)
    traces = {"cold": cold, "warm": warm}
    return {
        "table": table.stem, "way": way, "seed": seed, "trials": trials, "rows": rows, "moved": round(moved, 4),
        "prior": prior is not None, **{k: [round(float(t.value or 0), 6) for t in s.history.trials]
                                       for k, s in traces.items()},
        "seconds": round(time.process_time() - started, 1),
    }  # fmt: skip


def reached(trace: list[float], goal: float) -> int | None:
    """Trials until a value is as good as the goal."""
    return next((i for i, value in enumerate(trace, start=1) if value <= goal + 1e-9), None)


def print_table(runs: list[dict[str, Any]], way: str) -> None:
    own = [run for run in runs if run["way"] == way]
    if not own:
        return
    trials = own[0]["trials"]
    print(f"\n{way}: {trials} trials, at most {own[0]['rows']} rows a month\n")
    print("| table | moved | seed | cold's best | by cold after | by warm after | warm's first trial | warm's best |")
    print("|---|---|---|---|---|---|---|---|")
    sooner, ratios, better = [], [], []
    for run in own:
        goal, best = min(run["cold"]), min(run["warm"])
        by_cold, by_warm = reached(run["cold"], goal), reached(run["warm"], goal)
        assert by_cold is not None
        ratios.append((by_warm or trials + 1) / by_cold)
        sooner.append((by_warm or trials + 1) - by_cold)
        better.append(best - goal)
        print(
            f"| {run['table']} | {run['moved']:.3f} | {run['seed']} | {goal:.4f} | {by_cold} | {by_warm or '–'} | "
            f"{run['warm'][0]:.4f} | {best:.4f} |"
        )
    late = sum(d > 0 for d in sooner)
    print(
        f"\nwarm is there sooner in {sum(d < 0 for d in sooner)} of {len(own)}, as soon in "
        f"{sum(d == 0 for d in sooner)}, later or never in {late}; trials needed, as a share of cold's: median "
        f"{statistics.median(ratios):.2f}; warm's best is the lower one in {sum(d < 0 for d in better)}"
    )
    for count in (1, 5, 10, 20, trials):
        lower = sum(min(run["warm"][:count]) < min(run["cold"][:count]) for run in own)
        print(f"after {count} trials warm is ahead in {lower} of {len(own)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the tables (NAME.csv, with a column `target`)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=4000, help="of a month, at most")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = given.results.read_text().splitlines() if given.results.exists() else []
    runs = [json.loads(line) for line in lines]
    if not given.only_print:
        if given.data is None:
            parser.error("--data: where are the tables?")
        given.results.parent.mkdir(parents=True, exist_ok=True)
        for seed in range(given.seeds):
            for way in WAYS:
                for table in TABLES:
                    if any((r["table"], r["way"], r["seed"]) == (table, way, seed) for r in runs):
                        continue
                    found = perform(given.data / f"{table}.csv", way, seed, given.trials, given.rows)
                    runs.append(found)
                    with given.results.open("a") as file:
                        file.write(json.dumps(found) + "\n")
                    print(f"{table} {way} {seed}: {found['seconds']} s", file=sys.stderr, flush=True)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("rlhpo", "torch", "xgboost", "numpy"))
    seconds = sum(run["seconds"] for run in runs)
    print(f"{len(runs)} runs; {versions}; Python {platform.python_version()}; {seconds:.0f} CPU seconds in all")
    runs.sort(key=lambda run: (TABLES.index(run["table"]), run["seed"]))
    for way in WAYS:
        print_table(runs, way)


if __name__ == "__main__":
    main()
