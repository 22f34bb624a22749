"""The rows that the gate judges by: the holdout, less whatever a training of either model has seen.

A table that grows or that repeats rows brings some of them into the holdout that an earlier model was trained on. Each
model therefore carries the fingerprints of its training rows, and such rows are left out.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlhpo_core.data import Rows, Table
from rlhpo_core.errors import UserError
from rlhpo_core.gate import Answers

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Keys = NDArray[np.uint64]

#: Files that a model carries beside those that serve it: its table's profile, and fingerprints of what it has seen.
PROFILE, SEEN = "data_profile.json", "training_rows.npy"
_REPEATS = 3
_MOST_SLICES = 12


class Model(Protocol):
    """A served model: raw rows in, ``prediction`` and, for classes, ``probability_…`` out."""

    def predict(self, data: pd.DataFrame) -> pd.DataFrame: ...


@dataclass(frozen=True)
class Holdout:
    """N rows as a caller would send them, and the truth about them."""

    rows: pd.DataFrame
    target: Floats
    """(N,): numbers, or indices into ``classes``."""
    classes: tuple[str | int | float | bool, ...]

    def __len__(self) -> int:
        return len(self.target)


def row_keys(table: Table, rows: Rows) -> Keys:
    """Fingerprints (N,) of rows with their labels, the same in any table that holds them."""
    frame = pd.DataFrame(
        {
            str(name): column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("float64")
            for name, column in table.features.iloc[rows].items()
        }
    ).sort_index(axis=1)
    labels = [str(table.classes[int(code)]) for code in table.target[rows]] if table.classes else table.target[rows]
    frame["\0label"] = labels
    return np.asarray(pd.util.hash_pandas_object(frame, index=False).to_numpy(dtype=np.uint64))


def to_bytes(keys: Keys) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.unique(keys), allow_pickle=False)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Keys:
    return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), dtype=np.uint64)


def unseen(table: Table, rows: Rows, seen: Sequence[Keys]) -> Holdout:
    """Those of some rows that no training has seen."""
    keys = row_keys(table, rows)
    known = np.isin(keys, np.concatenate([np.empty(0, np.uint64), *seen]))
    kept = rows[~known]
    return Holdout(raw_rows(table.features.iloc[kept]), table.target[kept], table.classes)


def raw_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows as a caller would send them: text instead of categories, numbers that may be missing."""
    return pd.DataFrame(
        {
            str(name): column.astype(object)
            if isinstance(column.dtype, pd.CategoricalDtype)
            else column.astype("float64")
            for name, column in frame.items()
        }
    ).reset_index(drop=True)


def slices(holdout: Holdout, columns: Sequence[str]) -> dict[str, Bools]:
    """Rows by the commonest values of some columns, or by quarters of the range of numbers.

    Raises: UserError if a column is not there.
    """
    found: dict[str, Bools] = {}
    for name in columns:
        if name not in holdout.rows:
            raise UserError(f"gate.slices: the table has no column {name!r}")
        column = holdout.rows[name]
        if column.dtype == object:
            for value in column.value_counts().index[:_MOST_SLICES]:
                found[f"{name}={value}"] = (column == value).to_numpy(dtype=bool)
        elif column.notna().any():
            edges = np.unique(np.nanquantile(column, [0, 0.25, 0.5, 0.75, 1]))
            for low, high in itertools.pairwise(edges):
                inside = (column > low) | ((column == low) & (low == edges[0]))
                found[f"{name} in {low:.4g}–{high:.4g}"] = (inside & (column <= high)).to_numpy(dtype=bool)
        if column.isna().any():
            found[f"{name} missing"] = column.isna().to_numpy(dtype=bool)
    return found


def ask(models: Mapping[str, tuple[Model, int]], holdout: Holdout) -> dict[str, Answers]:
    """What each model, given with its size in bytes, makes of the rows, and how fast.

    The models take turns, and the fastest time of each counts: others on the machine make a model slower, never faster.

    Raises: UserError, naming the model that cannot answer.
    """
    outputs: dict[str, Floats] = {}
    seconds = dict.fromkeys(models, np.inf)
    for _ in range(_REPEATS):
        for name, (model, _) in models.items():
            started = time.perf_counter()
            try:
                answered = model.predict(holdout.rows)
            except Exception as error:
                # Whatever a served model raises: it cannot serve these rows.
                raise UserError(f"{name} cannot answer the current data: {type(error).__name__}: {error}") from error
            seconds[name] = min(seconds[name], time.perf_counter() - started)
            outputs[name] = _output(answered, holdout)
    rows = max(len(holdout), 1)
    return {name: Answers(outputs[name], seconds[name] / rows, size) for name, (_, size) in models.items()}


def _output(answered: pd.DataFrame, holdout: Holdout) -> Floats:
    """(N,) numbers, or probabilities (N, K) of the holdout's classes; 0 for a class that the model does not know."""
    if not holdout.classes:
        return answered["prediction"].to_numpy(dtype=np.float64)
    columns = [
        answered[f"probability_{name}"].to_numpy(dtype=np.float64)
        if f"probability_{name}" in answered
        else np.zeros(len(holdout))
        for name in holdout.classes
    ]
    # Where a model knows none of the classes all are equally unlikely.
    return np.column_stack(columns) + 1e-15
