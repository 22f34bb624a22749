"""What a study expects of its table: the kind of each column, and the label, as its first table had them.

A kind is inferred once, from the first table. Inferred anew at each reading it would change with the rows: truth values
with their first gap, text that is all digits this week, a column that is blank throughout. The schema lies with the
study's files and with the version that was trained on the table; later tables are read by it (``columns``). What it
lacks, such as a new column, is added and reported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, Self

from pydantic import Field

from rlhpo_core.frozen import Frozen

Task = Literal["classification", "regression"]
#: ``boolean`` columns are 0 and 1; ``empty`` ones were blank throughout, so that nothing is known of them yet.
#: ``time`` ones are days since a day of their own.
Kind = Literal["number", "boolean", "category", "time", "empty", "image"]
Label = str | int | float | bool

#: Name of the file, in a study's store and in a registered model.
SCHEMA = "schema.json"
#: Rows and values that a message names.
_NAMED = 5


class NumberFormat(Frozen):
    """How numbers are written in a column of text: ``conversions.formatted_numbers`` reads them by it."""

    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", " ", "'"] = ""
    units: dict[str, float] = Field(default_factory=lambda: {"": 1.0})
    """What stands around the digits, such as ``$`` or ``km``, and the factor of each; ``""`` for nothing."""


class TimeFormat(Frozen):
    """How times are written in a column, and from when they are counted: ``conversions.times_of`` reads them by it."""

    format: str
    """Of ``strptime``, or ``ISO8601``."""
    origin: str
    """ISO 8601. Values are days since then."""


class ColumnSchema(Frozen):
    """What one column holds, and how it is written."""

    kind: Kind
    categories: tuple[str, ...] = ()
    """All that were ever seen, sorted; of a category column only."""
    spellings: dict[str, str] = Field(default_factory=dict)
    """Other spellings of classes in the first table, and the class of each; of the label only."""
    exact: bool = False
    """Whether each spelling is a category of its own, as it was declared."""
    number: NumberFormat | None = None
    """Of a column of numbers that are written as text; ``None`` for plain numbers."""
    time: TimeFormat | None = None
    """Of a column of times only."""
    note: str = ""
    """How its values were converted, for a person to read; empty if they are what they look like."""
    shape: tuple[int, ...] = ()
    """(height, width, channels) of each image; of images only."""


class TableSchema(Frozen):
    """What a table holds."""

    task: Task
    classes: tuple[Label, ...] = ()
    """Of the label, all that were ever seen, sorted; empty for regression."""
    columns: dict[str, ColumnSchema]
    """Of what the target is predicted from."""
    label: ColumnSchema | None = None
    """How the target is written, where it is converted; ``None`` where it is what it looks like."""

    def without(self, names: Collection[str]) -> Self:
        """The same of fewer columns."""
        columns = {name: column for name, column in self.columns.items() if name not in names}
        return self.model_copy(update={"columns": columns})

    @property
    def as_text(self) -> frozenset[str]:
        """Names of the columns whose values are text, whatever they look like: ``007`` is not 7, nor ``1.234`` 1234."""
        return frozenset(
            name
            for name, column in self.columns.items()
            if column.kind in ("category", "time") or column.number is not None
        )

    @property
    def label_is_text(self) -> bool:
        """Whether the label's values are text, whatever they look like."""
        written = self.label is not None and self.label.number is not None
        return written or (bool(self.classes) and all(isinstance(label, str) for label in self.classes))

    def notes(self, target: str) -> tuple[str, ...]:
        """How values of columns and of the target were converted, for a person to read."""
        described = {**self.columns, **({} if self.label is None else {target: self.label})}
        return tuple(f"column {name!r}: {column.note}" for name, column in described.items() if column.note)


class SchemaChange(Frozen):
    """What a table has that its schema lacks."""

    column: str
    change: Literal["is new", "was blank throughout and is not any more", "has new categories", "has new classes"]
    values: tuple[str, ...] = ()
    """The first few that are new."""
    rows: tuple[int, ...] = ()
    """The first few rows that have them, counted from 1 below the header."""
    count: int = 0
    """How many rows have them."""

    @property
    def text(self) -> str:
        """For a person to read."""
        values = f" {', '.join(map(repr, self.values))}" if self.values else ""
        rows = f" in {listed_rows(self.rows, self.count)}" if self.rows else ""
        return f"column {self.column!r} {self.change}{values}{rows}"


def few(values: Iterable[object]) -> tuple[str, ...]:
    """The first of some values, as text, each once."""
    return tuple(dict.fromkeys(map(str, values)))[:_NAMED]


def few_rows(positions: Iterable[int]) -> tuple[int, ...]:
    """The first of some rows as a person counts them.

    Args:
        positions: Ascending, from 0.
    """
    return tuple(int(position) + 1 for position in list(positions)[:_NAMED])


def listed_rows(rows: Collection[int], count: int) -> str:
    """Rows for a person to read: ``rows 3, 7 and 5 more``.

    Args:
        rows: The first of them.
        count: How many there are in all.
    """
    word = "row" if count == 1 else "rows"
    more = f" and {count - len(rows)} more" if count > len(rows) else ""
    return f"{word} {', '.join(map(str, rows))}{more}"
