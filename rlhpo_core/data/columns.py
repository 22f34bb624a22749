"""One column of a table: its kind inferred, once, or its values read by the kind that it is known to have."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pandas as pd

from rlhpo_core.arrays import Bools
from rlhpo_core.data import conversions, recognition
from rlhpo_core.data.conversions import ISO, LARGEST
from rlhpo_core.data.recognition import ColumnError, Reading
from rlhpo_core.data.schema import (
    ColumnSchema,
    SchemaChange,
    TimeFormat,
    few,
    few_rows,
    listed_rows,
)
from rlhpo_core.study.spec import ColumnSpec

#: A text column with more distinct values than this, in more than half of its rows, holds names or identifiers.
_MOST_CATEGORIES = 100
_TIMES = {datetime.datetime, datetime.date, datetime.time, pd.Timestamp}
_DURATIONS = {datetime.timedelta, pd.Timedelta}
_NUMBERS = {bool, int, float, Decimal}
#: Spellings that a note names.
_NAMED = 4


class IdentifierError(ColumnError):
    """A column of names or identifiers, which a model can learn nothing from."""


def infer(
    name: str, column: pd.Series, declared: ColumnSpec | None = None, decimal: str | None = ".", typed: bool = False
) -> tuple[pd.Series, ColumnSchema]:
    """A column of which nothing is known: (N,) numbers, or categories of text, and what it holds.

    Args:
        column: (N,), with rows from 0 as its index.
        declared: What the study says that it holds.
        decimal: The sign before decimals in the text of its file; ``None`` if it is not known.
        typed: Whether its file says what is text (Parquet): digits are codes there.

    Raises: ColumnError if it can be neither, or is not what it is declared to be.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        # Whoever has made a dictionary of codes means categories.
        column = _text(column.astype(column.cat.categories.dtype))
        typed = True
    if not _present(column).any():
        return pd.Series(np.nan, index=column.index), ColumnSchema(kind="empty")
    if declared is not None:
        return _as_declared(name, column, declared, decimal)
    if pd.api.types.is_bool_dtype(column):
        return _truths(name, column), ColumnSchema(kind="boolean")
    kinds = _kinds(column)
    if pd.api.types.is_timedelta64_dtype(column.dtype) or kinds <= _DURATIONS:
        schema = ColumnSchema(kind="number", note="durations are read as seconds")
        return numbers(name, column, schema), schema
    if pd.api.types.is_any_real_numeric_dtype(column.dtype):
        return numbers(name, column), ColumnSchema(kind="number")
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or kinds <= _TIMES:
        return _first_times(name, column, "%H:%M:%S" if kinds == {datetime.time} else ISO)
    if kinds == {bool}:
        return _truths(name, column), ColumnSchema(kind="boolean")
    if kinds <= _NUMBERS:
        return numbers(name, column), ColumnSchema(kind="number")
    if not kinds <= {str, *_NUMBERS}:
        kind = ", ".join(sorted(kind.__name__ for kind in kinds - {str, *_NUMBERS}))
        raise ColumnError(
            f"column {name!r} holds values of type {kind}; turn them into numbers or text, or list it in data.drop"
        )
    text = _text(column)
    reading = recognition.recognised(name, text[_present(column)], decimal, typed)
    return _first_reading(name, column, reading)


