"""A bank of real trainings: many algorithms and configurations on many tables, for priors to be learnt from.

    python -m benchmarks.real_evaluations --tables DIR --out benchmarks/results/real_evaluations --minutes 45

Each table is trained on with the library's defaults, a few picks by hand, quasi-random configurations (Sobol), random
ones half of whose values are the defaults', and variations of what did best on the tables PILOT, which come first. All
tables of a kind get the same configurations, so that what was chosen on some of them can be looked up on others. For
that, tables are in FOLDS groups, and there are variations of what did best without each group (``without`` in a row;
``-1``: of all).

One process, one thread. It goes on where it was stopped. The configurations follow from the seed, and the scores from
the configurations; a training that takes longer than LIMIT CPU seconds has none. ``--pack`` compresses what was
measured.
"""

from __future__ import annotations

import argparse
import json
import lzma
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import numpy as np
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from benchmarks import markdown
from benchmarks.algorithms import (
    ALGORITHMS,
    CLASSIFICATION,
    METRICS,
    REGRESSION,
    Algorithm,
    Divided,
    Floats,
    available,
)
from rlhpo_core.seeds import derive_seed
from rlhpo_core.trial import Config

RESULTS = markdown.RESULTS / "real_evaluations"
#: Tables whose target is a number, and tables of classes; another one is taken to have classes.
NUMBERS = (
    "abalone", "air_quality_co", "auto_mpg", "body_dimensions", "college", "concrete", "cpu_act", "delta_ailerons",
    "kin8nm", "no2", "nox_emissions", "power_plant", "real_estate_taipei", "saratoga_houses", "space_ga", "student_por",
    "wind_dublin", "winequality_red", "yacht",
)  # fmt: skip
CLASSES = (
    "anneal", "cells", "chile_vote", "churn", "cmc", "credit_scoring", "cylinder_bands", "dermatology", "ecoli",
    "eeg_eye_state", "eucalyptus", "frogs_mfcc", "heart_cleveland", "hpc_jobs", "ionosphere", "kc1", "magic",
    "mammographic_mass", "maternal_health", "orange_juice", "page_blocks", "profb", "qsar_biodeg", "rice",
    "satimage", "sick", "soybean", "spambase", "stackoverflow", "steel_plates", "vehicle", "vote", "vowel",
    "wall_robot", "wifi_localization",
)  # fmt: skip
#: On which it is looked what does best.
PILOT = (
    "cmc", "abalone", "churn", "concrete", "vehicle", "kin8nm", "credit_scoring", "student_por", "qsar_biodeg",
    "power_plant", "spambase", "magic", "wall_robot",
)  # fmt: skip
#: Configurations of each kind; those near the best are as many for each group of tables that is left out, and for none.
SOBOL, NEAR_DEFAULT, NEAR_BEST = 10, 10, 2
FOLDS = 5
LIMIT = 0.7
_WIDTH = 0.25
LIBRARY, HAND, ANYWHERE, MIXED, BEST = "library", "by hand", "anywhere", "near the defaults", "near the best"
#: What an earlier prior would have tried first: it is judged, and not learnt from.
EARLIER = "earlier prior"


@dataclass(frozen=True)
class Wanted:
    """A configuration to be tried on every table of a kind."""

    kind: str
    """Why; LIBRARY is what the library does where nothing is said."""
    config: Config
    without: int = -1
    """The group of tables that had no part in choosing it."""


@dataclass(frozen=True)
class Row:
    """A training."""

    algorithm: str
    task: str
    table: str
    kind: str
    without: int
    config: Config
    scores: Mapping[str, float] | None
    """Metric to mean over the divisions of the table; ``None`` if there is none, for ``error``."""
    seconds: float
    """CPU time, scoring included."""
    error: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.algorithm, self.table, _text(self.config)


def _text(config: Config) -> str:
    return json.dumps(config, sort_keys=True)


def fold_of(table: str) -> int:
    """The group of a table: those of each task are dealt out by name."""
    for names in (NUMBERS, CLASSES):
        if table in names:
            return names.index(table) % FOLDS
    return derive_seed(0, 0, table) % FOLDS


