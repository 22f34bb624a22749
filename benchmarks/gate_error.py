"""How often the gate is wrong: OMP_NUM_THREADS=1 python benchmarks/gate_error.py [--table FILE]

Each simulation draws training rows and seeds anew, trains two XGBoost models on them, and draws a holdout, with
replacement, from the rows that are left (at most 10,000). Over all of these the true gain of the pair is known exactly.

Null: the challenger is the champion trained once more with another seed. Two such models do differ a little in truth,
so with a margin of 0 some challengers are better and rightly promoted; "not better" counts promotions without a true
gain. The margin is 0, or what the gate takes if the study names none.

Gain: the champion has 5 trees from 150 of the rows, the challenger 40 trees from all; the margin is set to half of the
pair's true gain. Intervals are Clopper and Pearson's, 95 %.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections import Counter
from importlib import metadata
from pathlib import Path

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from scipy import stats

from rlhpo_core.data.table import Table, load_table
from rlhpo_core.production.answers import Answers
from rlhpo_core.production.bootstrap import scores
from rlhpo_core.production.gate import judge
from rlhpo_core.study.production_settings import GateSpec
from rlhpo_core.study.spec import METRICS, DataSpec

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
TABLE = Path(__file__).parent.parent / "examples" / "data" / "winequality_white.csv"
TRAINING, POOL, CONFIDENCE = 1000, 10_000, 0.95
#: Rows of the holdout and margin, none for that of the gate by itself, and rows of the holdout.
NULL, GAIN = ((500, None), (500, 0.0), (1000, None), (1000, 0.0)), (200, 500, 1000, 2000)
SCORES = ("accuracy", "log_loss")


def train(table: Table, rows: Rows, seed: int, trees: int) -> xgb.Booster:
    matrix = xgb.DMatrix(table.features.iloc[rows], table.target[rows], enable_categorical=True, nthread=1)
    params = {
        "objective": "multi:softprob", "num_class": len(table.classes), "max_depth": 5, "eta": 0.15,
        "subsample": 0.7, "colsample_bytree": 0.7, "seed": seed, "nthread": 1,
    }  # fmt: skip
    return xgb.train(params, matrix, trees)


def answer(booster: xgb.Booster, table: Table, rows: Rows) -> Floats:
    matrix = xgb.DMatrix(table.features.iloc[rows], enable_categorical=True, nthread=1)
    return np.asarray(booster.predict(matrix), dtype=np.float64)


def true_gain(metric: str, target: Floats, before: Floats, after: Floats) -> float:
    once = np.ones((1, len(target)))
    one, two = (float(scores(metric, target, output, once)[0]) for output in (before, after))
    return two - one if METRICS[metric] == "maximize" else one - two


def promoted(
    metric: str, target: Floats, outputs: tuple[Floats, Floats], size: int, margin: float | None, seed: int
) -> bool:
    """What the gate says of a holdout of so many rows, drawn from those of the pair."""
    drawn = np.random.default_rng([seed, size]).integers(len(target), size=size)
    spec = GateSpec(margin=margin, confidence=CONFIDENCE, min_rows=20, resamples=1000, log_loss_increase=None)
    champion, challenger = (Answers(output[drawn], 1e-5, 1000) for output in outputs)
    return judge(metric, target[drawn], champion, challenger, {}, spec, seed).decision == "promote"


def pairs(table: Table, number: int) -> tuple[Floats, tuple[Floats, Floats], tuple[Floats, Floats]]:
    """The truth about the rows that are left, and what the null's and the gain's pair make of them."""
    rows = np.random.default_rng([number, 1]).permutation(len(table))
    training, pool = rows[:TRAINING], rows[TRAINING : TRAINING + POOL]
    champion, again = (answer(train(table, training, 2 * number + i, 40), table, pool) for i in range(2))
    weak = answer(train(table, training[:150], 2 * number, 5), table, pool)
    return table.target[pool], (champion, again), (weak, champion)


def simulate(table: Table, seeds: range) -> tuple[Counter[tuple[object, ...]], dict[tuple[str, str], list[float]]]:
    """Counts of promotions, and the true gains of all pairs."""
    counts: Counter[tuple[object, ...]] = Counter()
    gains: dict[tuple[str, str], list[float]] = {(kind, m): [] for kind in ("null", "gain") for m in SCORES}
    for number in seeds:
        target, null, gain = pairs(table, number)
        for metric in SCORES:
            true = true_gain(metric, target, *null)
            gains["null", metric].append(true)
            for size, margin in NULL:
                if promoted(metric, target, null, size, margin, number):
                    counts["null", metric, size, margin] += 1
                    counts["not better", metric, size, margin] += true <= 0
            true = true_gain(metric, target, *gain)
            gains["gain", metric].append(true)
            for size in GAIN:
                counts["gain", metric, size] += promoted(metric, target, gain, size, true / 2, number)
    return counts, gains


def share(count: int, of: int) -> str:
    interval = stats.binomtest(count, of).proportion_ci(0.95, "exact")
    return f"{count} of {of}: {100 * count / of:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--target", default="target")
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first simulation; the others follow")
    given = parser.parse_args()
    n, started = given.simulations, time.process_time()
    table = load_table(DataSpec(path=given.table, target=given.target, task="classification"), 0)
    seeds = range(given.seed, given.seed + n)
    counts, gains = simulate(table, seeds)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("rlhpo", "xgboost", "numpy", "scipy"))
    drawn = f"seeds {seeds[0]} to {seeds[-1]}"
    print(f"{given.table.name}: {len(table)} rows; {drawn}; {versions}; Python {platform.python_version()}")
    print(f"{time.process_time() - started:.0f} CPU seconds; confidence {100 * CONFIDENCE:g} %\n")
    print("Null: the champion trained with another seed\n")
    print("| metric | true gain, mean ± deviation | holdout rows | margin | promoted | of these not better |")
    print("|---|---|---|---|---|---|")
    for metric in SCORES:
        spread = f"{np.mean(gains['null', metric]):.4f} ± {np.std(gains['null', metric]):.4f}"
        for size, margin in NULL:
            found, wrong = (share(counts[kind, metric, size, margin], n) for kind in ("null", "not better"))
            print(f"| {metric} | {spread} | {size} | {'default' if margin is None else margin} | {found} | {wrong} |")
    print("\nTrue gain of twice the margin\n")
    print("| metric | true gain, mean ± deviation | holdout rows | promoted |\n|---|---|---|---|")
    for metric in SCORES:
        spread = f"{np.mean(gains['gain', metric]):.4f} ± {np.std(gains['gain', metric]):.4f}"
        for size in GAIN:
            print(f"| {metric} | {spread} | {size} | {share(counts['gain', metric, size], n)} |")


if __name__ == "__main__":
    main()
