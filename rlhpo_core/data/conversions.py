"""How a cell becomes a number, a time or a category: pure functions of columns, the same in training and in serving.

A served model carries this very file and runs it where rlhpo is not installed, so it imports nothing of rlhpo, and what
was found out about a column (``schema``) comes to it as plain mappings.

Every function takes one column as a reader gave it (text, numbers, dates, mixed cells, of whatever dtype) and returns
what it stands for, with a mask of the cells that stand for nothing of the kind.
"""

import datetime
import numbers
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

#: What is read in a column of truth values.
TRUTHS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
#: A time format that is any of ISO 8601; that of a time of day is a ``strptime`` format without a date.
ISO = "ISO8601"
#: The largest number that XGBoost can hold: float32.
LARGEST = float(np.finfo(np.float32).max)
_DAY = 86400.0
#: Signs and codes that may stand before a number; all other units stand behind it.
CURRENCIES = (
    "$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₫", "₪", "฿", "US$", "A$", "C$", "R$", "USD", "EUR", "GBP", "JPY", "CHF",
    "INR", "CNY", "AUD", "CAD", "SEK", "NOK", "DKK", "PLN", "BRL", "Rs", "Rs.", "kr", "zł",
)  # fmt: skip
#: Blanks that stand between digits, or around them: the usual, the one that does not break, and the narrow one.
_BLANKS = "\u00a0\u202f\u2009 "


def numbers_of(column: Any, reading: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
    """Numbers, (N,) float64, NaN where missing, and a mask (N,) of the cells that are none.

    Numbers, truth values, decimals and durations (in seconds) are taken as they are. Text is read as a number, or, with
    ``reading``, by its signs and units; blank text is missing.

    Args:
        reading: ``decimal`` and ``thousands``, the signs within numbers, and ``units``: what stands around them, such
            as ``$`` or ``km``, and the factor of each; ``""`` is that of none.
    """
    column = _without_dictionary(column)
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return column.dt.total_seconds().to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), bool)
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_any_real_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), bool)
    cells = column.astype(object)
    cells = cells.where(cells.notna(), None)
    is_text = np.array([isinstance(cell, str) for cell in cells], dtype=bool)
    parsed = np.array([np.nan if text else _number(cell) for cell, text in zip(cells, is_text, strict=True)])
    if is_text.any():
        text = cells[is_text].astype(str)
        parsed[is_text] = plain_numbers(text) if reading is None else formatted_numbers(text, **reading)
    blank = np.array([cell is None or (isinstance(cell, str) and not cell.strip()) for cell in cells], bool)
    return parsed, np.isnan(parsed) & ~blank


def plain_numbers(text: Any) -> Any:
    """Text (N,) as float64; NaN where it is no number. ``NaN`` written out is none either."""
    return pd.to_numeric(text.astype(object), errors="coerce").to_numpy(dtype=np.float64)


def formatted_numbers(text: Any, decimal: str, thousands: str, units: Mapping[str, float]) -> Any:
    """Text (N,) as float64 in the base unit, by the signs within numbers and the units; NaN where not so."""
    parts = split_units(text)
    factors = parts["unit"].map(dict(units)).to_numpy(dtype=np.float64, na_value=np.nan)
    digits = parts["digits"].fillna("")
    if thousands:
        sign = f"[{_BLANKS}]" if thousands == " " else re.escape(thousands)
        inner = re.escape(decimal)
        # Groups of three, or, as in India, groups of two before the last.
        groups = rf"\d{{1,3}}(?:{sign}\d{{3}})+|\d{{1,2}}(?:{sign}\d{{2}})*{sign}\d{{3}}"
        grouped = digits.str.fullmatch(rf"(?:{groups})(?:{inner}\d+)?")
        digits = digits.where(~grouped, digits.str.replace(rf"{sign}", "", regex=True))
    if decimal != ".":
        # What still has a point is not of this form.
        digits = digits.where(~digits.str.contains(".", regex=False), "").str.replace(decimal, ".", regex=False)
    values = plain_numbers(digits.where(digits.str.fullmatch(r"\d*\.?\d+(?:[eE][+-]?\d+)?|\d+\."), None))
    return np.where(parts["minus"], -values, values) * factors


def split_units(text: Any) -> Any:
    """Text (N,) in its parts: ``minus``, ``digits`` with the signs within them, and the ``unit``; None where not so.

    A unit is a currency before or after the digits, or anything after them. ``…`` stands for the digits between what is
    before and after, and after what stands before them and is no currency.
    """
    stripped = text.astype(str).str.strip()
    digits = rf"\d[\d.,'{_BLANKS}]*(?:[eE][+-]?\d+)?|[.,]\d+"
    pattern = rf"^([+\-−]?)[{_BLANKS}]*([^\d+\-−.,'\s]*)[{_BLANKS}]*([+\-−]?)[{_BLANKS}]*({digits})(.*)$"
    found = stripped.str.extract(pattern, expand=True).astype(object)
    before, after = found[1].fillna("").astype(str), found[4].fillna("").astype(str)
    # A digit may be followed by a blank and then the unit: the blank is part of neither.
    digits_only, after = found[3].astype(object), after.str.strip()
    digits_only = digits_only.where(digits_only.isna(), digits_only.fillna("").astype(str).str.rstrip())
    before = before.where(before.isin(["", *CURRENCIES]) | (after != ""), before + "…")
    unit = before.where(after == "", after.where(before == "", before + "…" + after)).where(found[3].notna(), None)
    signs = found[0].fillna("").astype(str) + found[2].fillna("").astype(str)
    return pd.DataFrame({"minus": signs.str.contains("[−-]"), "digits": digits_only, "unit": unit}, index=text.index)


