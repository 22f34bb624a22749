"""Tables: read, check, encode for gradient boosting, and divide by seed.

Numbers stay numbers, text becomes categories, what is missing stays missing (NaN): XGBoost handles all three itself.
Data that would be misread in silence, such as text in a column of numbers, is refused with its column and row.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlhpo_core.arrays import Floats
from rlhpo_core.data import columns
from rlhpo_core.data.columns import ColumnError
from rlhpo_core.data.schema import (
    ColumnSchema,
    Label,
    SchemaChange,
    TableSchema,
    Task,
    few,
    few_rows,
    listed_rows,
)
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec

Rows = NDArray[np.int64]
SUFFIXES = (".csv", ".csv.gz", ".parquet", ".npz")

#: An integer target with at most this many values holds classes.
_MOST_INTEGER_CLASSES = 30


@dataclass(frozen=True)
class Table:
    """A checked table."""

    features: pd.DataFrame
    """Numeric columns and columns of dtype ``category`` (of strings); NaN where missing."""
    target: Floats
    """(N,): indices into ``classes``, or the numbers to predict."""
    task: Task
    classes: tuple[Label, ...]
    """Sorted; empty for regression."""
    target_name: str
    given_holdout: int
    """The last rows of the table that its file sets apart for testing (NPZ with ``x_test``); 0 if it does not."""
    digest: str
    """Of the content, 32 hexadecimal digits."""
    schema: TableSchema
    """What it holds: what was known of it before, and what is new."""
    changes: tuple[SchemaChange, ...] = ()
    """What is new, if it was read by a schema."""

    def __len__(self) -> int:
        return len(self.target)

    @property
    def categories(self) -> dict[str, list[str]]:
        """The values of each categorical column."""
        return {
            str(name): list(column.cat.categories)
            for name, column in self.features.items()
            if isinstance(column.dtype, pd.CategoricalDtype)
        }


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, ascending."""

    train: Rows
    validation: Rows
    holdout: Rows


def load_table(spec: DataSpec, seed: int, schema: TableSchema | None = None) -> Table:
    """Read and check a table; with ``max_rows``, a stratified draw from it by seed.

    Args:
        schema: What an earlier table of the same study or model held; ``None`` to infer it from this one.

    Raises: UserError on a file that cannot be read, a wrong target, a column that cannot be used, or one that is not
    there or does not hold what the schema says.
    """
    frame, target_name, given_holdout = _read(spec, schema)
    if frame.empty:
        raise UserError(f"{spec.path} has no rows")
    target = _check_target(frame[target_name], spec)
    frame = frame.drop(columns=[target_name, *_known(spec.drop, frame, spec)])
    if frame.shape[1] == 0:
        raise UserError(f"{spec.path} has no column to predict {target_name!r} from")
    known = None if schema is None else schema.without([target_name, *spec.drop])
    features, described, changes = _features(frame, known, spec)
    task = _task(target, known, spec)
    before = known.classes if known is not None and known.task == task else ()
    values, classes, renewed = _target(target, task, before, spec)
    if spec.max_rows is not None and len(values) > spec.max_rows:
        rows = _draw(values, task, spec.max_rows, given_holdout, seed)
        given_holdout = int((rows >= len(values) - given_holdout).sum())
        features, values = features.iloc[rows].reset_index(drop=True), values[rows]
    if len(values) < 10:
        raise UserError(f"{spec.path} has {len(values)} rows; 10 are the least that can be divided in three parts")
    return Table(
        features=features,
        target=values,
        task=task,
        classes=classes,
        target_name=target_name,
        given_holdout=given_holdout,
        digest=_digest(features, values),
        schema=TableSchema(task=task, classes=_united(before, classes), columns=described),
        changes=(*changes, *renewed),
    )


def split(table: Table, spec: DataSpec, seed: int) -> Split:
    """Divide by seed; each class in proportion, and at least one row of it in each part.

    Raises: UserError, naming a class that has too few rows for that.
    """
    free = len(table) - table.given_holdout
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Rows]] = {"train": [], "validation": [], "holdout": []}
    needed = 2 if table.given_holdout else 3
    for label, rows in _groups(table.target[:free], table.task):
        if len(rows) < needed:
            name = table.classes[label] if table.classes else "the table"
            raise UserError(
                f"class {name!r} has {len(rows)} rows, too few for training, validation and holdout; "
                f"give it at least {needed} rows, merge it with another class, or leave it out"
            )
        rows = rng.permutation(rows)
        held = 0 if table.given_holdout else max(1, round(len(rows) * spec.holdout))
        used = held + max(1, round(len(rows) * spec.validation))
        used = min(used, len(rows) - 1)
        parts["holdout"].append(rows[:held])
        parts["validation"].append(rows[held:used])
        parts["train"].append(rows[used:])
    parts["holdout"].append(np.arange(free, len(table)))
    return Split(**{name: np.sort(np.concatenate(rows)) for name, rows in parts.items()})


