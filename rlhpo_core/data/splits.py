"""Rows divided by time, or in groups that stay together: into parts, and into folds.

Where later rows are to be predicted from earlier ones, or new customers from known ones, a random division would show a
model what it will not see in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlhpo_core.arrays import Floats
from rlhpo_core.errors import UserError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Dividing:
    """By what N rows are divided."""

    by: Literal["time", "group"]
    column: str
    values: Floats
    """(N,): times, ascending into the future, or a number for each group."""

    def of(self, rows: Rows) -> Dividing:
        """The same of some rows (n,)."""
        return Dividing(self.by, self.column, self.values[rows])


def in_parts(dividing: Dividing, shares: Sequence[float], seed: int) -> list[Rows]:
    """Rows of training, and of a part for each share, in the order of time or drawn by seed; ascending in each.

    Rows of one time, or of one group, stay together, so parts have about their shares.

    Args:
        shares: Of all rows, the last part first: (holdout, validation).

    Returns: As many parts as shares, and then what is left for training.

    Raises: UserError if there are too few different times or groups.
    """
    order = _ranks(dividing, seed)
    left, parts = np.arange(len(order)), []
    for share in shares:
        wanted = share * len(order)
        ranks, counts = np.unique(order[left], return_counts=True)
        behind = np.cumsum(counts[::-1])[::-1]
        if len(ranks) < 2:
            kinds = "times" if dividing.by == "time" else "groups"
            raise UserError(
                f"data.split: column {dividing.column!r} has too few different {kinds} to divide the rows in "
                f"{len(shares) + 1} parts; split by another column, or leave data.split out"
            )
        # The rank from which on the rest is nearest to the share; the first is left for training.
        first = ranks[1:][np.abs(behind[1:] - wanted).argmin()]
        parts.append(left[order[left] >= first])
        left = left[order[left] < first]
    return [*parts, left]


def in_folds(dividing: Dividing, rows: Rows, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """(training rows, validation rows) of each fold over some rows (n,).

    Groups are dealt to the folds whole. By time, each fold validates on one of ``count`` periods and trains on all
    before it.

    Raises: UserError if there are too few different times or groups.
    """
    order = _ranks(dividing.of(rows), seed)
    ranks, counts = np.unique(order, return_counts=True)
    if len(ranks) <= count:
        kinds = "times" if dividing.by == "time" else "groups"
        raise UserError(
            f"evaluator.folds: column {dividing.column!r} has {len(ranks)} different {kinds} outside the holdout, too "
            f"few for {count} folds; use fewer"
        )
    if dividing.by == "time":
        middle = (np.cumsum(counts) - counts / 2) * (count + 1) / len(rows)
        block = np.searchsorted(ranks, order)
        period = np.minimum(middle.astype(np.int64), count)[block]
        return [(rows[period < k], rows[period == k]) for k in range(1, count + 1)]
    fold_of, sizes = np.empty(len(ranks), dtype=np.int64), np.zeros(count)
    for group in np.argsort(-counts, kind="stable"):
        fold_of[group] = sizes.argmin()
        sizes[fold_of[group]] += counts[group]
    fold = fold_of[np.searchsorted(ranks, order)]
    return [(rows[fold != k], rows[fold == k]) for k in range(count)]


def _ranks(dividing: Dividing, seed: int) -> Rows:
    """(N,): the rank of each row's time, or of its group in a random order."""
    distinct, codes = np.unique(dividing.values, return_inverse=True)
    if dividing.by == "time":
        return np.asarray(codes, dtype=np.int64)
    return np.random.default_rng(seed).permutation(len(distinct))[codes]
