"""The rows that the gate compares two models on: those of the holdout that neither was trained on.

When a table grows, or repeats rows, rows that an earlier model was trained on may come into the holdout. Each model
therefore carries the fingerprints of its training rows, and rows with these fingerprints are left out.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlhpo_core.arrays import Bools, Floats
from rlhpo_core.data.labelled import Labelled, Rows, Split
from rlhpo_core.errors import UserError

Keys = NDArray[np.uint64]

#: Files that a model carries besides those that serve it: its table's profile, and fingerprints of what it has seen.
PROFILE, SEEN = "data_profile.json", "training_rows.npy"
_MOST_SLICES = 12


@dataclass(frozen=True)
class Holdout:
    """N rows as a caller would send them, and the truth about them."""

    rows: pd.DataFrame
    target: Floats
    """(N,): numbers, or indices into ``classes``."""
    classes: tuple[str | int | float | bool, ...]
    weights: Floats | None = None
    """(N,): how much each row counts in scores; ``None`` if all count alike."""
    groups: Rows | None = None
    """(N,): the group of each row, such as its customer, counted from 0 without gaps; ``None`` if the data has none."""

    def __len__(self) -> int:
        return len(self.target)


def row_keys(data: Labelled, rows: Rows) -> Keys:
    """Fingerprints (N,) of rows with their labels, the same in any data set that holds them."""
    frame = data.identities(rows)
    labels = [str(data.classes[int(code)]) for code in data.target[rows]] if data.classes else data.target[rows]
    frame["\0label"] = labels
    return np.asarray(pd.util.hash_pandas_object(frame, index=False).to_numpy(dtype=np.uint64))


def training_rows(parts: Split) -> Rows:
    """Row numbers (N,), ascending, of what a winner is trained on: the training and the validation rows."""
    return np.sort(np.concatenate([parts.train, parts.validation]))


def training_keys(data: Labelled, parts: Split) -> Keys:
    """Fingerprints (N,) of what a winner is trained on, as it carries them; known before anything is trained."""
    return row_keys(data, training_rows(parts))


def to_bytes(keys: Keys) -> bytes:
    """Fingerprints as a file in NumPy's format, each once."""
    buffer = io.BytesIO()
    np.save(buffer, np.unique(keys), allow_pickle=False)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Keys:
    """Fingerprints, ascending, from what ``to_bytes`` wrote."""
    return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), dtype=np.uint64)


def unseen(data: Labelled, rows: Rows, seen: Sequence[Keys]) -> Holdout:
    """Those of some rows that no training run has seen, as a caller would send them.

    Args:
        rows: Row numbers (N,) in the data set.
        seen: Fingerprints of the rows that each model was trained on.
    """
    keys = row_keys(data, rows)
    known = np.isin(keys, np.concatenate([np.empty(0, np.uint64), *seen]))
    kept = rows[~known]
    grouped = data.dividing is not None and data.dividing.by == "group"
    groups = counted(data.dividing.of(kept).values) if data.dividing is not None and grouped else None
    return Holdout(data.raw(kept), data.target[kept], data.classes, data.weights_of(kept), groups)


def counted(groups: Floats | Rows) -> Rows:
    """Groups (N,), whatever their numbers, counted from 0 without gaps."""
    return np.asarray(np.unique(groups, return_inverse=True)[1], dtype=np.int64)


def slices(holdout: Holdout, columns: Sequence[str]) -> dict[str, Bools]:
    """Rows by the commonest values of some columns, or by the quartiles of numbers.

    Returns: Name of the slice to a mask (N,) of the holdout's rows.

    Raises: UserError if a column is not there.
    """
    masks: dict[str, Bools] = {}
    for name in columns:
        if name not in holdout.rows:
            raise UserError(f"gate.slices: the table has no column {name!r}")
        column = holdout.rows[name]
        if len(column) and isinstance(column.iloc[0], np.ndarray):
            raise UserError(f"gate.slices: {name!r} holds images, which have no values to be sliced by; leave it out")
        if column.dtype == object:
            for value in column.value_counts().index[:_MOST_SLICES]:
                masks[f"{name}={value}"] = (column == value).to_numpy(dtype=bool)
        elif column.notna().any():
            edges = np.unique(np.nanquantile(column, [0, 0.25, 0.5, 0.75, 1]))
            for low, high in itertools.pairwise(edges):
                inside = (column > low) | ((column == low) & (low == edges[0]))
                masks[f"{name} in {low:.4g}–{high:.4g}"] = (inside & (column <= high)).to_numpy(dtype=bool)
        if column.isna().any():
            masks[f"{name} missing"] = column.isna().to_numpy(dtype=bool)
    return masks