def task_of(table: str) -> str:
    return REGRESSION if table in NUMBERS else CLASSIFICATION


# -- which configurations ----------------------------------------------------------------------------------------------


def before_looking(algorithm: Algorithm, task: str, seed: int) -> list[Wanted]:
    """Those that no result has a part in."""
    space = algorithm.space
    steps = len(space.steps)
    draws = np.random.default_rng(derive_seed(seed, 0, algorithm.space_name))
    sobol = 2 * qmc.Sobol(steps, rng=draws).random(16)[:SOBOL] - 1
    default = space.encode([algorithm.default(task)])[0]
    mixed = draws.uniform(-1, 1, (NEAR_DEFAULT, steps))
    kept = draws.random(mixed.shape) < 0.5
    # What is inactive at the default has no value there.
    mixed = np.where(kept & ~np.isnan(default), default, mixed)
    return [
        *([] if algorithm.expressed else [Wanted(LIBRARY, {})]),
        *(Wanted(HAND, config) for config in algorithm.picks(task)),
        *(Wanted(EARLIER, space.snap(config)) for config in algorithm.earlier),
        *(Wanted(ANYWHERE, config) for config in space.decode(sobol)),
        *(Wanted(MIXED, config) for config in space.decode(mixed)),
    ]


def near_the_best(algorithm: Algorithm, task: str, rows: Sequence[Row], seed: int) -> list[Wanted]:
    """Variations and crossings of what did best on most tables, without each group of them and without none.

    Args:
        rows: Of the algorithm and the task, those that no result has had a part in.
    """
    space = algorithm.space
    wanted = []
    for without in (*range(FOLDS), -1):
        seen = [row for row in rows if row.kind not in (LIBRARY, EARLIER) and fold_of(row.table) != without]
        configs, ranks = _mean_ranks(seen, task)
        if len(configs) < 2:
            continue
        parents = space.encode([configs[index] for index in np.argsort(ranks, kind="stable")[:4]])
        draws = np.random.default_rng(derive_seed(seed, without + 1, f"{algorithm.space_name} {task}"))
        for index in range(NEAR_BEST):
            one, other = parents[index % len(parents)], parents[draws.integers(len(parents))]
            child = np.where((draws.random(len(one)) < 0.3) & ~np.isnan(other), other, one)
            child = np.nan_to_num(child) + draws.normal(0, _WIDTH, len(one))
            config = space.decode(np.clip(child, -1, 1)[None])[0]
            wanted.append(Wanted(BEST, config, without))
    return wanted


def _mean_ranks(rows: Sequence[Row], task: str) -> tuple[list[Config], Floats]:
    """Configurations, and their ranks by the first metric as a mean over tables; what has no score is the worst."""
    configs: dict[str, Config] = {}
    ranks: dict[str, list[float]] = {}
    for table in {row.table: None for row in rows}:
        own = [row for row in rows if row.table == table]
        values = np.array([row.scores[METRICS[task][0]] if row.scores else -np.inf for row in own])
        order = np.argsort(np.argsort(-values, kind="stable"), kind="stable")
        for row, rank in zip(own, order, strict=True):
            configs[_text(row.config)] = row.config
            ranks.setdefault(_text(row.config), []).append(float(rank) / len(own))
    return list(configs.values()), np.array([np.mean(ranks[text]) for text in configs])


# -- trainings ---------------------------------------------------------------------------------------------------------


class Late(Exception):  # noqa: N818  (a signal, not an error)
    """A training has taken too long."""


def _late(number: int, frame: FrameType | None) -> None:
    raise Late


