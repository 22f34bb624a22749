"""One column of a table: its kind inferred, once, or its values read by the kind that it is known to have."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pandas as pd

from rlhpo_core.arrays import Bools
from rlhpo_core.data.schema import ColumnSchema, SchemaChange, few, few_rows, listed_rows
from rlhpo_core.errors import UserError

#: A text column of which more than this share is numbers, and with more different ones than this, is taken for numbers
#: with stray text among them. (Few different ones are grades, such as 2, 3, 4, 5more.)
_MOSTLY_NUMBERS, _GRADES = 0.5, 20
#: A text column with more distinct values than this, in more than half of its rows, holds names or identifiers.
_MOST_CATEGORIES = 100
#: What is read in a column of truth values.
_TRUTHS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}


class ColumnError(UserError):
    """A column that cannot be used, or not as the kind that it is known to have."""


def infer(name: str, column: pd.Series) -> tuple[pd.Series, ColumnSchema]:
    """A column of which nothing is known: (N,) numbers, or categories of text, and what it holds.

    Raises: ColumnError if it can be neither.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if column.isna().all():
        return pd.Series(np.nan, index=column.index), ColumnSchema(kind="empty")
    if pd.api.types.is_bool_dtype(column):
        return _truths(name, column), ColumnSchema(kind="boolean")
    if pd.api.types.is_numeric_dtype(column):
        return _finite(name, column), ColumnSchema(kind="number")
    kinds = {type(value) for value in column.dropna()}
    if kinds == {bool}:
        return _truths(name, column), ColumnSchema(kind="boolean")
    if not kinds <= {str, int, float, bool}:
        kind = ", ".join(sorted(kind.__name__ for kind in kinds - {str, int, float, bool}))
        raise ColumnError(
            f"column {name!r} holds values of type {kind}; turn them into numbers or text, or list it in data.drop"
        )
    text = _text(column)
    _refuse_stray_text(name, text.dropna())
    encoded = _categories(name, text, ())
    return encoded, ColumnSchema(kind="category", categories=tuple(encoded.cat.categories))


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
        return numbers(name, column), schema, None
    if schema.kind == "boolean":
        return _truths(name, column), schema, None
    encoded = _categories(name, _text_like(name, column, schema.categories), schema.categories)
    known = tuple(encoded.cat.categories)
    new = np.flatnonzero(encoded.isin(set(known) - set(schema.categories)))
    if not len(new):
        return encoded, schema, None
    return encoded, ColumnSchema(kind="category", categories=known), SchemaChange(
        column=name, change="has new categories", values=few(encoded.iloc[new]), rows=few_rows(new), count=len(new)
    )  # fmt: skip


def numbers(name: str, column: pd.Series) -> pd.Series:
    """A column (N,) of numbers; text that is a number is taken as one, blank text as missing.

    Raises: ColumnError at any other text, and at infinite values.
    """
    if pd.api.types.is_bool_dtype(column):
        return _truths(name, column)
    if pd.api.types.is_numeric_dtype(column):
        return _finite(name, column)
    if column.isna().all():
        return pd.Series(np.nan, index=column.index)
    parsed = pd.to_numeric(column.astype(object), errors="coerce")
    wrong = parsed.isna() & column.notna() & (column.astype(str).str.strip() != "")
    if wrong.any():
        raise _not("numbers", name, column, wrong.to_numpy(dtype=bool))
    return _finite(name, parsed)


def _finite(name: str, column: pd.Series) -> pd.Series:
    column = column.astype("float64") if pd.api.types.is_extension_array_dtype(column.dtype) else column
    if np.isinf(column.to_numpy(dtype=np.float64)).any():
        raise ColumnError(f"column {name!r} holds infinite values; replace them by blanks or by a number")
    return column


def _truths(name: str, column: pd.Series) -> pd.Series:
    """0 and 1, of truth values, 0 and 1, or the words for them; NaN where missing."""
    if pd.api.types.is_bool_dtype(column):
        truths = pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index)
    else:
        words = column.astype(str).str.strip().str.lower()
        truths = words.map(_TRUTHS).where(column.notna()).astype("float64")
        wrong = truths.isna() & column.notna() & (words != "")
        if wrong.any():
            raise _not("truth values", name, column, wrong.to_numpy(dtype=bool))
    return truths if truths.isna().any() else truths.astype("int8")


def _not(kind: str, name: str, column: pd.Series, wrong: Bools) -> ColumnError:
    positions = np.flatnonzero(wrong)
    values = ", ".join(map(repr, few(column.iloc[positions])))
    return ColumnError(
        f"column {name!r} should hold {kind}, but {listed_rows(few_rows(positions), len(positions))} of {len(column)} "
        f"{'has' if len(positions) == 1 else 'have'} {values}; correct them, or leave them blank if they are missing"
    )


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


def _refuse_stray_text(name: str, present: pd.Series) -> None:
    """Raises: ColumnError if a column of text seems to be one of numbers with other text among them."""
    not_numbers = present[pd.to_numeric(present, errors="coerce").isna()]
    if len(not_numbers) < (1 - _MOSTLY_NUMBERS) * len(present) and present.nunique() > _GRADES:
        example = f"row {not_numbers.index[0] + 1} has {not_numbers.iloc[0]!r}" if len(not_numbers) else "all are text"
        raise ColumnError(
            f"column {name!r} should hold numbers, but {example} ({len(not_numbers)} of {len(present)} values are no "
            "numbers); correct them, leave them blank if they are missing, or list the column in data.drop"
        )


def _categories(name: str, text: pd.Series, known: Sequence[str]) -> pd.Series:
    """Text as categories, of which some are known already.

    Raises: ColumnError if they are too many.
    """
    present = text.dropna()
    distinct = present.nunique()
    if distinct > _MOST_CATEGORIES and distinct > len(present) / 2:
        raise ColumnError(
            f"column {name!r} has {distinct} different texts in {len(present)} rows: names or identifiers rather than "
            "categories; leave it out with data.drop"
        )
    return text.astype(pd.CategoricalDtype(sorted({*present.unique(), *known})))
