"""One thing that goes wrong with a table between a database and its model, and what has to become of it."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

Rng = np.random.Generator
TARGET = "target"
#: Other spellings of words that pandas takes for a missing cell.
_GAPS = {"None", "NA", "N/A", "NULL"}


@dataclass(frozen=True, kw_only=True)
class Mutated:
    """A file, and what has to become of it."""

    content: bytes
    ending: str = "csv"
    fields: dict[str, Any] = field(default_factory=dict)
    """Of ``data`` in the study."""
    names: dict[str, str] = field(default_factory=dict)
    """New name of a column to the former."""
    factors: dict[str, float] = field(default_factory=dict)
    """By what the numbers of a column are multiplied."""
    blank: tuple[str, int] | None = None
    """A column and a row (from 0) that has no value now."""
    relabelled: frozenset[str] = frozenset()
    """Columns with other categories for the same ones, or with times for numbers."""
    said: tuple[str, ...] = ()
    """What a note has to name."""
    refused: tuple[str, ...] | None = None
    """What the refusal has to name; ``None`` if the table is to be read."""


def _csv(table: pd.DataFrame, encoding: str = "utf-8", **how: Any) -> bytes:
    return table.to_csv(index=False, **how).encode(encoding)


def _text(table: pd.DataFrame) -> pd.DataFrame:
    """Cells as a file has them."""
    return pd.read_csv(io.BytesIO(_csv(table)), dtype=str, keep_default_na=False)


def _numbers(table: pd.DataFrame, least: int = 3) -> list[str]:
    """Columns of numbers that are not negative, with some different values."""
    return [
        str(name)
        for name, column in table.items()
        if name != TARGET
        and pd.api.types.is_numeric_dtype(column)
        and column.nunique() >= least
        and column.min() >= 0
        and column.notna().all()
    ]


def _categories(table: pd.DataFrame) -> list[str]:
    return [str(name) for name, column in table.items() if name != TARGET and not pd.api.types.is_numeric_dtype(column)]


def _pick(rng: Rng, names: list[str]) -> str:
    if not names:
        raise LookupError("this table has no such column")
    return str(rng.choice(names))


def _with(table: pd.DataFrame, name: str, cells: list[Any]) -> pd.DataFrame:
    changed = _text(table)
    changed[name] = cells
    return changed


# -- headers -----------------------------------------------------------------------------------------------------------


def awkward_name(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Names that XGBoost or YAML stumbles over."""
    name = _pick(rng, [str(each) for each in table if each != TARGET])
    new = str(
        rng.choice(
            [f" {name}", f"{name} [%]", f"{name}<1", "7", f"größe: {name} #1", f"{name}, net", 'say "x"', "x" * 200]
        )
    )
    return Mutated(content=_csv(table.rename(columns={name: new})), names={new: name})