def read(name: str, column: pd.Series, schema: ColumnSchema) -> tuple[pd.Series, ColumnSchema, SchemaChange | None]:
    """A column as the kind that it is known to have.

    Categories that are not known stay what they are: a study may learn them. They are reported.

    Returns: as ``infer``, with what is known now, and what is new about it.

    Raises: ColumnError if it holds what cannot be of its kind, with rows and values.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if schema.kind == "empty":
        encoded, inferred = infer(name, column)
        if inferred.kind == "empty":
            return encoded, schema, None
        filled = np.flatnonzero(column.notna())
        change = "was blank throughout and is not any more"
        return encoded, inferred, SchemaChange(
            column=name, change=change, values=few(column.iloc[filled]), rows=few_rows(filled), count=len(filled)
        )  # fmt: skip
    if schema.kind == "number":
        return numbers(name, column, schema), schema, None
    if schema.kind == "time":
        return _times(name, column, schema), schema, None
    if schema.kind == "boolean":
        return _truths(name, column), schema, None
    text = conversions.respelt(_text_like(name, column, schema.categories), schema.categories, schema.exact)
    encoded = _categories(name, text, schema.categories)
    known = tuple(encoded.cat.categories)
    new = np.flatnonzero(encoded.isin(set(known) - set(schema.categories)))
    if not len(new):
        return encoded, schema, None
    return encoded, schema.model_copy(update={"categories": known}), SchemaChange(
        column=name, change="has new categories", values=few(encoded.iloc[new]), rows=few_rows(new), count=len(new)
    )  # fmt: skip


def numbers(name: str, column: pd.Series, schema: ColumnSchema | None = None) -> pd.Series:
    """A column (N,) of numbers; text that is a number is taken as one, by its format, and blank text as missing.

    Raises: ColumnError at any other text, and at values that XGBoost cannot hold.
    """
    if pd.api.types.is_bool_dtype(column):
        return _truths(name, column)
    format_ = None if schema is None or schema.number is None else schema.number.model_dump()
    values, wrong = conversions.numbers_of(column, format_)
    if wrong.any():
        raise _not("numbers", name, column, wrong)
    with np.errstate(invalid="ignore"):
        beyond = np.abs(values) > LARGEST
    if np.isinf(values).any():
        raise ColumnError(
            f"column {name!r} holds infinite values ({_listed(np.isinf(values))}); replace them by blanks or "
            "by a number"
        )
    if beyond.any():
        raise ColumnError(
            f"column {name!r} holds {values[beyond][0]:.6g} in {_listed(beyond)}, which is beyond {LARGEST:.3g}, the "
            "largest number that XGBoost can hold; leave it blank if it stands for a missing value, or rescale it"
        )
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_extension_array_dtype(column.dtype):
        return column
    if format_ is None and isinstance(column.dtype, pd.StringDtype) and not np.isnan(values).any():
        # As a reader that knows them to be numbers has them.
        whole = pd.to_numeric(column.astype(object))
        return whole if pd.api.types.is_integer_dtype(whole) else pd.Series(values, index=column.index)
    return pd.Series(values, index=column.index)


def identifying(encoded: pd.Series) -> bool:
    """Whether whole numbers (N,) count the rows, in their order: an index rather than something to learn from."""
    if len(encoded) < _MOST_CATEGORIES or not pd.api.types.is_integer_dtype(encoded.dtype):
        return False
    return bool((np.diff(encoded.to_numpy()) == 1).all())


# -- the first reading -----------------------------------------------------------------------------------------------


def _as_declared(
    name: str, column: pd.Series, declared: ColumnSpec, decimal: str | None
) -> tuple[pd.Series, ColumnSchema]:
    if declared.kind == "category":
        text = conversions.respelt(_text_like(name, column, ()), (), declared.exact)
        encoded, note = merged_spellings(text) if not declared.exact else (text, "")
        categories = tuple(sorted(encoded.dropna().unique()))
        schema = ColumnSchema(kind="category", categories=categories, exact=declared.exact, note=note)
        return encoded.astype(pd.CategoricalDtype(list(categories))), schema
    if declared.kind == "time":
        format_ = declared.format or ISO
        if declared.format is None and not pd.api.types.is_datetime64_any_dtype(column.dtype):
            text = _text_like(name, column, ())
            format_ = recognition.time_format(name, text[_present(text)]) or ISO
        return _first_times(name, column, format_)
    if declared.kind == "boolean":
        return _truths(name, column), ColumnSchema(kind="boolean")
    written = None
    if not pd.api.types.is_numeric_dtype(column) and _kinds(column) <= {str, *_NUMBERS}:
        text = _text(column)[_present(column)]
        written = recognition.number_format(name, text, declared.decimal or decimal)
    schema = ColumnSchema(
        kind="number", number=written, note="" if written is None else recognition.told(text, written)
    )
    return numbers(name, column, schema), schema


def _first_reading(name: str, column: pd.Series, reading: Reading) -> tuple[pd.Series, ColumnSchema]:
    if reading.kind == "boolean":
        return _truths(name, column), ColumnSchema(kind="boolean")
    if reading.kind == "number":
        schema = ColumnSchema(kind="number", number=reading.number, note=reading.note)
        return numbers(name, column, schema), schema
    if reading.time is not None:
        schema = ColumnSchema(kind="time", time=reading.time, note=reading.note)
        return _times(name, column, schema), schema
    merged, spellings = merged_spellings(conversions.respelt(_text(column), ()))
    encoded = _categories(name, merged, ())
    note = "; ".join(part for part in (reading.note, spellings) if part)
    return encoded, ColumnSchema(kind="category", categories=tuple(encoded.cat.categories), note=note)


def _first_times(name: str, column: pd.Series, format_: str) -> tuple[pd.Series, ColumnSchema]:
    """Times, counted from the day of the first.

    Raises: ColumnError at what is no time.
    """
    days, wrong = conversions.times_of(column, format_, "1970-01-01")
    if wrong.any():
        raise _not("times", name, column, wrong)
    origin = (pd.Timestamp("1970-01-01") + pd.Timedelta(days=float(np.floor(np.nanmin(days))))).date().isoformat()
    example = column.dropna().iloc[0]
    note = f"{str(example)!r} is read as a time{'' if format_ == ISO else f' by {format_}'}, in days since {origin}"
    schema = ColumnSchema(kind="time", time=TimeFormat(format=format_, origin=origin), note=note)
    return _times(name, column, schema), schema


def merged_spellings(text: pd.Series) -> tuple[pd.Series, str]:
    """Text (N,) with all spellings of a value as its commonest, and what to say of that; empty if there are none."""
    counts = text.value_counts()
    by_key: dict[str, list[str]] = {}
    for value in sorted(counts.index, key=lambda value: (-counts[value], value)):
        by_key.setdefault(conversions.spelling_key(value), []).append(value)
    several = [values for values in by_key.values() if len(values) > 1]
    if not several:
        return text, ""
    merged = text.replace({other: values[0] for values in several for other in values[1:]})
    told = [f"{', '.join(map(repr, values[1:]))} as {values[0]!r}" for values in several[:_NAMED]]
    more = f" and {len(several) - _NAMED} more" if len(several) > _NAMED else ""
    return merged, f"other spellings are read as one: {'; '.join(told)}{more}"


# -- each kind -------------------------------------------------------------------------------------------------------


def _times(name: str, column: pd.Series, schema: ColumnSchema) -> pd.Series:
    assert schema.time is not None
    days, wrong = conversions.times_of(column, schema.time.format, schema.time.origin)
    if wrong.any():
        raise _not("times", name, column, wrong)
    return pd.Series(days, index=column.index)


def _truths(name: str, column: pd.Series) -> pd.Series:
    """0 and 1, of truth values, 0 and 1, or the words for them; NaN where missing."""
    values, wrong = conversions.truths_of(column)
    if wrong.any():
        raise _not("truth values", name, column, wrong)
    truths = pd.Series(values, index=column.index)
    return truths if truths.isna().any() else truths.astype("int8")


def _not(kind: str, name: str, column: pd.Series, wrong: Bools) -> ColumnError:
    positions = np.flatnonzero(wrong)
    values = ", ".join(map(repr, few(column.iloc[positions])))
    return ColumnError(
        f"column {name!r} should hold {kind}, but {listed_rows(few_rows(positions), len(positions))} of {len(column)} "
        f"{'has' if len(positions) == 1 else 'have'} {values}; correct them, or leave them blank if they are missing"
    )


def _listed(rows: Bools) -> str:
    positions = np.flatnonzero(rows)
    return listed_rows(few_rows(positions), len(positions))


def _kinds(column: pd.Series) -> set[type]:
    """The types of what is there."""
    if isinstance(column.dtype, pd.StringDtype):
        return {str}
    return {_plain(type(value)) for value in column.dropna()}


def _plain(kind: type) -> type:
    """Python's type for one of NumPy's."""
    for plain, made in ((bool, np.bool_), (int, np.integer), (float, np.floating), (str, np.str_)):
        if issubclass(kind, made):
            return plain
    return kind


def _present(column: pd.Series) -> pd.Series:
    """(N,): whether there is a value, and not only blanks."""
    if pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column.notna()
    return column.notna() & (column.astype(str).str.strip() != "")


def _text(column: pd.Series) -> pd.Series:
    return column.dropna().astype(str).reindex(column.index)


def _text_like(name: str, column: pd.Series, known: Sequence[str]) -> pd.Series:
    """Values as the text of categories. Of numbers, that of the category with the same value: 7.0 is ``7``, or ``007``.

    Raises: ColumnError if a number may be either of two categories.
    """
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return _text(column)
    alike: dict[Decimal, list[str]] = {}
    for category in known:
        if (value := _decimal(category)) is not None:
            alike.setdefault(value, []).append(category)

    def text(number: Any) -> str:
        value = Decimal(str(number))
        found = alike.get(value, [f"{value:f}".removesuffix(".0")])
        if len(found) > 1:
            raise ColumnError(
                f"column {name!r} holds text, and the number {number} may be {' or '.join(found)}; write it as text"
            )
        return found[0]

    present = column.dropna()
    return present.map({number: text(number) for number in present.unique()}).astype(str).reindex(column.index)


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _categories(name: str, text: pd.Series, known: Sequence[str]) -> pd.Series:
    """Text as categories, of which some are known already.

    Raises: ColumnError if they are too many.
    """
    present = text.dropna()
    distinct = present.nunique()
    if distinct > _MOST_CATEGORIES and distinct > len(present) / 2:
        raise IdentifierError(
            f"column {name!r} has {distinct} different texts in {len(present)} rows: names or identifiers rather than "
            f"categories; leave it out with data.drop, or declare `data.columns: {{{name}: category}}`"
        )
    return text.astype(pd.CategoricalDtype(sorted({*present.unique(), *known})))
