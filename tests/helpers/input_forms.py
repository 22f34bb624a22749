"""Ten ways in which callers send the same rows to a served model.

As a program: the answers of a saved model to each of them, compared with those expected. It imports nothing but what
serves the model, since it also runs where nothing else is installed:

    python input_forms.py MODEL ROWS.csv EXPECTED.csv
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


def forms(rows: pd.DataFrame) -> dict[str, Any]:
    """Name to rows in another form.

    Args:
        rows: As ``read_csv`` gives them; ``grade`` holds text, of which that of the first rows is digits.
    """
    text = [str(name) for name, dtype in rows.dtypes.items() if not pd.api.types.is_numeric_dtype(dtype)]
    numbers = [name for name in rows if name not in text and not pd.api.types.is_bool_dtype(rows[name])]
    dictionary = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
    return {
        "as read": rows,
        "nullable": rows.convert_dtypes(),
        "pandas categories": rows.astype(dict.fromkeys(text, "category")),
        "pyarrow": rows.convert_dtypes(dtype_backend="pyarrow"),
        "pyarrow categories": rows.astype(dict.fromkeys(text, dictionary)),
        "records": rows.to_dict("records"),
        "lists": rows.to_dict("list"),
        "numbers as text": rows.astype(dict.fromkeys(numbers, str)),
        "another order, another index": rows[rows.columns[::-1]].set_index(np.arange(len(rows)) * 3),
        "more columns": rows.assign(customer="someone", visited=pd.Timestamp("2026-01-01")),
    }


def read_again(rows: pd.DataFrame) -> pd.DataFrame:
    """As they come back from a CSV file."""
    return pd.read_csv(io.StringIO(rows.to_csv(index=False)))


def answers(model: Any, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Form to answers; those of a batch in which all text of ``grade`` is digits are among them."""
    digits = read_again(rows[rows["grade"].str.isdigit()])
    assert pd.api.types.is_integer_dtype(digits["grade"].dtype), "its reader has made numbers of it"
    return {name: model.predict(form) for name, form in forms(rows).items()} | {"digits": model.predict(digits)}


def compare(answered: dict[str, pd.DataFrame], rows: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Raises: AssertionError, at answers of one form that are not those expected."""
    for name, frame in answered.items():
        wanted = expected[rows["grade"].str.isdigit().to_numpy()] if name == "digits" else expected
        pd.testing.assert_frame_equal(
            frame.reset_index(drop=True), wanted.reset_index(drop=True), check_dtype=False, rtol=1e-5, obj=name
        )


if __name__ == "__main__":
    import mlflow

    table, wanted = pd.read_csv(sys.argv[2]), pd.read_csv(sys.argv[3])
    found = answers(mlflow.pyfunc.load_model(sys.argv[1]), table)
    compare(found, table, wanted)
    print(f"{len(found)} forms answered alike")
