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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlhpo_core.arrays import Floats
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec

Task = Literal["classification", "regression"]
Rows = NDArray[np.int64]
SUFFIXES = (".csv", ".csv.gz", ".parquet", ".npz")

#: A text column of which more than this share is numbers, and with more different ones than this, is taken for numbers
#: with stray text among them. (Few different ones are grades, such as 2, 3, 4, 5more.)
_MOSTLY_NUMBERS, _GRADES = 0.5, 20
#: A text column with more distinct values than this, in more than half of its rows, holds names or identifiers.
_MOST_CATEGORIES = 100
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
    classes: tuple[str | int | float | bool, ...]
    """Sorted; empty for regression."""
    target_name: str
    given_holdout: int
    """The last rows of the table that its file sets apart for testing (NPZ with ``x_test``); 0 if it does not."""
    digest: str
    """Of the content, 32 hexadecimal digits."""

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


def load_table(spec: DataSpec, seed: int) -> Table:
    """Read and check a table; with ``max_rows``, a stratified draw from it by seed.

    Raises: UserError on a file that cannot be read, a wrong target, or a column that cannot be used.
    """
    frame, target_name, given_holdout = _read(spec)
    if frame.empty:
        raise UserError(f"{spec.path} has no rows")
    target = _check_target(frame[target_name], spec)
    features = frame.drop(columns=[target_name, *_known(spec.drop, frame, spec)])
    if features.shape[1] == 0:
        raise UserError(f"{spec.path} has no column to predict {target_name!r} from")
    features = pd.DataFrame({str(name): _encode(str(name), column) for name, column in features.items()})
    task = infer_task(target) if spec.task == "auto" else spec.task
    values, classes = _classes(target, spec) if task == "classification" else (_numbers(target, spec), ())
    if spec.max_rows is not None and len(values) > spec.max_rows:
        rows = _draw(values, task, spec.max_rows, given_holdout, seed)
        given_holdout = int((rows >= len(values) - given_holdout).sum())
        features, values = features.iloc[rows].reset_index(drop=True), values[rows]
    if len(values) < 10:
        raise UserError(f"{spec.path} has {len(values)} rows; 10 are the least that can be divided in three parts")
    return Table(features, values, task, classes, target_name, given_holdout, _digest(features, values))


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


def read_frame(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file as it is.

    Raises: UserError if the file is missing, empty, damaged, or of another kind.
    """
    if not path.exists():
        raise UserError(f"there is no file {path}; data.path is taken relative to the study file")
    try:
        if path.name.endswith((".csv", ".csv.gz")):
            return _read_csv(path)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    raise UserError(f"{path}: a table is one of {', '.join(SUFFIXES)}")


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV file whose rows are no longer than its header.

    Of longer ones pandas makes the first values an index, and the others slide to the left, under wrong names.
    """
    try:
        frame = pd.read_csv(path, low_memory=False)
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


def _read(spec: DataSpec) -> tuple[pd.DataFrame, str, int]:
    """The table, the name of its target and the number of rows at its end that are for testing."""
    if spec.path.suffix == ".npz":
        return _read_npz(spec.path)
    frame = read_frame(spec.path)
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


def _classes(target: pd.Series, spec: DataSpec) -> tuple[Floats, tuple[str | int | float | bool, ...]]:
    values = target if pd.api.types.is_numeric_dtype(target) else target.astype(str)
    classes, codes = np.unique(values.to_numpy(), return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"{spec.path}: the target {target.name!r} has one class only ({classes[0]}); two are needed")
    if len(classes) > len(target) / 2:
        raise UserError(
            f"{spec.path}: the target {target.name!r} has {len(classes)} classes in {len(target)} rows; "
            "is it a number to predict (`task: regression`), or an identifier?"
        )
    return codes.astype(np.float64), tuple(classes.tolist())


def _numbers(target: pd.Series, spec: DataSpec) -> Floats:
    if not pd.api.types.is_numeric_dtype(target):
        raise UserError(f"{spec.path}: the target {target.name!r} is not a number; leave data.task out")
    numbers = target.to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise UserError(f"{spec.path}: the target {target.name!r} holds infinite values; take these rows out")
    if numbers.min() == numbers.max():
        raise UserError(f"{spec.path}: the target {target.name!r} is {numbers[0]:g} in every row; nothing to learn")
    return numbers


def _encode(name: str, column: pd.Series) -> pd.Series:
    """A column of numbers or of categories."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if column.isna().all():
        return pd.Series(np.nan, index=column.index)
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
        numbers = column.astype("float64") if pd.api.types.is_extension_array_dtype(column.dtype) else column
        if np.isinf(numbers.to_numpy(dtype=np.float64)).any():
            raise UserError(f"column {name!r} holds infinite values; replace them by blanks or by a number")
        return numbers.astype("int8") if pd.api.types.is_bool_dtype(numbers) else numbers
    kinds = {type(value) for value in column.dropna()}
    if kinds == {bool}:
        # Truth values of which some are missing; the others are 0 and 1, as where none is.
        return column.astype("float64")
    if not kinds <= {str, int, float, bool}:
        kind = ", ".join(sorted(kind.__name__ for kind in kinds - {str, int, float, bool}))
        raise UserError(
            f"column {name!r} holds values of type {kind}; turn them into numbers or text, or list it in data.drop"
        )
    return _encode_text(name, column.dropna().astype(str).reindex(column.index))


def _encode_text(name: str, column: pd.Series) -> pd.Series:
    present = column.dropna()
    not_numbers = present[pd.to_numeric(present, errors="coerce").isna()]
    distinct = present.nunique()
    if len(not_numbers) < (1 - _MOSTLY_NUMBERS) * len(present) and distinct > _GRADES:
        example = f"row {not_numbers.index[0] + 1} has {not_numbers.iloc[0]!r}" if len(not_numbers) else "all are text"
        raise UserError(
            f"column {name!r} should hold numbers, but {example} ({len(not_numbers)} of {len(present)} values are no "
            "numbers); correct them, leave them blank if they are missing, or list the column in data.drop"
        )
    if distinct > _MOST_CATEGORIES and distinct > len(present) / 2:
        raise UserError(
            f"column {name!r} has {distinct} different texts in {len(present)} rows: names or identifiers rather than "
            "categories; leave it out with data.drop"
        )
    return column.astype(pd.CategoricalDtype(sorted(present.unique())))


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
