"""What tables and sets of images have in common: rows with a label, divided by seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlhpo_core.arrays import Floats
from rlhpo_core.data.schema import Label, SchemaChange, TableSchema, Task
from rlhpo_core.data.splits import Dividing, in_folds, in_parts
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Labelled(ABC):
    """Checked rows of any kind, and what is to be predicted of them."""

    target: Floats
    """(N,): indices into ``classes``, or the numbers to predict."""
    task: Task
    classes: tuple[Label, ...]
    """Sorted; empty for regression."""
    target_name: str
    given_holdout: int
    """The last rows, which the file sets apart for testing (NPZ with ``x_test``); 0 if it does not."""
    digest: str
    """Of the content, 32 hexadecimal digits."""
    schema: TableSchema
    """What it holds: what was known of it before, and what is new."""
    changes: tuple[SchemaChange, ...] = ()
    """What is new, if it was read by a schema."""
    dividing: Dividing | None = None
    """By what the rows are divided; ``None`` at random, each class in proportion."""
    weights: Floats | None = None
    """(N,): how much each row counts in training and in scores; ``None`` if all count alike."""

    def __len__(self) -> int:
        return len(self.target)

    def weights_of(self, rows: Rows) -> Floats | None:
        """How much some rows (n,) count; ``None`` if all count alike."""
        return None if self.weights is None else self.weights[rows]

    @abstractmethod
    def columns(self) -> pd.DataFrame:
        """Numbers and categories of all N rows by which two data sets are compared."""

    @abstractmethod
    def identities(self, rows: Rows) -> pd.DataFrame:
        """What tells some rows (n,) from any other, without their labels: the same in whatever data set they are."""

    @abstractmethod
    def raw(self, rows: Rows) -> pd.DataFrame:
        """Some rows (n,) as a caller of the served model would send them."""


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, ascending."""

    train: Rows
    validation: Rows
    holdout: Rows


def split(data: Labelled, spec: DataSpec, seed: int) -> Split:
    """Divide by seed; each class in proportion, and at least one row of it in each part.

    Where the data says by what it is divided, the holdout has the latest rows, or groups of its own, and training has
    each class.

    Raises: UserError, naming a class that has too few rows for that.
    """
    if data.dividing is not None:
        latest, middle, first = in_parts(data.dividing, (spec.holdout, spec.validation), seed)
        _check_classes(data, first, np.concatenate([middle, latest]), "data.split")
        return Split(train=first, validation=middle, holdout=latest)
    free = len(data) - data.given_holdout
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Rows]] = {"train": [], "validation": [], "holdout": []}
    needed = 2 if data.given_holdout else 3
    for label, rows in groups(data.target[:free], data.task):
        if len(rows) < needed:
            name = data.classes[label] if data.classes else "the table"
            raise UserError(
                f"class {name!r} has {len(rows)} rows, too few for training, validation and holdout; "
                f"give it at least {needed} rows, merge it with another class, or leave it out"
            )
        rows = rng.permutation(rows)
        held = 0 if data.given_holdout else max(1, round(len(rows) * spec.holdout))
        used = held + max(1, round(len(rows) * spec.validation))
        used = min(used, len(rows) - 1)
        parts["holdout"].append(rows[:held])
        parts["validation"].append(rows[held:used])
        parts["train"].append(rows[used:])
    parts["holdout"].append(np.arange(free, len(data)))
    return Split(**{name: np.sort(np.concatenate(rows)) for name, rows in parts.items()})


def folds(data: Labelled, rows: Rows, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """(training rows, validation rows) of each of ``count`` folds over the given rows, each class in proportion, or as
    the data is divided.

    Raises: UserError, naming a class that is scored where training lacks it.
    """
    if data.dividing is not None:
        pairs = in_folds(data.dividing, rows, count, seed)
        for training, validation in pairs:
            _check_classes(data, training, validation, "evaluator.folds")
        return pairs
    rng = np.random.default_rng(seed)
    fold = np.empty(len(rows), dtype=np.int64)
    dealt = 0
    for _, members in groups(data.target[rows], data.task):
        # Going on where the last class stopped keeps the folds equally large.
        fold[rng.permutation(members)] = (dealt + np.arange(len(members))) % count
        dealt += len(members)
    return [(rows[fold != k], rows[fold == k]) for k in range(count)]


def check_folds(data: Labelled, rows: Rows, count: int) -> None:
    """Raises: UserError, naming a class of which some folds would have no rows to be scored by."""
    if data.dividing is not None or not data.classes:
        return
    for label, members in groups(data.target[rows], data.task):
        if len(members) < count:
            raise UserError(
                f"evaluator.folds: class {data.classes[label]!r} has {len(members)} rows outside the holdout, fewer "
                f"than {count} folds, so it would be missing in some; use at most {len(members)} folds, or merge it "
                "with another class"
            )


def _check_classes(data: Labelled, training: Rows, scored: Rows, field: str) -> None:
    """Raises: UserError if a class is scored that training lacks, or if one class alone is scored."""
    if not data.classes:
        return
    known, asked = np.unique(data.target[training]), np.unique(data.target[scored])
    if len(missing := np.setdiff1d(asked, known)):
        assert data.dividing is not None
        raise UserError(
            f"{field}: divided by {data.dividing.column!r}, class {data.classes[int(missing[0])]!r} would be scored "
            "and has no rows to train on; split by another column, take larger parts for training, or merge classes"
        )
    if len(asked) < 2:
        raise UserError(
            f"{field}: only class {data.classes[int(asked[0])]!r} is left to be scored; split by another column, or "
            "take larger parts"
        )


def draw(values: Floats, task: Task, count: int, given_holdout: int, seed: int) -> Rows:
    """Row numbers, ascending, of a draw in which each class keeps its share, or three rows if that is more.

    Args:
        values: (N,) the target, as ``Labelled`` has it.
        count: Rows to draw, about.
        given_holdout: How many of the last rows are set apart for testing; the draw takes its share of them.
    """
    rng = np.random.default_rng(seed)
    free = len(values) - given_holdout
    share = count / len(values)
    chosen = [np.arange(free, len(values))[rng.permutation(given_holdout)[: round(share * given_holdout)]]]
    for _, rows in groups(values[:free], task):
        chosen.append(rng.permutation(rows)[: max(3, round(share * len(rows)))])
    return np.sort(np.concatenate(chosen))


def groups(target: Floats, task: Task) -> list[tuple[int, Rows]]:
    """The rows of each class; all rows in one group for regression."""
    if task == "regression":
        return [(0, np.arange(len(target)))]
    return [(int(label), np.flatnonzero(target == label)) for label in np.unique(target)]
