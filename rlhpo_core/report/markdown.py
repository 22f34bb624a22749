"""Markdown of texts that users wrote: shown literally, whatever it holds."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_MARKUP = frozenset("\\`*_[]|#~")


def escaped(text: str) -> str:
    """The text on one line, without meaning to Markdown, to HTML or to a table."""
    line = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{character}" if character in _MARKUP else character for character in line)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with the cells escaped; each row has as many as the header."""
    lines = [[escaped(cell) for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
