"""Files in the repository that a command makes: written, or with ``--check`` compared with what would be written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import unified_diff
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SHOWN_LINES = 20


def parser(description: str) -> argparse.ArgumentParser:
    """The command line that all generators share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    return parser


def main(description: str, contents: Callable[[], Mapping[Path, str]], arguments: Sequence[str] | None = None) -> None:
    """Run a generator.

    Args:
        description: What it makes, for ``--help``.
        contents: Makes the text of each file, by its path.
        arguments: Of the command line; ``sys.argv`` by default.

    Raises:
        SystemExit: with ``--check``, if a file is missing or differs; its message shows where.
    """
    check = parser(description).parse_args(arguments).check
    made = contents()
    if check:
        if found := [difference for path, text in made.items() if (difference := _difference(path, text))]:
            sys.exit("\n".join([*found, "out of date: run `make generate`, look at the changes, and commit them"]))
        return
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")


def _difference(path: Path, text: str) -> str:
    """The first lines in which the file differs from the text; empty if it does not."""
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    lines = list(unified_diff(kept.splitlines(), text.splitlines(), name, "generated", lineterm="", n=0))
    if kept != text and not lines:
        return f"{name}: the end of the file differs"
    more = [f"… {len(lines) - _SHOWN_LINES} more lines"] if len(lines) > _SHOWN_LINES else []
    return "\n".join([*lines[:_SHOWN_LINES], *more])
