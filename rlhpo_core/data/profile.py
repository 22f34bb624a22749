"""A table's columns as ``rlhpo init`` shows them: what each holds, and what becomes of it.

All that is wrong is found at once. Nothing is raised: a column that cannot be used is a line like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from rlhpo_core.arrays import Floats
from rlhpo_core.data import columns
from rlhpo_core.data.columns import IdentifierError
from rlhpo_core.data.files import TableFile
from rlhpo_core.data.recognition import ColumnError
from rlhpo_core.data.schema import ColumnSchema, Kind
from rlhpo_core.study.spec import DataSpec

Treatment = Literal["kept", "converted", "dropped", "refused"]

#: With fewer rows a column may be like the target by chance.
_ENOUGH = 50
#: From this area under the ROC curve, or correlation, on a column alone tells the target.
_TELLS = 0.9995
_EXAMPLE = 40


@dataclass(frozen=True, kw_only=True)
class ColumnLine:
    """One column."""

    name: str
    kind: Kind
    """What it holds; of a column that is not used, what it seems to."""
    missing: int
    levels: int
    """Different values."""
    example: str
    """The first value that is there, as the file has it."""
    treatment: Treatment
    why: str = ""
    """How it was converted, or why it is not used."""
    schema: ColumnSchema | None = None
    """``None`` if it is not used."""

    @property
    def text(self) -> str:
        """On one line, for a person to read."""
        missing = f", {self.missing} missing" if self.missing else ""
        levels = "1 value" if self.levels == 1 else f"{self.levels} values"
        example = f", such as {self.example}" if self.example and self.treatment != "converted" else ""
        return f"{levels}{missing}{example}" + (f": {self.why}" if self.why else "")


def profiled(file: TableFile, spec: DataSpec) -> list[ColumnLine]:
    """Each column but the target, in the file's order.

    Identifiers, and numbers that count the rows, are dropped, unless the study declares a kind for them.
    """
    lines = []
    for name, column in ((str(name), column) for name, column in file.frame.items()):
        if name == spec.target:
            continue
        known: dict[str, object] = {
            "name": name,
            "missing": int(column.isna().sum()),
            "levels": _levels(column),
            "example": _example(column),
        }
        if name in spec.dropped:
            lines.append(_line(known, "empty", "dropped", "as the study says"))
            continue
        declared = spec.columns.get(name)
        try:
            encoded, schema = columns.infer(name, column, declared, file.decimal, file.typed)
        except IdentifierError as error:
            lines.append(_line(known, "category", "dropped", _reason(name, error).partition(";")[0]))
        except ColumnError as error:
            lines.append(_line(known, "empty", "refused", _reason(name, error)))
        else:
            if declared is None and columns.identifying(encoded):
                lines.append(_line(known, "number", "dropped", "it counts the rows, one by one"))
            else:
                treatment: Treatment = "converted" if schema.note else "kept"
                lines.append(_line(known, schema.kind, treatment, schema.note, schema))
    return lines


def copies(features: pd.DataFrame, target: Floats, classes: int) -> dict[str, str]:
    """Columns that are the target over again, and what shows it: one value for each class, or a straight line.

    Args:
        features: (N, …), as they are encoded.
        target: (N,) numbers, or indices of classes.
        classes: How many there are; 0 for regression.
    """
    if len(target) < _ENOUGH:
        return {}
    found = {}
    for name, column in features.items():
        if column.isna().any() or column.nunique() < 2:
            continue
        if classes:
            codes = pd.factorize(column)[0]
            if codes.max() + 1 == classes and len(np.unique(codes * classes + target.astype(np.int64))) == classes:
                found[str(name)] = "each of its values stands for one class"
        elif _is_number(column) and abs(np.corrcoef(column.astype("float64"), target)[0, 1]) > 1 - 1e-12:
            found[str(name)] = "it is the target in another unit"
    return found


def telling(features: pd.DataFrame, target: Floats, classes: int) -> dict[str, str]:
    """Columns that nearly tell the target by themselves, and how well; they may be known only after it.

    Args:
        features: As ``copies`` has it, as are the others.
    """
    if len(target) < _ENOUGH:
        return {}
    found = {}
    for name, column in features.items():
        if classes == 2:
            area = _area(column, target)
            if area > _TELLS:
                found[str(name)] = f"alone it tells the classes apart (AUC {area:.4f})"
        elif not classes and _is_number(column):
            known = column.notna().to_numpy()
            correlation = abs(float(np.corrcoef(column[known].astype("float64"), target[known])[0, 1]))
            if known.mean() > 0.5 and correlation > _TELLS:
                found[str(name)] = f"its correlation with the target is {correlation:.6f}"
    return found


def _is_number(column: pd.Series) -> bool:
    return not isinstance(column.dtype, pd.CategoricalDtype) and column.nunique() > 2


def _area(column: pd.Series, target: Floats) -> float:
    """Area under the ROC curve of one column, with what is missing as a value of its own; of categories, by the share
    of the second class in each, if they are few.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = pd.Series(column.cat.codes)
        if codes.nunique() > len(column) / 20:
            return 0.0
        values = codes.map(pd.Series(target).groupby(codes).mean()).to_numpy()
    else:
        values = column.to_numpy(dtype=np.float64)
        values = np.where(np.isnan(values), np.nanmin(values) - 1 if not np.isnan(values).all() else 0.0, values)
    positive = target == 1
    pairs = positive.sum() * (~positive).sum()
    area = (stats.rankdata(values)[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / max(pairs, 1)
    return float(max(area, 1 - area))


def _line(
    known: Mapping[str, object], kind: Kind, treatment: Treatment, why: str, schema: ColumnSchema | None = None
) -> ColumnLine:
    return ColumnLine(**known, kind=kind, treatment=treatment, why=why, schema=schema)  # type: ignore[arg-type]


def _levels(column: pd.Series) -> int:
    try:
        return int(column.nunique())
    except TypeError:  # Lists, and whatever else has no hash.
        return int(column.astype(str).nunique())


def _example(column: pd.Series) -> str:
    present = column.dropna()
    text = repr(str(present.iloc[0])) if len(present) else ""
    return text if len(text) <= _EXAMPLE else f"{text[: _EXAMPLE - 1]}…"


def _reason(name: str, error: ColumnError) -> str:
    return str(error).removeprefix(f"column {name!r}").removeprefix(":").strip()
