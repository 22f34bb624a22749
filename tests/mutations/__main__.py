"""All mutations: each is read, trained on and served rightly, or refused with column and row.

python -m tests.mutations [--count 300] [--seed 0] [--tables FOLDER]

FOLDER holds CSV files with a column ``target``; without it, six tables of the examples and of scikit-learn are used.
Prints what is wrong with any, and how many were read and refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.mutations.judging import clean, judged, real_tables
from tests.mutations.mutating import mutations


def main() -> int:
    """The number of mutations that came out wrong, at most 100."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", type=Path)
    options = parser.parse_args()
    tables = real_tables(options.tables)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        before = {name: clean(name, table, Path(folder)) for name, table in tables.items()}
        for i, (name, kind, mutated) in enumerate(mutations(tables, options.count, options.seed)):
            wrong = judged(before[name], mutated, Path(folder) / f"{i}-{kind}")
            outcomes["wrong" if wrong else "refused" if mutated.refused is not None else "read"] += 1
            if wrong:
                print(f"{i} {name} {kind}: {wrong}", flush=True)
    print(
        f"{options.count} mutations of {len(tables)} tables (seed {options.seed}): {outcomes['read']} trained on and "
        f"served as the clean table, {outcomes['refused']} refused with what is wrong, {outcomes['wrong']} wrong"
    )
    return min(outcomes["wrong"], 100)


if __name__ == "__main__":
    sys.exit(main())