def evaluate(algorithm: Algorithm, wanted: Wanted, table: str, rows: Divided) -> Row:
    """Train on a table."""
    getattr(rows, algorithm.wants)
    began = time.process_time()
    scores: Mapping[str, float] | None = None
    error = ""
    try:
        # It is looked at on Python's side of a library alone, between rounds or trees.
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        found = algorithm.train(wanted.config, rows)
        signal.setitimer(signal.ITIMER_PROF, 0)
        scores = {name: round(value, 6) for name, value in found.items()}
        if not np.isfinite(list(scores.values())).all():
            scores, error = None, "a score is not a finite number"
    except Late:
        error = "late"
    except ValueError as problem:
        # What is broken off inside a library may come out as another error.
        error = "late" if time.process_time() - began > LIMIT else str(problem).splitlines()[0][:80]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = round(time.process_time() - began, 4)
    return Row(
        algorithm.space_name, rows.task, table, wanted.kind, wanted.without, wanted.config, scores, seconds, error
    )


def measure(
    folder: Path, tables: Sequence[str], names: Sequence[str], out: Path, seed: int, minutes: float
) -> Iterable[Row]:
    """The trainings that are lacking, one after another: the pilot tables first, and near the best after all else."""
    signal.signal(signal.SIGPROF, _late)
    rows = {row.key: row for row in load(out)}
    pilot = [table for table in PILOT if table in tables] or list(tables)
    began = time.process_time()
    divided: dict[str, Divided] = {}
    ordered = [*pilot, *(table for table in tables if table not in pilot)]
    for stage, table in ((stage, table) for stage in range(2) for table in ordered):
        task = task_of(table)
        for name in names:
            algorithm = ALGORITHMS[name]
            if task not in algorithm.tasks:
                continue
            wanted = before_looking(algorithm, task, seed)
            if stage:
                asked = {_text(one.config) for one in wanted}
                own = [row for row in rows.values() if row.algorithm == name and row.task == task]
                seen = [row for row in own if row.table in pilot and _text(row.config) in asked]
                wanted = near_the_best(algorithm, task, seen, seed)
            for one in wanted:
                if (name, table, _text(one.config)) in rows:
                    continue
                if time.process_time() - began > 60 * minutes:
                    return
                if table not in divided:
                    divided = {table: Divided(folder / f"{table}.csv", task, seed)}
                row = evaluate(algorithm, one, table, divided[table])
                rows[row.key] = row
                yield row


# -- files -------------------------------------------------------------------------------------------------------------


def load(folder: Path) -> list[Row]:
    """All trainings in a folder, packed or not."""
    lines: list[str] = []
    if (packed := folder / "rows.jsonl.xz").is_file():
        lines += lzma.decompress(packed.read_bytes()).decode().splitlines()
    if (loose := folder / "rows.jsonl").is_file():
        lines += loose.read_text(encoding="utf-8").splitlines()
    rows = {row.key: row for row in (Row(**json.loads(line)) for line in lines)}
    return list(rows.values())


def append(folder: Path, row: Row) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row), separators=(",", ":")) + "\n")


def pack(folder: Path) -> None:
    """All rows into one compressed file."""
    text = "".join(json.dumps(asdict(row), separators=(",", ":")) + "\n" for row in load(folder))
    (folder / "rows.jsonl.xz").write_bytes(lzma.compress(text.encode(), preset=9))
    (folder / "rows.jsonl").unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, metavar="DIR", help="CSV files whose last column is called target")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--only", help="tables, by commas; all in the folder if not given")
    parser.add_argument("--algorithms", help="by commas; all that are installed if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=45, help="of CPU time, then it stops")
    parser.add_argument("--pack", action="store_true", help="compress, and train nothing")
    given = parser.parse_args(arguments)
    if given.pack:
        pack(given.out)
        return
    if given.tables is None:
        parser.error("--tables DIR")
    names = given.algorithms.split(",") if given.algorithms else available()
    tables = given.only.split(",") if given.only else sorted(file.stem for file in given.tables.glob("*.csv"))
    last, count = "", 0
    with threadpool_limits(1):
        for row in measure(given.tables, tables, names, given.out, given.seed, given.minutes):
            append(given.out, row)
            if not count:
                markdown.note_versions(given.out)
            count += 1
            if last != (last := f"{row.table} {row.algorithm}"):
                print(f"{time.strftime('%H:%M:%S')} {last}: {count} trainings so far", file=sys.stderr, flush=True)
    print(f"{count} trainings", file=sys.stderr)


if __name__ == "__main__":
    main()
