"""What kind of column some text is, and how it is written: pure, from the text of a table's first reading alone.

Nothing is guessed where two readings would give different numbers: 03/04/2024 is a day in March or in April, and 1,234
is a thousand or a little more than one. Such a column is refused, with what to write into the study file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from rlhpo_core.arrays import Bools
from rlhpo_core.data import conversions
from rlhpo_core.data.conversions import CURRENCIES, ISO
from rlhpo_core.data.schema import NumberFormat, TimeFormat, few_rows, listed_rows
from rlhpo_core.errors import UserError

#: A text column of which more than this share is numbers or times, and with more different ones than this, is taken for
#: such with stray text among them. (Few different ones are grades, such as 2, 3, 4, 5more.)
_MOSTLY, _GRADES = 0.5, 20
#: Versions of one thing are no more than so many.
_VERSIONS = 50
#: Distinct values that are tried before all are.
_PROBE = 20
#: Units that measure the same, with what each is in the first: multipliers, which go by case, and units, which do not.
#: Ones that are not listed are taken where all values have the same.
_DIMENSIONS: tuple[dict[str, float], ...] = (
    {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "mn": 1e6, "Mio": 1e6, "mio": 1e6, "million": 1e6, "B": 1e9, "bn": 1e9},
    {"m": 1.0, "mm": 1e-3, "cm": 1e-2, "km": 1e3},
    {"g": 1.0, "mg": 1e-3, "kg": 1e3, "t": 1e6},
    {"l": 1.0, "ml": 1e-3, "cl": 1e-2},
    {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12},
    {"s": 1.0, "ms": 1e-3, "sec": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0},
    {"%": 1.0},
)
_GENERIC = re.compile(r"[^\W\d_…]+[\w/°²³ .]{0,11}|°[CFK]?|[\"'%‰]")

_DATES = (
    "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%Y",
    "%m-%d-%Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%b %Y", "%B %Y",
    "%b-%Y", "%b-%y",
)  # fmt: skip
_CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p")
#: Formats of times, those first that are tried first; bare digits come last, in ``_compact``.
TIME_FORMATS = (ISO, *_DATES, *(f"{date} {clock}" for date in _DATES for clock in _CLOCKS), *_CLOCKS)
_COMPACT = "%Y%m%d"


class ColumnError(UserError):
    """A column that cannot be used, or not as the kind that it is known to have."""


@dataclass(frozen=True)
class Reading:
    """What a column of text holds."""

    kind: Literal["number", "boolean", "category", "time"]
    number: NumberFormat | None = None
    time: TimeFormat | None = None
    note: str = ""
    """Why, if that does not go without saying."""


def recognised(name: str, text: pd.Series, decimal: str | None = None, typed: bool = False) -> Reading:
    """What text holds.

    Args:
        text: (N,) what is there, not blank, with rows from 0 as its index.
        decimal: The sign in the numbers of this file, ``.`` or ``,``; ``None`` if it is not known.
        typed: Whether its file says that it is text (Parquet), where digits alone are codes.

    Raises: ColumnError if two readings differ, or at text that strays among numbers or times.
    """
    distinct = pd.Series(text.unique(), dtype=object)
    if not len(distinct):
        return Reading("category")
    if set(distinct.str.strip().str.lower()) <= {"true", "false"}:
        return Reading("boolean")
    plain = conversions.plain_numbers(distinct)
    if decimal is None and _has_groups(distinct, ".") and not np.isnan(plain).any():
        raise _two_readings(name, distinct[distinct.str.contains(".", regex=False)].iloc[0])
    if not np.isnan(plain).any() and not (decimal == "," and _has_groups(distinct, ".")):
        return _of_plain_numbers(distinct, typed)
    for read in (_as_times, _as_numbers):
        if (reading := read(name, text, distinct, decimal)) is not None:
            return reading
    _refuse_stray(name, text, "numbers", lambda t: ~np.isnan(conversions.plain_numbers(t)))
    return Reading("category")


def number_format(name: str, text: pd.Series, decimal: str | None) -> NumberFormat | None:
    """How numbers are written in text that was declared to hold them; ``None`` if most are no numbers, or plain ones.

    Raises: ColumnError if two readings differ.
    """
    distinct = pd.Series(text.unique(), dtype=object)
    if not np.isnan(conversions.plain_numbers(distinct)).any() and not (decimal == "," and _has_groups(distinct, ".")):
        return None
    format_, _ = _number_format(name, text, distinct, decimal)
    return format_


def time_format(name: str, text: pd.Series) -> str | None:
    """How times are written in text; ``None`` if it holds none, or others besides.

    Raises: ColumnError if two readings differ.
    """
    distinct = pd.Series(text.unique(), dtype=object)
    if len(distinct) and distinct.str.fullmatch(r"\d{8}").all() and _all_times(distinct, _COMPACT):
        return _COMPACT
    formats = [format_ for format_ in TIME_FORMATS if _all_times(distinct, format_)]
    if len(formats) > 1:
        first = conversions.parsed_times(distinct, formats[0])
        other = next((f for f in formats[1:] if not first.equals(conversions.parsed_times(distinct, f))), None)
        if other is not None:
            raise ColumnError(
                f"column {name!r}: {distinct.iloc[0]!r} may be a date by {formats[0]} or by {other}, and no row tells "
                f'which; write `data.columns: {{{name}: {{kind: time, format: "{formats[0]}"}}}}`, or the other'
            )
    return formats[0] if formats else None


def origin_of(moments: pd.Series) -> str:
    """The day of the earliest of some times (N,), in ISO 8601."""
    return str(moments.min().floor("D").date().isoformat())


def told(text: pd.Series, format_: NumberFormat) -> str:
    """What a person has to know of text that is read as numbers, by its first value."""
    value = conversions.formatted_numbers(text.iloc[:1], **format_.model_dump())[0]
    several = len([unit for unit in format_.units if unit]) > 1
    spread = f" ({', '.join(map(repr, format_.units))} in one unit)" if several else ""
    return f"{text.iloc[0]!r} is read as the number {value:.12g}{spread}"


# -- plain numbers, codes and versions -------------------------------------------------------------------------------


def _of_plain_numbers(distinct: pd.Series, typed: bool) -> Reading:
    stripped = distinct.str.strip()
    led = stripped[stripped.str.fullmatch(r"0\d+")]
    if len(led):
        return Reading("category", note=f"codes such as {led.iloc[0]!r} are categories, since they begin with 0")
    if stripped.str.fullmatch(r"\d{8}").all() and len(stripped) > _GRADES and _all_times(stripped, _COMPACT):
        years = stripped.str[:4].astype(int)
        if years.between(1900, 2100).all():
            return _time_reading(stripped, _COMPACT)
    if typed and stripped.str.fullmatch(r"\d+").all():
        return Reading("category", note=f"digits such as {stripped.iloc[0]!r} are categories, since the file has text")
    parts = stripped.str.extract(r"^\d{1,2}\.([1-9]\d*|0)$")[0]
    if parts.notna().all() and len(stripped) <= _VERSIONS:
        lengths = parts.str.len()
        longest = parts[lengths == lengths.max()]
        # 1.9, 1.10, 1.11: of numbers, a zero at the end is written everywhere or nowhere.
        if lengths.min() < lengths.max() and lengths.max() > 1 and longest.str.endswith("0").any():
            example = stripped[longest[longest.str.endswith("0")].index[0]]
            return Reading("category", note=f"versions such as {example!r} are categories")
    return Reading("number", note=f"text such as {stripped.iloc[0]!r} is read as a number" if typed else "")


# -- times -----------------------------------------------------------------------------------------------------------


def _as_times(name: str, text: pd.Series, distinct: pd.Series, decimal: str | None) -> Reading | None:
    probe = distinct.iloc[:_PROBE]
    tried = [f for f in TIME_FORMATS if conversions.parsed_times(probe, f).notna().mean() > _MOSTLY]
    if not tried:
        return None
    if (format_ := time_format(name, text)) is not None:
        return _time_reading(distinct, format_)
    _refuse_stray(name, text, "times", lambda t: conversions.parsed_times(t, tried[0]).notna().to_numpy())
    return None


def _time_reading(distinct: pd.Series, format_: str) -> Reading:
    origin = origin_of(conversions.parsed_times(distinct, format_))
    written = "" if format_ == ISO else f" by {format_}"
    note = f"{distinct.iloc[0]!r} is read as a time{written}, in days since {origin}"
    return Reading("time", time=TimeFormat(format=format_, origin=origin), note=note)


def _all_times(distinct: pd.Series, format_: str) -> bool:
    if not conversions.parsed_times(distinct.iloc[:_PROBE], format_).notna().all():
        return False
    return bool(conversions.parsed_times(distinct, format_).notna().all())


# -- numbers with signs and units ------------------------------------------------------------------------------------


def _as_numbers(name: str, text: pd.Series, distinct: pd.Series, decimal: str | None) -> Reading | None:
    format_, of_format = _number_format(name, text, distinct, decimal)
    if format_ is None:
        return None
    if of_format.all():
        value = conversions.formatted_numbers(distinct.iloc[:1], **format_.model_dump())[0]
        others = [unit for unit in format_.units if unit]
        spread = f" ({', '.join(map(repr, format_.units))} in one unit)" if len(others) > 1 else ""
        return Reading(
            "number", number=format_, note=f"{distinct.iloc[0]!r} is read as the number {value:.12g}{spread}"
        )
    known = set(distinct[of_format])
    _refuse_stray(name, text, "numbers", lambda t: t.isin(known).to_numpy())
    return None


def _number_format(
    name: str, text: pd.Series, distinct: pd.Series, decimal: str | None
) -> tuple[NumberFormat | None, Bools]:
    """How most of the distinct texts (D,) write numbers, and which of them do; ``None`` if none can be told."""
    parts = conversions.split_units(distinct)
    nothing = np.zeros(len(distinct), dtype=bool)
    usable = parts["digits"].notna() & parts["unit"].map(_is_unit, na_action="ignore").eq(True)
    if not usable.any():
        return None, nothing
    signs = _signs(name, parts["digits"][usable].astype(str), decimal)
    if signs is None:
        return None, nothing
    units = _units(name, text, distinct[usable], parts["unit"][usable].astype(str), bool(usable.all()))
    if units is None:
        return None, nothing
    format_ = NumberFormat(decimal="," if signs[0] == "," else ".", thousands=signs[1], units=units)
    values = conversions.formatted_numbers(distinct, **format_.model_dump())
    return format_, ~np.isnan(values)


def _signs(name: str, digits: pd.Series, decimal: str | None) -> tuple[str, str] | None:
    """The signs for decimals and thousands by which all digits are numbers; ``None`` if there are none.

    Raises: ColumnError if only the file's sign, which is not known, would tell.
    """
    core = digits.str.replace(r"[eE][+-]?\d+$", "", regex=True)
    thousands = ""
    for sign, pattern in ((" ", "[\u00a0\u202f\u2009 ]"), ("'", "'")):
        if core.str.contains(pattern, regex=True).any():
            thousands = sign
            core = core.str.replace(pattern, "", regex=True)
    comma, dot = core.str.contains(",", regex=False), core.str.contains(".", regex=False)
    both = core[comma & dot]
    if len(both):
        last = both.str.extract(r"([.,])\d*$")[0].unique()
        return None if len(last) > 1 else (str(last[0]), "." if last[0] == "," else ",")
    grouped = {sign: _groups(core, sign) for sign in ",."}
    many = {sign: bool((core.str.count(re.escape(sign)) > 1).any()) for sign in ",."}
    if comma.any() and dot.any():
        if grouped[","] and not (grouped["."] and many["."]):
            return (".", ",") if not grouped["."] or decimal == "." else None
        return (",", ".") if grouped["."] else None
    if thousands:
        return ("," if comma.any() else ".", thousands)
    if comma.any():
        if many[","]:
            return (".", ",") if grouped[","] else None
        if not grouped[","]:
            return (",", "")
        if decimal is None:
            raise _two_readings(name, core[comma].iloc[0])
        return (",", "") if decimal == "," else (".", ",")
    if dot.any() and grouped["."] and (many["."] or decimal == ","):
        return (",", ".")
    return None if many["."] else (".", "")


def _two_readings(name: str, value: str) -> ColumnError:
    return ColumnError(
        f"column {name!r}: {value!r} may be thousands or have decimals; write "
        '`data.decimal: "."` or `data.decimal: ","` (rlhpo init --decimal)'
    )


def _has_groups(distinct: pd.Series, sign: str) -> bool:
    """Whether the sign stands in some of the texts, and there before groups of three digits alone."""
    text = distinct.str.strip()
    return bool(text.str.contains(sign, regex=False).any()) and _groups(text, sign)


def _groups(digits: pd.Series, sign: str) -> bool:
    with_sign = digits[digits.str.contains(sign, regex=False)]
    mark = re.escape(sign)
    return bool(with_sign.str.fullmatch(rf"[+-]?[1-9]\d{{0,2}}(?:{mark}\d{{2,3}})*{mark}\d{{3}}").all())


def _is_unit(unit: str) -> bool:
    before, found, after = unit.partition("…")
    if found:
        return before in CURRENCIES and after in _DIMENSIONS[0]
    return not unit or unit in CURRENCIES or bool(_GENERIC.fullmatch(unit))


def _units(
    name: str, text: pd.Series, distinct: pd.Series, units: pd.Series, all_usable: bool
) -> dict[str, float] | None:
    """The factor of each unit, in one measure; ``None`` if they are no units.

    Raises: ColumnError if there are units of different measures.
    """
    spelt = sorted(units.unique())
    measure = _measure(spelt)
    if measure is not None:
        return measure
    # The commonest unit may be one, and the rest stray text.
    if any(not _is_known(unit) for unit in spelt):
        commonest = str(units.value_counts().index[0])
        return {commonest: 1.0} if not all_usable or (units == commonest).mean() > 0.9 else None
    first = {unit: str(distinct[units == unit].iloc[0]) for unit in spelt}
    rows = {value: int(text.index[text == value][0]) + 1 for value in first.values()}
    listed = ", ".join(f"{value!r} in row {rows[value]}" for value in list(first.values())[:3])
    raise ColumnError(
        f"column {name!r} has numbers in different units, {listed}; bring them to one unit, or declare "
        f"`data.columns: {{{name}: category}}`, or drop"
    )


def _measure(spelt: Sequence[str]) -> dict[str, float] | None:
    """The factor of each unit if all measure the same."""
    named = [unit for unit in spelt if unit]
    if not named:
        return {"": 1.0}
    currencies = {unit.partition("…")[0] for unit in named} & set(CURRENCIES)
    multipliers = _DIMENSIONS[0]
    if len(currencies) > 1:
        return None
    if currencies:
        behind = {unit: unit.removeprefix(*currencies).removeprefix("…") for unit in spelt}
        known = set(behind.values()) <= set(multipliers)
        return {unit: multipliers[part] for unit, part in behind.items()} if known else None
    blank = {"": 1.0} if len(named) < len(spelt) else {}
    if set(named) <= set(multipliers):
        return {unit: multipliers[unit] for unit in named} | blank
    if len({conversions.spelling_key(unit) for unit in named}) == 1 and not blank:
        return dict.fromkeys(named, 1.0)
    for scale in _DIMENSIONS[1:]:
        folded = {unit: unit.casefold() for unit in named}
        if set(folded.values()) <= set(scale):
            if not blank:
                return {unit: scale[part] for unit, part in folded.items()}
            # A percentage and a plain number beside it may be a hundred times apart, and of two units it may be either.
            return dict.fromkeys(named, 1.0) | blank if len(set(folded.values())) == 1 and "%" not in scale else None
    return None


def _is_known(unit: str) -> bool:
    before = unit.partition("…")[0]
    folded = any(unit.casefold() in scale for scale in _DIMENSIONS[1:])
    return before in CURRENCIES or unit in _DIMENSIONS[0] or folded


# -- stray text ------------------------------------------------------------------------------------------------------


def _refuse_stray(name: str, text: pd.Series, kind: str, is_kind: Callable[[pd.Series], Bools]) -> None:
    """Raises: ColumnError if a column of text seems to be one of numbers, or times, with other text among them."""
    good = is_kind(text)
    stray = text[~good]
    if len(stray) and len(stray) < (1 - _MOSTLY) * len(text) and text.nunique() > _GRADES:
        rows = f": {listed_rows(few_rows(stray.index), len(stray))}" if len(stray) > 1 else ""
        what = "no numbers" if kind == "numbers" else "no times"
        raise ColumnError(
            f"column {name!r} should hold {kind}, but row {stray.index[0] + 1} has {stray.iloc[0]!r} ({len(stray)} of "
            f"{len(text)} values are {what}{rows}); correct them, leave them blank if they are missing, or declare "
            f"`data.columns: {{{name}: category}}`, or drop"
        )


# -- the file --------------------------------------------------------------------------------------------------------


def decimal_sign(frame: pd.DataFrame) -> str | None:
    """The sign before decimals in a table of text, by those numbers that can be read in one way only; ``None`` if there
    are none.
    """
    for _, column in frame.items():
        text = pd.Series(column.dropna().unique(), dtype=object).astype(str).str.strip()
        for sign, other in ((",", "."), (".", ",")):
            mark = re.escape(sign)
            written = rf"[+-]?(?:\d+|\d{{1,3}}(?:{re.escape(other)}\d{{3}})+){mark}(?:\d+)"
            numbers = text[text.str.fullmatch(written)]
            if len(numbers) > len(text) / 2 and not _groups(numbers, sign):
                return sign
    return None
