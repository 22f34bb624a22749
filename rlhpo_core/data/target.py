"""What is to be predicted: its task, and its values as numbers or as indices of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlhpo_core.arrays import Floats
from rlhpo_core.data.schema import Label, SchemaChange, TableSchema, Task, few, few_rows, listed_rows
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec

#: An integer target with at most this many values holds classes.
_MOST_INTEGER_CLASSES = 30


@dataclass(frozen=True)
class Target:
    """A checked target of N rows."""

    name: str
    task: Task
    values: Floats
    """(N,): indices into ``classes``, or the numbers to predict."""
    classes: tuple[Label, ...]
    """Sorted; empty for regression."""
    ever: tuple[Label, ...]
    """The same with all classes that an earlier target had."""
    changes: tuple[SchemaChange, ...] = ()
    """Classes that no earlier target had."""


def read_target(target: pd.Series, schema: TableSchema | None, spec: DataSpec) -> Target:
    """A column of labels as numbers, or as indices of classes.

    Args:
        target: (N,) with its name.
        schema: What an earlier data set of the same study or model held; ``None`` if there is none.

    Raises: UserError if labels are missing, if there is nothing to learn, or if they are neither classes nor numbers.
    """
    name = str(target.name)
    missing = np.flatnonzero(target.isna())
    if len(missing):
        raise UserError(
            f"{spec.path}: the target {name!r} is missing in {len(missing)} of {len(target)} rows "
            f"(first in row {missing[0] + 1}); fill them in or take these rows out"
        )
    task = _task(target, schema, spec)
    if task == "regression":
        return Target(name, task, _numbers(target, spec), (), ())
    known = schema.classes if schema is not None and schema.task == task else ()
    codes, classes = _classes(target, known, spec)
    ever, new = _united(known, classes), _new(codes, classes, known)
    if not len(new):
        return Target(name, task, codes, classes, ever)
    labels = few(classes[int(code)] for code in np.unique(codes[new]))
    change = SchemaChange(column=name, change="has new classes", values=labels, rows=few_rows(new), count=len(new))
    return Target(name, task, codes, classes, ever, (change,))


def infer_task(target: pd.Series) -> Task:
    """Text, truth values and integers of few values are classes; other numbers are to be regressed on."""
    if not pd.api.types.is_numeric_dtype(target) or pd.api.types.is_bool_dtype(target):
        return "classification"
    whole = bool((target == target.round()).all())
    return "classification" if whole and target.nunique() <= _MOST_INTEGER_CLASSES else "regression"


def _task(target: pd.Series, schema: TableSchema | None, spec: DataSpec) -> Task:
    if spec.task != "auto":
        return spec.task
    return infer_task(target) if schema is None else schema.task


def _new(
    codes: Floats, classes: tuple[Label, ...], known: tuple[Label, ...]
) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The rows of classes that are not known; none if nothing is known."""
    new = [code for code, label in enumerate(classes) if known and str(label) not in map(str, known)]
    return np.flatnonzero(np.isin(codes, new))


def _classes(target: pd.Series, known: tuple[Label, ...], spec: DataSpec) -> tuple[Floats, tuple[Label, ...]]:
    values = target if pd.api.types.is_numeric_dtype(target) else target.astype(str)
    distinct, codes = np.unique(values.to_numpy(), return_inverse=True)
    labels = _alike([_as_known(label, known) for label in distinct.tolist()], known)
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise UserError(f"{spec.path}: the target {target.name!r} has one class only ({classes[0]}); two are needed")
    if len(classes) > len(target) / 2:
        raise UserError(
            f"{spec.path}: the target {target.name!r} has {len(classes)} classes in {len(target)} rows; "
            "is it a number to predict (`task: regression`), or an identifier?"
        )
    return np.array([classes.index(label) for label in labels], dtype=np.float64)[codes], tuple(classes)


def _as_known(label: Label, known: tuple[Label, ...]) -> Label:
    """The class that a label stands for, as it was first spelt: 1 for 1.0, or for the text ``1``."""
    return next((former for former in known if former == label or str(former) == str(label)), label)


def _alike(labels: Sequence[Label], others: Sequence[Label]) -> Sequence[Label]:
    """Labels as text, if not all are text or none is: they are to be sorted."""
    mixed = len({isinstance(label, str) for label in (*labels, *others)}) > 1
    return [str(label) for label in labels] if mixed else labels


def _united(known: tuple[Label, ...], classes: tuple[Label, ...]) -> tuple[Label, ...]:
    """All classes that were ever seen."""
    return tuple(sorted({*_alike(known, classes), *_alike(classes, known)}))


def _numbers(target: pd.Series, spec: DataSpec) -> Floats:
    if not pd.api.types.is_numeric_dtype(target):
        text = np.flatnonzero(pd.to_numeric(target.astype(object), errors="coerce").isna())
        examples = ", ".join(map(repr, few(target.iloc[text])))
        where = f" ({examples} in {listed_rows(few_rows(text), len(text))})" if len(text) else ""
        raise UserError(
            f"{spec.path}: the target {target.name!r} is not a number{where}; correct these rows, or leave data.task "
            "out if it holds classes"
        )
    numbers = target.to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise UserError(f"{spec.path}: the target {target.name!r} holds infinite values; take these rows out")
    if numbers.min() == numbers.max():
        raise UserError(f"{spec.path}: the target {target.name!r} is {numbers[0]:g} in every row; nothing to learn")
    return numbers