def twin_names(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Two columns of one name."""
    one, other = rng.choice([str(each) for each in table if each != TARGET], 2, replace=False)
    return Mutated(content=_csv(table.rename(columns={one: other})), refused=(repr(str(other)), "columns"))


def row_numbers(rng: Rng, table: pd.DataFrame) -> Mutated:
    """The index that pandas writes."""
    return Mutated(content=table.to_csv().encode(), said=("counts the rows",))


def identifier(rng: Rng, table: pd.DataFrame) -> Mutated:
    """A key of the database."""
    key = [f"{rng.integers(16**8):08x}-{i}" for i in range(len(table))]
    return Mutated(content=_csv(table.assign(key=key)), refused=("'key'", "identifiers", "data.drop"))


def trailing_delimiter(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Each row ends in a delimiter that the header lacks."""
    head, rows = _csv(table).decode().split("\n", 1)
    return Mutated(content=(head + "\n" + rows.replace("\n", ",\n")).encode(), refused=("row 1", "fields"))


# -- separators and encodings ------------------------------------------------------------------------------------------


def separator(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Semicolons, tabs and bars."""
    return Mutated(content=_csv(table, sep=str(rng.choice([";", "\t", "|"]))), fields={"decimal": "."})


def decimal_comma(rng: Rng, table: pd.DataFrame) -> Mutated:
    """As spreadsheets write where decimals have commas."""
    broken = [name for name in _numbers(table) if (table[name] % 1 != 0).any()]
    if TARGET in table and pd.api.types.is_float_dtype(table[TARGET]):
        broken.append(TARGET)
    _pick(rng, broken)
    return Mutated(content=_csv(table, sep=";", decimal=","))


def line_of_excel(rng: Rng, table: pd.DataFrame) -> Mutated:
    """``sep=;`` above the header."""
    return Mutated(content=b"sep=;\r\n" + _csv(table, sep=";", lineterminator="\r\n"), fields={"decimal": "."})


def encoding(rng: Rng, table: pd.DataFrame) -> Mutated:
    """With marks, of Windows, compressed."""
    chosen = str(rng.choice(["utf-8-sig", "utf-16", "cp1252", "gz"]))
    if chosen == "gz":
        return Mutated(content=gzip.compress(_csv(table), mtime=0), ending="csv.gz")
    if chosen == "cp1252":
        name = _pick(rng, [str(each) for each in table if each != TARGET])
        return Mutated(
            content=_csv(table.rename(columns={name: f"größe {name}"}), chosen), names={f"größe {name}": name}
        )
    return Mutated(content=_csv(table, chosen))


def damaged_gz(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Cut off on its way."""
    data = gzip.compress(_csv(table), mtime=0)
    cut = int(rng.integers(20, len(data) - 8))
    return Mutated(content=data[:cut], ending="csv.gz", refused=("damaged or cut off",))


def quotes_and_ends(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Everything in quotes, with the line ends of Windows."""
    return Mutated(content=_csv(table, quoting=1, lineterminator="\r\n"))


# -- numbers as text ---------------------------------------------------------------------------------------------------


def sign_or_unit(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Currency, percent, kilometres, thousands."""
    name = _pick(rng, _numbers(table))
    form = str(rng.choice(["${:,}", "€ {}", "{}km", "{} kg", "{:,} USD", "{} %", "CHF {}"]))
    return Mutated(content=_csv(_with(table, name, [form.format(value) for value in table[name]])), said=(repr(name),))


def multiplier(rng: Rng, table: pd.DataFrame) -> Mutated:
    """12k beside 900."""
    name = _pick(rng, _numbers(table))
    cells = [f"{value * 2}" if i % 3 else f"{Decimal(str(value)) * 2 / 1000:f}k" for i, value in enumerate(table[name])]
    return Mutated(content=_csv(_with(table, name, cells)), factors={name: 2.0}, said=(repr(name),))


def two_scales(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Kilometres beside metres."""
    name = _pick(rng, _numbers(table))
    cells = [f"{value} m" if i % 2 else f"{Decimal(str(value)) / 1000:f} km" for i, value in enumerate(table[name])]
    return Mutated(content=_csv(_with(table, name, cells)), said=(repr(name),))


def two_measures(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Euros beside dollars."""
    name = _pick(rng, _numbers(table))
    pair = [("${}", "€{}"), ("{} kg", "{} km"), ("{} %", "{}")][rng.integers(3)]
    cells = [pair[i % 2].format(value) for i, value in enumerate(table[name])]
    return Mutated(content=_csv(_with(table, name, cells)), refused=(repr(name), "row 1", "row 2", "different units"))


def thousands(rng: Rng, table: pd.DataFrame) -> Mutated:
    """1,234 and 1.234,5 and 1 234 and 1'234."""
    name = _pick(rng, _numbers(table))
    larger = [Decimal(str(value)) * 1000 + Decimal("0.5") for value in table[name]]
    style = int(rng.integers(4))
    signs = [(",", "."), (".", ","), (" ", "."), ("'", ".")][style]
    cells = [f"{value:,f}".replace(",", "\0").replace(".", signs[1]).replace("\0", signs[0]) for value in larger]
    changed = _with(table, name, cells)
    content = _csv(changed, sep=";") if style == 1 else _csv(changed)
    plain = signs[1] == "." and max(larger) < 1000
    return Mutated(
        content=content,
        fields={"decimal": "."} if style == 1 else {},
        factors={name: 1000.0},
        said=() if plain else (repr(name),),
    )


def ambiguous_thousands(rng: Rng, table: pd.DataFrame) -> Mutated:
    """1.234 in a file of which nothing tells whether that is more than a thousand."""
    whole = table[[name for name in table if name == TARGET or not pd.api.types.is_float_dtype(table[name])]]
    if pd.api.types.is_float_dtype(table[TARGET]):
        raise LookupError("decimals in the target tell")
    name = _pick(rng, _numbers(whole))
    mark = str(rng.choice([",", "."]))
    cells = [f"{int(value) + 1000:,}".replace(",", mark) for value in whole[name]]
    return Mutated(content=_csv(_with(whole, name, cells), sep=";"), refused=(repr(name), "data.decimal"))


def stray_text(rng: Rng, table: pd.DataFrame) -> Mutated:
    """A word among numbers."""
    name, row = _pick(rng, _numbers(table, 25)), int(rng.integers(len(table)))
    form = str(rng.choice(["{}", "${}", "{} km"]))
    cells = [form.format(value) for value in table[name]]
    cells[row] = str(rng.choice(["sensor off", "see note", "unknown", "#REF!", "-"]))
    return Mutated(content=_csv(_with(table, name, cells)), refused=(repr(name), f"row {row + 1}"))


def too_large(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Numbers that XGBoost cannot hold."""
    name, row = _pick(rng, _numbers(table)), int(rng.integers(len(table)))
    cells = [str(value) for value in table[name]]
    cells[row] = str(rng.choice(["1e39", "inf", "-1e300"]))
    return Mutated(content=_csv(_with(table, name, cells)), refused=(repr(name), f"row {row + 1}"))


# -- dates and codes ---------------------------------------------------------------------------------------------------


def dates(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Days in place of whole numbers."""
    name = _pick(
        rng, [each for each in _numbers(table, 15) if (table[each] % 1 == 0).all() and table[each].max() < 30000]
    )
    form = str(rng.choice(["%Y-%m-%d", "%d.%m.%Y", "%Y-%m-%dT%H:%M:%SZ", "%d %b %Y", "%Y/%m/%d", "%B %d, %Y"]))
    days = pd.Timestamp("1995-01-01") + pd.to_timedelta(table[name], unit="D")
    cells = days.dt.strftime(form).tolist()
    return Mutated(content=_csv(_with(table, name, cells)), relabelled=frozenset({name}), said=(repr(name), "time"))


def ambiguous_dates(rng: Rng, table: pd.DataFrame) -> Mutated:
    """No day above the twelfth."""
    name = _pick(rng, _numbers(table, 12))
    rank = table[name].rank(method="dense").astype(int) % 12 + 1
    cells = [f"{value:02d}/{value % 12 + 1:02d}/2024" for value in rank]
    return Mutated(content=_csv(_with(table, name, cells)), refused=(repr(name), "%d/%m/%Y", "data.columns"))


def codes(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Categories as digits that begin with 0, and as versions."""
    name = _pick(rng, [each for each in _categories(table) if table[each].notna().all()])
    numbers = pd.factorize(table[name], sort=True)[0]
    form = "{:03d}" if rng.random() < 0.5 else "1.{}"
    if form != "{:03d}":
        numbers = numbers + 9
        if numbers.max() < 10:
            form, numbers = "{:02d}", numbers - 9
    return Mutated(
        content=_csv(_with(table, name, [form.format(number) for number in numbers])),
        relabelled=frozenset({name}),
        said=(repr(name),),
    )


# -- blanks ------------------------------------------------------------------------------------------------------------


def blank_cell(rng: Rng, table: pd.DataFrame) -> Mutated:
    """A blank, or a word for nothing, in place of a value."""
    name, row = _pick(rng, _numbers(table) + _categories(table)), int(rng.integers(len(table)))
    cells = _text(table)[name].tolist()
    cells[row] = str(rng.choice(["", " ", "   ", "NA", "NULL", "\t"]))
    return Mutated(content=_csv(_with(table, name, cells)), blank=(name, row))


def blank_lines(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Lines without anything."""
    lines = _csv(table).decode().split("\n")
    for _ in range(3):
        lines.insert(int(rng.integers(1, len(lines))), "")
    return Mutated(content="\n".join(lines).encode())


def blank_target(rng: Rng, table: pd.DataFrame) -> Mutated:
    """A row that nobody has labelled."""
    row = int(rng.integers(len(table)))
    cells = _text(table)[TARGET].tolist()
    cells[row] = str(rng.choice(["", " ", "NA"]))
    return Mutated(content=_csv(_with(table, TARGET, cells)), refused=(repr(TARGET), f"row {row + 1}"))


def torn_row(rng: Rng, table: pd.DataFrame) -> Mutated:
    """A row with a field too few or too many."""
    lines = _csv(table).decode().rstrip("\n").split("\n")
    row = int(rng.integers(1, len(lines)))
    lines[row] = lines[row].rsplit(",", 1)[0] if rng.random() < 0.5 else lines[row] + ",7"
    return Mutated(content="\n".join(lines).encode(), refused=(f"row {row}", "fields"))


# -- spellings and the target ------------------------------------------------------------------------------------------


def spellings(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Blanks, case and dots."""
    names = [name for name in [*_categories(table), TARGET] if not pd.api.types.is_numeric_dtype(table[name])]
    name = _pick(rng, [each for each in names if table[each].astype(str).str.contains("[a-z]").all()])
    change = [str.upper, str.title, lambda text: f" {text} ", lambda text: f"{text}."][rng.integers(4)]
    if {change(value) for value in table[name].dropna()} & _GAPS:
        raise LookupError("a category is written like a gap, such as None")
    cells = [change(value) if i % 5 == 0 and isinstance(value, str) else value for i, value in enumerate(table[name])]
    return Mutated(content=_csv(_with(table, name, cells)))


def target_in_words(rng: Rng, table: pd.DataFrame) -> Mutated:
    """A number to predict, as money."""
    if not pd.api.types.is_numeric_dtype(table[TARGET]) or table[TARGET].nunique() < 40:
        raise LookupError("the target holds classes")
    return Mutated(content=_csv(_with(table, TARGET, [f"${value:,}" for value in table[TARGET]])), said=(repr(TARGET),))


def copy_of_target(rng: Rng, table: pd.DataFrame) -> Mutated:
    """What is known only afterwards."""
    if pd.api.types.is_numeric_dtype(table[TARGET]) and table[TARGET].nunique() >= 40:
        return Mutated(content=_csv(table.assign(after=table[TARGET] * 2.54)), refused=("'after'", "gives the target"))
    classes = table[TARGET].astype(str)
    return Mutated(content=_csv(table.assign(after="was " + classes)), refused=("'after'", "gives the target"))


# -- Parquet -----------------------------------------------------------------------------------------------------------


def typed(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Types of warehouses: DECIMAL, nullable, dictionaries."""
    changed = table.convert_dtypes()
    name = _pick(rng, _numbers(table))
    changed[name] = [Decimal(str(value)) for value in table[name]]
    for other in _categories(table):
        changed[other] = table[other].astype("category") if rng.random() < 0.5 else changed[other]
    buffer = io.BytesIO()
    changed.to_parquet(buffer, index=False)
    return Mutated(content=buffer.getvalue(), ending="parquet")


def index_of_times(rng: Rng, table: pd.DataFrame) -> Mutated:
    """A time series with its index."""
    stamps = pd.date_range("2024-01-01", periods=len(table), freq="h", tz="Europe/Berlin", name="measured at")
    buffer = io.BytesIO()
    table.set_index(stamps).to_parquet(buffer)
    return Mutated(content=buffer.getvalue(), ending="parquet", fields={"drop": ["measured at"]})


def list_column(rng: Rng, table: pd.DataFrame) -> Mutated:
    """Lists in cells."""
    buffer = io.BytesIO()
    table.assign(tags=[["a", "b"]] * len(table)).to_parquet(buffer, index=False)
    return Mutated(content=buffer.getvalue(), ending="parquet", refused=("'tags'", "data.drop"))


KINDS: dict[str, Callable[[Rng, pd.DataFrame], Mutated]] = {
    function.__name__: function
    for function in (
        awkward_name, twin_names, row_numbers, identifier, trailing_delimiter, separator, decimal_comma, line_of_excel,
        encoding, damaged_gz, quotes_and_ends, sign_or_unit, multiplier, two_scales, two_measures, thousands,
        ambiguous_thousands, stray_text, too_large, dates, ambiguous_dates, codes, blank_cell, blank_lines,
        blank_target, torn_row, spellings, target_in_words, copy_of_target, typed, index_of_times, list_column,
    )
}  # fmt: skip


def mutations(tables: dict[str, pd.DataFrame], count: int, seed: int) -> list[tuple[str, str, Mutated]]:
    """So many (table, kind, mutation), by seed: tables and kinds in turn, kinds that a table cannot have left out."""
    made: list[tuple[str, str, Mutated]] = []
    names, kinds, turn = list(tables), list(KINDS), 0
    while len(made) < count:
        rng = np.random.default_rng([seed, turn])
        name, kind = names[turn % len(names)], kinds[(turn // len(names) + turn) % len(kinds)]
        turn += 1
        try:
            made.append((name, kind, KINDS[kind](rng, tables[name])))
        except LookupError:
            continue
    return made
