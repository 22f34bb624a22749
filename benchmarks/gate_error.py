"""How often the gate is wrong: OMP_NUM_THREADS=1 python benchmarks/gate_error.py [--table FILE] [--simulations 200]

Null: champion and challenger are the same XGBoost, trained on the same rows with two seeds; each simulation draws
training rows, seeds and a holdout anew. The gate should promote at most at its error rate, 1 − confidence.

Gain: a pair of models whose true gain, over all the rows that are left, is known; the margin is set to half of it.
Each simulation draws a holdout from those rows. The gate should promote in at least 80 % if there are enough of them.

Synthetic: rows on which only one of two models is right, drawn with shares that fix the true gain exactly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from rlhpo_core.data import Table, load_table
from rlhpo_core.gate import Answers, judge
from rlhpo_core.production import GateSpec
from rlhpo_core.study import DataSpec

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
TABLE = Path(__file__).parent.parent / "examples" / "data" / "winequality_white.csv"
TRAINING, HOLDOUT = 1000, (200, 500, 1000)


def train(table: Table, rows: Rows, seed: int, trees: int, rate: float = 0.3) -> xgb.Booster:
    matrix = xgb.DMatrix(table.features.iloc[rows], table.target[rows], enable_categorical=True)
    params = {
        "objective": "multi:softprob", "num_class": len(table.classes), "max_depth": 5, "eta": rate, "subsample": 0.7,
        "colsample_bytree": 0.7, "seed": seed, "nthread": 1,
    }  # fmt: skip
    return xgb.train(params, matrix, trees)


def answer(booster: xgb.Booster, table: Table, rows: Rows) -> Floats:
    matrix = xgb.DMatrix(table.features.iloc[rows], enable_categorical=True, nthread=1)
    return np.asarray(booster.predict(matrix), dtype=np.float64)


def promoted(target: Floats, before: Floats, after: Floats, margin: float, metric: str, seed: int) -> bool:
    spec = GateSpec(margin=margin, min_rows=20, resamples=1000, log_loss_increase=None)
    one, two = Answers(before, 1e-5, 1000), Answers(after, 1e-5, 1000)
    return judge(metric, target, one, two, {}, spec, seed).decision == "promote"


def null(table: Table, simulations: int, margins: tuple[float, ...]) -> dict[tuple[str, float], int]:
    """Promotions by metric and margin, on the middle size of a holdout."""
    counts = dict.fromkeys([(m, margin) for m in ("accuracy", "log_loss") for margin in margins], 0)
    for number in range(simulations):
        rows = np.random.default_rng(number).permutation(len(table))
        training, held = rows[:TRAINING], rows[TRAINING : TRAINING + HOLDOUT[1]]
        outputs = [answer(train(table, training, 2 * number + i, 40), table, held) for i in range(2)]
        for metric, margin in counts:
            counts[metric, margin] += promoted(table.target[held], *outputs, margin, metric, number)
    return counts


def gain(table: Table, simulations: int) -> list[tuple[int, float, int]]:
    """(rows of the holdout, true gain in accuracy, promotions at half of it as the margin)."""
    rows = np.random.default_rng(0).permutation(len(table))
    training, pool = rows[:TRAINING], rows[TRAINING:]
    weak, strong = train(table, training[:150], 0, 5), train(table, training, 1, 120, 0.1)
    before, after = answer(weak, table, pool), answer(strong, table, pool)
    target = table.target[pool]
    true = float(np.mean(after.argmax(1) == target) - np.mean(before.argmax(1) == target))
    found = []
    for size in HOLDOUT:
        count = 0
        for number in range(simulations):
            drawn = np.random.default_rng(number).choice(len(pool), size, replace=False)
            count += promoted(target[drawn], before[drawn], after[drawn], true / 2, "accuracy", number)
        found.append((size, true, count))
    return found


def synthetic(size: int, lost: float, margin: float, true: float, simulations: int) -> int:
    count = 0
    for number in range(simulations):
        rng = np.random.default_rng(number)
        target, fate = rng.integers(2, size=size), rng.random(size)
        both = rng.random(size) < 0.8
        won = fate < lost + true
        fell = (fate >= lost + true) & (fate < 2 * lost + true)
        answers = []
        for right in (
            np.where(won, False, np.where(fell, True, both)),
            np.where(won, True, np.where(fell, False, both)),
        ):
            chosen = np.where(right, target, 1 - target)
            answers.append(np.eye(2)[chosen] * 0.8 + 0.1)
        count += promoted(target.astype(float), answers[0], answers[1], margin, "accuracy", number)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--target", default="target")
    parser.add_argument("--simulations", type=int, default=200)
    given = parser.parse_args()
    n = given.simulations
    table = load_table(DataSpec(path=given.table, target=given.target, task="classification"), 0)
    print(f"{given.table.name}, {n} simulations, confidence 95 %: at most {0.05 * n:.0f} promotions are allowed\n")
    print(f"Null: another seed, {TRAINING} training rows, {HOLDOUT[1]} holdout rows\n")
    print("| metric | margin | promoted |\n|---|---|---|")
    for (metric, margin), count in null(table, n, (0.0, 0.01, 0.02)).items():
        print(f"| {metric} | {margin:g} | {count} of {n} |", flush=True)
    print(
        "\nTrue gain of twice the margin, real models\n\n"
        "| holdout rows | true gain | margin | promoted |\n|---|---|---|---|"
    )
    for size, true, count in gain(table, n):
        print(f"| {size} | {true:.4f} | {true / 2:.4f} | {count} of {n} |", flush=True)
    print("\nSynthetic pairs, each alone right on at least 8 % of the rows\n")
    print("| holdout rows | margin | true gain | promoted |\n|---|---|---|---|")
    for size, margin, true in (
        (500, 0.0, 0.0),
        (500, 0.02, 0.02),
        (500, 0.04, 0.08),
        (1000, 0.04, 0.08),
        (2000, 0.02, 0.04),
    ):
        print(f"| {size} | {margin:g} | {true:g} | {synthetic(size, 0.08, margin, true, n)} of {n} |", flush=True)


if __name__ == "__main__":
    main()
