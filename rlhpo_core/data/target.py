"""What is to be predicted: its task, and its values as numbers or as indices of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pandas as pd

from rlhpo_core.arrays import Floats
from rlhpo_core.data import conversions
from rlhpo_core.data.columns import merged_spellings, numbers
from rlhpo_core.data.recognition import Reading, recognised
from rlhpo_core.data.schema import ColumnSchema, Label, SchemaChange, TableSchema, Task, few, few_rows, listed_rows
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
    label: ColumnSchema | None = None
    """How it is written, where it was converted."""


def read_target(target: pd.Series, schema: TableSchema | None, spec: DataSpec, decimal: str | None = ".") -> Target:
    """A column of labels as numbers, or as indices of classes.

    Args:
        target: (N,) with its name.
        schema: What an earlier data set of the same study or model held; ``None`` if there is none.
        decimal: The sign before decimals in the text of its file; ``None`` if it is not known.

    Raises: UserError if labels are missing, if there is nothing to learn, or if they are neither classes nor numbers.
    """
    name = str(target.name)
    target = _without_blanks(target)
    missing = np.flatnonzero(target.isna())
    if len(missing):
        raise UserError(
            f"{spec.path}: the target {name!r} is missing in {len(missing)} of {len(target)} rows "
            f"(first in row {missing[0] + 1}); fill them in or take these rows out"
        )
    label = _first_label(target, spec, decimal) if schema is None else schema.label
    target = _as_written(target, label)
    if label is not None and label == ColumnSchema(kind=label.kind):
        label = None  # What any reader makes of it.
    task = _task(target, schema, spec)
    if task == "regression":
        return Target(name, task, _numbers(target, spec), (), (), label=label)
    known = schema.classes if schema is not None and schema.task == task else ()
    codes, classes = _classes(target, known, spec)
    ever, new = _united(known, classes), _new(codes, classes, known)
    if not len(new):
        return Target(name, task, codes, classes, ever, label=label)
    labels = few(classes[int(code)] for code in np.unique(codes[new]))
    change = SchemaChange(column=name, change="has new classes", values=labels, rows=few_rows(new), count=len(new))
    return Target(name, task, codes, classes, ever, (change,), label)


def _without_blanks(target: pd.Series) -> pd.Series:
    """Of categories, their values; text that is blank is missing."""
    if isinstance(target.dtype, pd.CategoricalDtype):
        target = target.astype(target.cat.categories.dtype)
    if pd.api.types.is_numeric_dtype(target) or pd.api.types.is_datetime64_any_dtype(target):
        return target
    return target.where(target.astype(str).str.strip() != "")


def _first_label(target: pd.Series, spec: DataSpec, decimal: str | None) -> ColumnSchema | None:
    """How a target of which nothing is known is written; ``None`` if it is what it looks like.

    Raises: UserError if it holds times, or what is neither numbers nor text; ColumnError as ``recognition`` does.
    """
    name, declared = str(target.name), spec.columns.get(str(target.name))
    if pd.api.types.is_timedelta64_dtype(target.dtype):
        return ColumnSchema(kind="number", note="durations are read as seconds")
    if pd.api.types.is_datetime64_any_dtype(target.dtype):
        raise UserError(f"{spec.path}: the target {name!r} holds times; predict a number, such as the days until then")
    if pd.api.types.is_numeric_dtype(target):
        return None
    kinds = {type(value) for value in target}
    if Decimal in kinds and kinds <= {Decimal, int, float}:
        return ColumnSchema(kind="number")
    if kinds == {bool} or not all(issubclass(kind, str) for kind in kinds):
        return None
    text = target.astype(str)
    if declared is not None and declared.kind == "category":
        reading = Reading("category")
    else:
        reading = recognised(name, text, (declared and declared.decimal) or decimal)
    if reading.kind == "time":
        raise UserError(f"{spec.path}: the target {name!r} holds times; predict a number, such as the days until then")
    if reading.kind == "number":
        return ColumnSchema(kind="number", number=reading.number, note=reading.note)
    if reading.kind == "boolean":
        return ColumnSchema(kind="boolean")
    merged, note = merged_spellings(text.str.strip())
    spellings = {written: kept for written, kept in zip(text, merged, strict=True) if written != kept}
    if not spellings:
        return None
    return ColumnSchema(kind="category", spellings=spellings, note=note)


def _as_written(target: pd.Series, label: ColumnSchema | None) -> pd.Series:
    """The target as what it stands for: numbers, truth values, or classes by one spelling of each.

    Raises: UserError at what is no number, with its row.
    """
    if label is None:
        return target
    if label.kind == "number":
        values = numbers(str(target.name), target, label)
        whole = values.dropna()
        integers = label.number is None and bool((whole % 1 == 0).all()) and not label.note
        return values.astype("int64") if integers and not pd.api.types.is_integer_dtype(values) else values
    if label.kind == "boolean":
        values, wrong = conversions.truths_of(target)
        return target if wrong.any() else pd.Series(values == 1, index=target.index, name=target.name)
    return target.replace(label.spellings)


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
