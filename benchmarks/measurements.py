"""The tables of docs/measurements, from the committed results. Nothing is measured.

python -m benchmarks.measurements             write them
python -m benchmarks.measurements --check     write nothing; exit 1 if a file is not what would be written
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import (
    artefacts,
    cnn,
    gate_error,
    markdown,
    paper_tables,
    real,
    real_priors,
    retune,
    sample_efficiency,
    stopping,
    transfer,
    warm_start,
)

FOLDER = Path(__file__).parents[1] / "docs" / "measurements"
SCRIPTS = (
    sample_efficiency, transfer, retune, real, real_priors, paper_tables, gate_error, warm_start, stopping, cnn,
    artefacts,
)  # fmt: skip
#: Written by hand, each saying why.
BY_HAND = ("performance.md",)


def contents() -> dict[Path, str]:
    """The text of each file, by its path; README.md lists them all."""
    written = {name: text for script in SCRIPTS for name, text in script.pages().items()}
    by_hand = {name: (FOLDER / name).read_text(encoding="utf-8") for name in BY_HAND}
    files = {"README.md": index(written, by_hand), **written}
    return {FOLDER / name: text for name, text in files.items()}


def index(written: Mapping[str, str], by_hand: Mapping[str, str]) -> str:
    """A list of the files by their headings."""
    rows = [
        [f"[{next(line[2:] for line in text.splitlines() if line.startswith('# '))}]({name})", made]
        for files, made in ((written, "generated"), (by_hand, "by hand; its raw results were not kept"))
        for name, text in files.items()
    ]
    parts = [
        markdown.GENERATED,
        "# Measurements",
        "Tables of what was measured, each with the command that measured it.\n"
        "`python -m benchmarks.measurements` writes the generated ones from the results in\n"
        "[benchmarks/results](../../benchmarks/results); `--check` compares.",
        markdown.table(["file", "how it is made"], rows),
    ]
    return "\n\n".join(parts) + "\n"


def outdated(made: Mapping[Path, str]) -> list[Path]:
    """Files that are missing or are not what would be written."""
    return [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    given = parser.parse_args()
    made = contents()
    if given.check:
        for path in (differing := outdated(made)):
            print(f"{path} is not what python -m benchmarks.measurements writes")
        sys.exit(len(differing) > 0)
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
