"""How often the gate is wrong.

    OMP_NUM_THREADS=1 python -m benchmarks.gate_error --table FILE.csv    run what the results lack, then print them
    python -m benchmarks.gate_error --print                               print the results

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
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from scipy import stats

from benchmarks import markdown
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.production.answers import Answers
from rlhpo_core.production.bootstrap import scores
from rlhpo_core.production.gate import judge
from rlhpo_core.study.production_settings import GateSpec
from rlhpo_core.study.spec import METRICS, DataSpec

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
RESULTS = markdown.RESULTS / "gate_error"
TABLE = Path(__file__).parent.parent / "examples" / "data" / "winequality_white.csv"
TABLES = ("winequality_white", "adult")
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


def simulate(table: Table, seed: int) -> dict[str, Any]:
    """True gains of the null's and the gain's pair, and whether the gate promotes, in the order of NULL and of GAIN."""
    target, null, gain = pairs(table, seed)
    result: dict[str, Any] = {"seed": seed, "rows": len(table), "null": {}, "gain": {}}
    for metric in SCORES:
        true = true_gain(metric, target, *null)
        passed = [promoted(metric, target, null, size, margin, seed) for size, margin in NULL]
        result["null"][metric] = {"true": true, "promoted": passed}
        true = true_gain(metric, target, *gain)
        passed = [promoted(metric, target, gain, size, true / 2, seed) for size in GAIN]
        result["gain"][metric] = {"true": true, "promoted": passed}
    return result


def load(file: Path) -> list[dict[str, Any]]:
    """The simulations that a file holds, one a line, by seed."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return sorted((json.loads(line) for line in lines), key=lambda run: run["seed"])


def share(count: int, of: int) -> str:
    """A share with Clopper and Pearson's 95 % interval."""
    interval = stats.binomtest(count, of).proportion_ci(0.95, "exact")
    return f"{count} of {of}: {100 * count / of:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def spread(runs: Sequence[dict[str, Any]], kind: str, metric: str) -> str:
    """Mean and standard deviation of the true gains."""
    true = [run[kind][metric]["true"] for run in runs]
    return f"{np.mean(true):.4f} ± {np.std(true):.4f}"


def null_rows(runs: Sequence[dict[str, Any]]) -> list[list[object]]:
    """Rows of the table of the null: a metric, a size and a margin each."""
    rows: list[list[object]] = []
    for metric in SCORES:
        pairs_of_metric = [run["null"][metric] for run in runs]
        for place, (size, margin) in enumerate(NULL):
            passed = [pair for pair in pairs_of_metric if pair["promoted"][place]]
            wrong = share(sum(pair["true"] <= 0 for pair in passed), len(runs))
            name = "default" if margin is None else margin
            rows.append([metric, spread(runs, "null", metric), size, name, share(len(passed), len(runs)), wrong])
    return rows


def gain_rows(runs: Sequence[dict[str, Any]]) -> list[list[object]]:
    """Rows of the table of the gain: a metric and a size each."""
    rows: list[list[object]] = []
    for metric in SCORES:
        for place, size in enumerate(GAIN):
            passed = sum(run["gain"][metric]["promoted"][place] for run in runs)
            rows.append([metric, spread(runs, "gain", metric), size, share(passed, len(runs))])
    return rows


def sections(name: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    """What the simulations on one table say."""
    gain = "true gain, mean ± standard deviation"
    return [
        f"## {name}: {runs[0]['rows']} rows, seeds {runs[0]['seed']} to {runs[-1]['seed']}",
        "Null: the challenger is the champion trained with another seed.",
        markdown.table(["metric", gain, "holdout rows", "margin", "promoted", "of these not better"], null_rows(runs)),
        "Gain: the margin is half of the true gain.",
        markdown.table(["metric", gain, "holdout rows", "promoted"], gain_rows(runs)),
    ]


def at_a_glance(tables: dict[str, list[dict[str, Any]]]) -> str:
    """Shares in % with the gate's own margin on the null, and with a true gain of twice the margin."""
    rows = []
    for name, runs in tables.items():
        for metric in SCORES:
            null, gain = (np.mean([run[kind][metric]["promoted"] for run in runs], axis=0) for kind in ("null", "gain"))
            default = [f"{100 * null[NULL.index((size, None))]:.1f} %" for size in (500, 1000)]
            rows.append([name, metric, *default, *(f"{100 * gain[GAIN.index(size)]:.1f} %" for size in GAIN)])
    head = ["table", "metric", *(f"no gain, {size} rows" for size in (500, 1000)), *(f"gain, {n} rows" for n in GAIN)]
    return markdown.table(head, rows)


INTRO = """
How often the gate promotes a challenger that is the champion trained again with another seed, and how often it
promotes one whose true gain is twice the margin. Each simulation trains real XGBoost models; the docstring of
`benchmarks/gate_error.py` says what is drawn and how the true gain is known. Shares are of all pairs, with Clopper and
Pearson's 95 % interval. The confidence is 95 %.
"""
COMMAND = """
OMP_NUM_THREADS=1 python -m benchmarks.gate_error --table winequality_white.csv --seed 1000
OMP_NUM_THREADS=1 python -m benchmarks.gate_error --table adult.csv --seed 1000
"""
NOT_KEPT = """
The default margin for accuracy, 0.01, was chosen on seeds 0 to 199; the seeds above were drawn after that. With 0.01,
those earlier seeds promoted at most 4 % of the challengers without a gain; with 0.005, tried first, 6 % in one case;
with a margin of 0, 4 to 12.5 %. The raw results of seeds 0 to 199 were not kept.
"""


def pages() -> dict[str, str]:
    """The file of docs/measurements about the gate."""
    tables = {name: load(RESULTS / f"{name}.jsonl") for name in TABLES}
    content = [
        "Promoted, in short (the two columns without a gain at the gate's own margin):",
        at_a_glance(tables),
        *(part for name, runs in tables.items() for part in sections(name, runs)),
        "## Not in the results",
        NOT_KEPT.strip(),
    ]
    title = "How often the gate is wrong"
    return {"gate_error.md": markdown.page(title, INTRO, "gate_error", [RESULTS], COMMAND, content)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--target", default="target")
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first simulation; the others follow")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with a file for each table")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    given = parser.parse_args()
    if not given.only_print:
        file = given.results / f"{given.table.stem}.jsonl"
        done = {run["seed"] for run in load(file)}
        table = load_table(DataSpec(path=given.table, target=given.target, task="classification"), 0)
        given.results.mkdir(parents=True, exist_ok=True)
        for seed in range(given.seed, given.seed + given.simulations):
            if seed not in done:
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(simulate(table, seed), separators=(",", ":")) + "\n")
                markdown.note_versions(given.results)
    for file in sorted(given.results.glob("*.jsonl")):
        print("\n\n".join(sections(file.stem, load(file))), end="\n\n")


if __name__ == "__main__":
    main()
