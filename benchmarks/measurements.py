"""The files of docs/measurements, and their pictures, from the committed results. Nothing is measured.

    python -m benchmarks.measurements             write them
    python -m benchmarks.measurements --check     write nothing; exit 1 if a file is not what would be written

``--check`` leaves the pictures out: how a library draws text is no property of a result.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import (
    artefacts,
    gate_error,
    markdown,
    paper_tables,
    real,
    retune,
    sample_efficiency,
    traces,
    transfer,
    warm_start,
)

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = (sample_efficiency, transfer, retune, real, paper_tables, gate_error, warm_start, artefacts)
DRAWN = (sample_efficiency, transfer, retune, real)
#: Written by hand, each saying why.
BY_HAND = ("performance.md",)


def documents() -> dict[str, str]:
    """File name → content of every generated file, with a list of all files in README.md."""
    written = {name: text for script in SCRIPTS for name, text in script.pages().items()}
    by_hand = {name: (DOCS / "measurements" / name).read_text(encoding="utf-8") for name in BY_HAND}
    return {"README.md": contents(written, by_hand), **written}


def contents(written: dict[str, str], by_hand: dict[str, str]) -> str:
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


def differences(documents: dict[str, str], folder: Path) -> list[str]:
    """Names of files that are missing, are not what would be written, or that nobody writes."""
    there = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.md")}
    changed = [name for name, text in documents.items() if there.get(name) != text]
    return sorted([*changed, *(there.keys() - documents.keys() - set(BY_HAND))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    given = parser.parse_args()
    folder, made = DOCS / "measurements", documents()
    if given.check:
        changed = differences(made, folder)
        for name in changed:
            print(f"docs/measurements/{name} is not what python -m benchmarks.measurements writes")
        sys.exit(bool(changed))
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    for script in DRAWN:
        script.pictures(DOCS / "images")


if __name__ == "__main__":
    traces.single_threaded()
    main()