def times_of(column: Any, time_format: str, origin: str) -> tuple[Any, Any]:
    """Times as days since an origin, (N,) float64, NaN where missing, and a mask (N,) of the cells that are none.

    Dates and times are taken as they are, those without a zone as UTC. Text is read by the format, or as ISO 8601.

    Args:
        time_format: Of ``strptime``, or ``ISO``.
        origin: ISO 8601; a constant, so that XGBoost's float32 has digits left for minutes.
    """
    column = _without_dictionary(column)
    start = pd.Timestamp(origin)
    start = start.tz_localize("UTC") if start.tzinfo is None else start
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        moments = pd.to_datetime(column, utc=True)
        return _days(moments, start), np.zeros(len(column), bool)
    cells = column.astype(object)
    cells = cells.where(cells.notna(), None)
    text = pd.Series([_as_time_text(cell) for cell in cells], index=cells.index, dtype=object)
    blank = np.array([cell is None or not cell.strip() for cell in text], bool)
    moments = parsed_times(text, time_format)
    if time_format != ISO:
        moments = moments.where(moments.notna() | pd.Series(blank, index=text.index), parsed_times(text, ISO))
    days = _days(moments, start)
    return days, np.isnan(days) & ~blank


def parsed_times(text: Any, time_format: str) -> Any:
    """Text (N,) as times in UTC; NaT where it is none by the format. Bare digits are no ISO 8601 here."""
    text = text.astype(object).where(text.notna(), None)
    stripped = text.map(lambda cell: cell.strip(), na_action="ignore")
    if time_format == ISO:
        dated = stripped.map(lambda cell: bool(_DATED.match(cell)), na_action="ignore")
        stripped = stripped.where(dated.astype(object) == True, None)  # noqa: E712  (it holds None, too)
    return pd.to_datetime(stripped, format=time_format, errors="coerce", utc=True)


_DATED = re.compile(r"\d{4}-\d{1,2}")


def truths_of(column: Any) -> tuple[Any, Any]:
    """Truth values as 0 and 1, (N,) float64, NaN where missing, and a mask (N,) of the cells that are none."""
    column = _without_dictionary(column)
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), bool)
    words = column.astype(str).str.strip().str.lower()
    truths = words.map(TRUTHS).where(column.notna()).to_numpy(dtype=np.float64, na_value=np.nan)
    return truths, np.isnan(truths) & column.notna().to_numpy() & (words != "").to_numpy()


def respelt(text: Any, categories: Sequence[str], exact: bool = False) -> Any:
    """Text (N,) with each value as the category that it is another spelling of, as objects; blank text is None.

    A value that is a category stays, and so becomes what differs from one category alone by blanks, case or a dot at
    its end. All else stays what it is, without blanks around it.

    Args:
        exact: Whether each spelling is a category of its own.
    """
    known = set(categories)
    by_key: dict[str, str | None] = {}
    for category in categories:
        key = spelling_key(category)
        by_key[key] = None if key in by_key else category

    def category_of(value: str) -> str | None:
        if value in known:
            return value
        if not value.strip():
            return None
        if exact:
            return value
        return by_key.get(spelling_key(value)) or value.strip()

    distinct = {value: category_of(value) for value in pd.unique(text.dropna())}
    return pd.Series([distinct.get(value) for value in text.astype(object)], index=text.index, dtype=object)


def spelling_key(text: str) -> str:
    """The same for all spellings of a text: without blanks around it, a dot at its end, and case."""
    stripped = " ".join(text.split()).casefold()
    return stripped.rstrip(".").rstrip() or stripped


def _number(cell: Any) -> float:
    """A cell that is no text as a number; NaN if it is none."""
    if cell is None:
        return float("nan")
    if isinstance(cell, datetime.timedelta | np.timedelta64):
        return float(pd.Timedelta(cell).total_seconds())
    return float(cell) if isinstance(cell, bool | np.bool_ | numbers.Real | Decimal) else float("nan")


def _as_time_text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, datetime.datetime | datetime.date | np.datetime64):
        return str(pd.Timestamp(cell).isoformat())
    if isinstance(cell, datetime.time):
        return cell.isoformat("seconds")
    # 20240531 as a reader has made a number of it.
    return f"{cell:.0f}" if isinstance(cell, numbers.Real) and float(cell).is_integer() else str(cell)


def _days(moments: Any, origin: Any) -> Any:
    return (moments - origin).dt.total_seconds().to_numpy(dtype=np.float64, na_value=np.nan) / _DAY


def _without_dictionary(column: Any) -> Any:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(column.cat.categories.dtype)
    return column
