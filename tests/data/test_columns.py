"""One column: its kind inferred once, and its values read by it ever after."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data.columns import ColumnError, infer, read

ROWS = 40


def column(text: list[str]) -> pd.Series:
    """As its reader gives it: cells of a CSV file, from the first row on again and again."""
    cells = "\n".join(f"{text[i % len(text)]},0" for i in range(ROWS))
    return pd.read_csv(io.StringIO(f"x,y\n{cells}\n"), low_memory=False)["x"]


@pytest.mark.parametrize(
    ("first", "kind", "later", "expected"),
    [
        (["True", "False"], "boolean", ["True", "", "False"], [1, None, 0]),
        (["True", ""], "boolean", ["True", "False"], [1, 0]),
        (["True", "False"], "boolean", ["", ""], [None, None]),
        (["True", "False"], "boolean", ["1", "0", ""], [1, 0, None]),
        (["true", "false"], "boolean", ["TRUE", " false ", "1"], [1, 0, 1]),
        (["1", "2"], "number", ["", ""], [None, None]),
        (["1", "2"], "number", ["True", "False"], [1, 0]),
        (["1.5", ""], "number", ["2", "  ", "3"], [2, None, 3]),
        (["1", "2", "unknown"], "category", ["2", "1"], ["2", "1"]),
        (["1", "2", "unknown"], "category", ["2", "", "1"], ["2", None, "1"]),
        (["007", "8", "unknown"], "category", ["7", "8"], ["007", "8"]),
        (["1.50", "unknown"], "category", ["1.5"], ["1.50"]),
        (["True", "False", "maybe"], "category", ["True", "False"], ["True", "False"]),
        (["red", "blue"], "category", ["", ""], [None, None]),
        (["", ""], "empty", ["", ""], [None, None]),
    ],
)
def test_a_column_stays_what_it_was(first: list[str], kind: str, later: list[str], expected: list[Any]) -> None:
    """With its first blank, without its special value, all blank."""
    _, schema = infer("x", column(first))
    assert schema.kind == kind
    encoded, known, change = read("x", column(later), schema)
    assert (known, change) == (schema, None)
    values = [None if pd.isna(value) else value for value in encoded[: len(expected)].tolist()]
    assert values == expected
    if kind == "category":
        assert tuple(encoded.cat.categories) == schema.categories
    else:
        assert pd.api.types.is_numeric_dtype(encoded)


@pytest.mark.parametrize(
    "cells",
    [["True", "False"], ["True", ""], ["1", "2"], ["1.5", ""], ["a", "b", ""], ["1", "2", "x"], ["", ""]],
)
def test_the_first_table_is_read_as_it_was_inferred(cells: list[str]) -> None:
    inferred, schema = infer("x", column(cells))
    again, known, change = read("x", column(cells), schema)
    assert (known, change) == (schema, None)
    pd.testing.assert_series_equal(inferred, again)


@pytest.mark.parametrize(
    ("first", "later", "message"),
    [
        (
            ["1", "2"],
            ["3", "n. a."],
            r"'x' should hold numbers, but rows 2, 4, 6, 8, 10 and 15 more of 40 have 'n. a.'",
        ),
        (
            ["True", "False"],
            ["True"] * 7 + ["perhaps"] + ["False"] * 32,
            r"truth values, but row 8 of 40 has 'perhaps'",
        ),
        (["True", "False"], ["1", "2"], r"truth values, but rows 2, .* have '2'; correct them, or leave them blank"),
        (["1", "2"], ["3", "inf"], r"'x' holds infinite values"),
    ],
)
def test_what_cannot_be_of_its_kind_is_refused_with_rows_and_values(
    first: list[str], later: list[str], message: str
) -> None:
    _, schema = infer("x", column(first))
    with pytest.raises(ColumnError, match=message):
        read("x", column(later), schema)


def test_identifiers_are_no_new_categories() -> None:
    _, schema = infer("x", column(["a", "b"]))
    with pytest.raises(ColumnError, match=r"'x' has 300 different texts in 300 rows"):
        read("x", pd.Series([f"customer {i}" for i in range(300)]), schema)


def test_new_categories_are_added_and_reported() -> None:
    _, schema = infer("x", column(["a", "c"]))
    encoded, known, change = read("x", column(["a", "b", "c", "d"]), schema)
    assert tuple(encoded.cat.categories) == known.categories == ("a", "b", "c", "d")
    assert change is not None
    assert (change.values, change.rows, change.count) == (("b", "d"), (2, 4, 6, 8, 10), 20)


def test_a_column_that_was_blank_becomes_what_it_then_holds() -> None:
    _, schema = infer("x", column(["", ""]))
    for cells, kind in ((["", "red"], "category"), (["", "3"], "number"), (["", "True"], "boolean")):
        _, known, change = read("x", column(cells), schema)
        assert known.kind == kind
        assert change is not None
        assert change.text.startswith("column 'x' was blank throughout and is not any more")
        assert change.rows == (2, 4, 6, 8, 10)


def test_a_number_that_may_be_either_of_two_categories_is_refused() -> None:
    _, schema = infer("x", column(["007", "7", "unknown"]))
    with pytest.raises(ColumnError, match="the number 7 may be 007 or 7; write it as text"):
        read("x", column(["7"]), schema)


@pytest.mark.parametrize("dtype", ["boolean", "bool[pyarrow]", object])
def test_truth_values_of_any_dtype_are_read(dtype: str) -> None:
    _, schema = infer("x", pd.Series([True, False] * 5))
    values = pd.Series([True, None, False], dtype=dtype)
    encoded, _, _ = read("x", values, schema)
    np.testing.assert_array_equal(encoded.to_numpy(dtype=np.float64), [1, np.nan, 0])