def folds(table: Table, rows: Rows, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """(training rows, validation rows) of each of ``count`` folds over the given rows, each class in proportion."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(rows), dtype=np.int64)
    dealt = 0
    for _, members in _groups(table.target[rows], table.task):
        # Going on where the last class stopped keeps the folds equally large.
        fold[rng.permutation(members)] = (dealt + np.arange(len(members))) % count
        dealt += len(members)
    return [(rows[fold != k], rows[fold == k]) for k in range(count)]


def infer_task(target: pd.Series) -> Task:
    """Text, truth values and integers of few values are classes; other numbers are to be regressed on."""
    if not pd.api.types.is_numeric_dtype(target) or pd.api.types.is_bool_dtype(target):
        return "classification"
    whole = bool((target == target.round()).all())
    return "classification" if whole and target.nunique() <= _MOST_INTEGER_CLASSES else "regression"


def read_frame(path: Path, text: Collection[str] = ()) -> pd.DataFrame:
    """A CSV or Parquet file as it is.

    Args:
        text: Columns of a CSV file whose values stay text, even if all are numbers.

    Raises: UserError if the file is missing, empty, damaged, or of another kind.
    """
    if not path.exists():
        raise UserError(f"there is no file {path}; data.path is taken relative to the study file")
    try:
        if path.name.endswith((".csv", ".csv.gz")):
            return _read_csv(path, text)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    raise UserError(f"{path}: a table is one of {', '.join(SUFFIXES)}")


def _read_csv(path: Path, text: Collection[str]) -> pd.DataFrame:
    """A CSV file whose rows are no longer than its header.

    Of longer ones pandas makes the first values an index, and the others slide to the left, under wrong names.
    """
    try:
        frame = pd.read_csv(path, low_memory=False, dtype=dict.fromkeys(text, str))
    except pd.errors.ParserError:
        _refuse_long_rows(path)
        raise
    if not isinstance(frame.index, pd.RangeIndex):
        _refuse_long_rows(path)
    return frame


def _refuse_long_rows(path: Path) -> None:
    """Raises: UserError, with the first row that has more fields than the header."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
        rows = (row for row in csv.reader(file) if row)
        names = next(rows, [])
        for number, row in enumerate(rows, start=1):
            if len(row) > len(names):
                surplus = "a delimiter at its end" if not any(row[len(names) :]) else "a value without a name"
                raise UserError(
                    f"{path}: row {number} has {len(row)} fields and the header {len(names)}, so values would slide "
                    f"under wrong names; it has {surplus}: {','.join(row)[:100]!r}. Name each column in the header, "
                    "put quotes around text with commas, or take the surplus delimiters out"
                )


def _read(spec: DataSpec, schema: TableSchema | None) -> tuple[pd.DataFrame, str, int]:
    """The table, the name of its target and the number of rows at its end that are for testing."""
    if spec.path.suffix == ".npz":
        return _read_npz(spec.path)
    text = set() if schema is None else set(schema.as_text)
    if schema is not None and schema.label_is_text and spec.target is not None:
        text.add(spec.target)
    frame = read_frame(spec.path, text)
    if spec.target is None:
        raise UserError(f"data.target: which column of {spec.path} is to be predicted? It has {_list(frame)}")
    _known([spec.target], frame, spec)
    return frame, spec.target, 0


def _read_npz(path: Path) -> tuple[pd.DataFrame, str, int]:
    """Arrays ``x`` and ``y``, or ``x_train``, ``y_train`` and, for the holdout, ``x_test``, ``y_test``."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name.lower(): file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    suffixes = [""] if "x" in arrays else ["_train", "_test"] if "x_test" in arrays else ["_train"]
    absent = [name + suffix for suffix in suffixes for name in "xy" if name + suffix not in arrays]
    if absent:
        raise UserError(f"{path} lacks {', '.join(absent)}; it has {', '.join(arrays) or 'no arrays'}")
    for suffix in suffixes:
        x, y = arrays["x" + suffix], arrays["y" + suffix]
        if y.ndim != 1 or x.ndim < 2 or len(x) != len(y):
            raise UserError(f"{path}: x{suffix} {x.shape} and y{suffix} {y.shape} must be (rows, …) and (rows,)")
    x = np.concatenate([arrays["x" + suffix].reshape(len(arrays["x" + suffix]), -1) for suffix in suffixes])
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    frame["y"] = np.concatenate([arrays["y" + suffix] for suffix in suffixes])
    return frame, "y", len(arrays["y_test"]) if "_test" in suffixes else 0


def _known(names: Sequence[str], frame: pd.DataFrame, spec: DataSpec) -> list[str]:
    """The names, if the table has them all."""
    for name in names:
        if name not in frame.columns:
            close = difflib.get_close_matches(name, [str(column) for column in frame.columns], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has {_list(frame)}"
            raise UserError(f"{spec.path} has no column {name!r}{hint}")
    return list(names)


def _list(frame: pd.DataFrame) -> str:
    names = [str(name) for name in frame.columns]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _check_target(target: pd.Series, spec: DataSpec) -> pd.Series:
    missing = np.flatnonzero(target.isna())
    if len(missing):
        raise UserError(
            f"{spec.path}: the target {target.name!r} is missing in {len(missing)} of {len(target)} rows "
            f"(first in row {missing[0] + 1}); fill them in or take these rows out"
        )
    return target


def _features(
    frame: pd.DataFrame, schema: TableSchema | None, spec: DataSpec
) -> tuple[pd.DataFrame, dict[str, ColumnSchema], list[SchemaChange]]:
    """The columns as numbers and categories, what they hold, and what is new about them.

    Raises: UserError, naming the column that cannot be used, or all that break the schema.
    """
    encoded: dict[str, pd.Series] = {}
    described: dict[str, ColumnSchema] = {}
    changes: list[SchemaChange] = []
    known = {} if schema is None else schema.columns
    names = [str(name) for name in frame.columns]
    new = [name for name in names if name not in known]
    problems = [_gone(name, new) for name in known if name not in names]
    for name, column in ((str(name), column) for name, column in frame.items()):
        try:
            if name in known:
                encoded[name], described[name], change = columns.read(name, column, known[name])
                changes += [] if change is None else [change]
            else:
                encoded[name], described[name] = columns.infer(name, column)
        except ColumnError as error:
            if schema is None:
                raise
            problems.append(str(error))
    if problems:
        raise UserError(
            f"{spec.path} breaks the schema of the table that was tuned on first: {'. '.join(problems)}. Correct the "
            "table; if it is to be so from now on, begin anew with `rlhpo tune`"
        )
    if schema is not None:
        changes += [SchemaChange(column=name, change="is new") for name in new]
    return pd.DataFrame(encoded), described, changes


def _gone(name: str, new: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, new, n=1)
    hint = f" (is {close[0]!r} another name for it?)" if close else ""
    return f"column {name!r} is gone{hint}; bring it back, with blanks where there is no value"


def _task(target: pd.Series, schema: TableSchema | None, spec: DataSpec) -> Task:
    if spec.task != "auto":
        return spec.task
    return infer_task(target) if schema is None else schema.task


def _target(
    target: pd.Series, task: Task, known: tuple[Label, ...], spec: DataSpec
) -> tuple[Floats, tuple[Label, ...], list[SchemaChange]]:
    """The values to predict, or indices into classes; the classes, and what is new about them."""
    if task == "regression":
        return _numbers(target, spec), (), []
    codes, classes = _classes(target, known, spec)
    new = [code for code, label in enumerate(classes) if known and str(label) not in map(str, known)]
    if not new:
        return codes, classes, []
    rows = np.flatnonzero(np.isin(codes, new))
    labels = few(classes[code] for code in new)
    change = SchemaChange(
        column=str(target.name), change="has new classes", values=labels, rows=few_rows(rows), count=len(rows)
    )
    return codes, classes, [change]


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


def _digest(features: pd.DataFrame, target: Floats) -> str:
    rows = pd.util.hash_pandas_object(features, index=False).to_numpy()
    names = "\n".join(map(str, features.columns)).encode()
    return hashlib.sha256(names + rows.tobytes() + target.tobytes()).hexdigest()[:32]


def _groups(target: Floats, task: Task) -> list[tuple[int, Rows]]:
    """The rows of each class; all rows in one group for regression."""
    if task == "regression":
        return [(0, np.arange(len(target)))]
    return [(int(label), np.flatnonzero(target == label)) for label in np.unique(target)]


def _draw(values: Floats, task: Task, count: int, given_holdout: int, seed: int) -> Rows:
    """Row numbers, ascending, of a draw in which each class keeps its share, or three rows if that is more."""
    rng = np.random.default_rng(seed)
    free = len(values) - given_holdout
    share = count / len(values)
    chosen = [np.arange(free, len(values))[rng.permutation(given_holdout)[: round(share * given_holdout)]]]
    for _, rows in _groups(values[:free], task):
        chosen.append(rng.permutation(rows)[: max(3, round(share * len(rows)))])
    return np.sort(np.concatenate(chosen))
