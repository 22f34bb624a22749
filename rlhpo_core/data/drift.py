"""How far a table has moved from an earlier one: columns, their distributions, and the label.

A profile keeps of each column what a comparison needs and no rows: quantiles of numbers, counts of categories. It
travels with the model that was trained on the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from rlhpo_core.arrays import Floats
from rlhpo_core.data.labelled import Labelled
from rlhpo_core.data.schema import SchemaChange
from rlhpo_core.frozen import Frozen
from rlhpo_core.study.production_settings import RetuneSpec
from rlhpo_core.trial import FiniteFloat

#: Values kept of a column of numbers, and categories counted one by one.
QUANTILES, CATEGORIES = 500, 200
_BINS = 10
_OTHER = "(other)"


class ColumnProfile(Frozen):
    """Numbers or categories of one column, and how many of its values are missing."""

    present: int
    missing: int
    quantiles: tuple[FiniteFloat, ...] | None = None
    """Of numbers, evenly spaced in rank, ascending; all of them if they are few."""
    counts: dict[str, int] | None = None
    """Of categories."""


class DataProfile(Frozen):
    """What is remembered of a table: enough to compare another one with it, and no rows."""

    digest: str
    """Of the content."""
    rows: int
    target: str
    """Name of the column to predict."""
    label: ColumnProfile
    """Of the target's values."""
    columns: dict[str, ColumnProfile]


class ColumnDrift(Frozen):
    """How far one column has moved."""

    name: str
    psi: FiniteFloat
    """Population stability index, less what chance alone leads to expect; 0.1 is a little, 0.25 a lot."""
    p_value: FiniteFloat
    """Kolmogorov–Smirnov for numbers, χ² for categories; corrected for the number of columns (Bonferroni)."""
    drifted: bool
    """Whether both pass the limits of the study."""


class Drift(Frozen):
    """What has changed between two tables."""

    same: bool
    """Whether the content is the same."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()
    """Columns of numbers that now hold categories, or the other way round."""
    new_classes: tuple[str, ...] = ()
    """Classes of the label that were not there."""
    schema_changes: tuple[SchemaChange, ...] = ()
    """What the earlier table's schema lacks, with rows."""
    columns: tuple[ColumnDrift, ...] = ()
    """The most drifted first."""
    label: ColumnDrift | None = None
    moved: FiniteFloat = 0.0
    """Mean population stability index of columns and label."""

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of what has drifted."""
        label = (self.label,) if self.label is not None else ()
        return tuple(column.name for column in (*label, *self.columns) if column.drifted)

    @property
    def schema_changed(self) -> bool:
        """Whether columns or classes have come, gone, or changed their kind."""
        return bool(self.added or self.removed or self.retyped or self.new_classes)

    def summary(self) -> str:
        """One line for a person."""
        if self.same:
            return "the data is the same"
        parts = [
            f"{word} {', '.join(names)}"
            for word, names in (
                ("new columns", self.added), ("columns gone", self.removed), ("columns of another kind", self.retyped),
                ("new classes", self.new_classes), ("drifted", self.drifted[:8]),
            )
            if names
        ]  # fmt: skip
        changes = [change.text for change in self.schema_changes if change.rows]
        return f"the data is new, moved by {self.moved:.3f}; " + ("; ".join(parts + changes) or "nothing drifted")


# -- profiles --------------------------------------------------------------------------------------------------------


def profile(data: Labelled) -> DataProfile:
    """What is remembered of a data set."""
    label: pd.Series = pd.Series(data.target)
    if data.classes:
        label = pd.Series([str(data.classes[int(code)]) for code in data.target], dtype="category")
    return DataProfile(
        digest=data.digest,
        rows=len(data),
        target=data.target_name,
        label=_column(label),
        columns={str(name): _column(column) for name, column in data.columns().items()},
    )


def _column(column: pd.Series) -> ColumnProfile:
    known = column.dropna()
    missing = len(column) - len(known)
    if isinstance(column.dtype, pd.CategoricalDtype):
        counts = known.astype(str).value_counts()
        kept = {str(name): int(count) for name, count in counts.iloc[:CATEGORIES].items()}
        rest = int(counts.iloc[CATEGORIES:].sum())
        return ColumnProfile(present=len(known), missing=missing, counts=kept | ({_OTHER: rest} if rest else {}))
    values = np.sort(known.to_numpy(dtype=np.float64))
    if len(values) > QUANTILES:
        values = values[np.linspace(0, len(values) - 1, QUANTILES).round().astype(int)]
    return ColumnProfile(present=len(known), missing=missing, quantiles=tuple(values.tolist()))


# -- comparison ------------------------------------------------------------------------------------------------------


def compare(then: DataProfile, now: DataProfile, spec: RetuneSpec) -> Drift:
    """What has changed from one table to another.

    Args:
        then: The table that the champion was trained on, or another earlier one.
        now: The current table.
        spec: From which population stability index, and below which p-value, a column has drifted.
    """
    if then.digest == now.digest:
        return Drift(same=True)
    shared = [name for name in then.columns if name in now.columns]
    retyped = [name for name in shared if _kind(then.columns[name]) != _kind(now.columns[name])]
    compared = [name for name in shared if name not in retyped]
    tests = len(compared) + 1
    columns = [_drift(name, then.columns[name], now.columns[name], tests, spec) for name in compared]
    label = None
    if _kind(then.label) == _kind(now.label):
        label = _drift(now.target, then.label, now.label, tests, spec)
    known = then.label.counts or {}
    return Drift(
        same=False,
        added=tuple(name for name in now.columns if name not in then.columns),
        removed=tuple(name for name in then.columns if name not in now.columns),
        retyped=tuple(retyped),
        new_classes=tuple(sorted(set(now.label.counts or {}) - set(known))),
        columns=tuple(sorted(columns, key=lambda column: -column.psi)),
        label=label,
        moved=float(np.mean([column.psi for column in (*columns, *([label] if label else ()))] or [0.0])),
    )


def _kind(column: ColumnProfile) -> Literal["number", "category"]:
    return "category" if column.counts is not None else "number"


def _drift(name: str, then: ColumnProfile, now: ColumnProfile, tests: int, spec: RetuneSpec) -> ColumnDrift:
    a, b = _binned(then, now)
    psi = _psi(a, b)
    if then.quantiles and now.quantiles:
        p = float(stats.ks_2samp(then.quantiles, now.quantiles, method="asymp").pvalue)
    else:
        p = _chi_squared(a, b)
    p = min(1.0, tests * p)
    return ColumnDrift(name=name, psi=psi, p_value=p, drifted=psi >= spec.psi and p < spec.p_value)


def _binned(then: ColumnProfile, now: ColumnProfile) -> tuple[Floats, Floats]:
    """Counts (K,) of both: tenths of the earlier range of numbers, or categories; what is missing last."""
    if then.counts is not None or now.counts is not None:
        names = sorted({*(then.counts or {}), *(now.counts or {})})
        return _counted(then.counts or {}, names, then.missing), _counted(now.counts or {}, names, now.missing)
    values = then.quantiles or now.quantiles or (0.0,)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return _numbers(then, edges), _numbers(now, edges)


def _counted(counts: Mapping[str, int], names: Sequence[str], missing: int) -> Floats:
    return np.array([*(counts.get(name, 0) for name in names), missing], dtype=np.float64)


def _numbers(column: ColumnProfile, edges: Floats) -> Floats:
    """Counts (K,) of a column of numbers, scaled up from the quantiles that are kept."""
    kept = column.quantiles or ()
    bins = np.searchsorted(edges, kept, side="left")
    counts = np.bincount(bins, minlength=len(edges) + 1) * (column.present / max(len(kept), 1))
    return np.append(counts, column.missing)


def _psi(a: Floats, b: Floats) -> float:
    """Σ (q − p) ln(q / p) over the bins in use, less its expectation if nothing had changed."""
    used = (a + b) > 0
    a, b = a[used] + 0.5, b[used] + 0.5
    p, q = a / a.sum(), b / b.sum()
    expected = (len(a) - 1) * (1 / a.sum() + 1 / b.sum())
    return max(0.0, float(np.sum((q - p) * np.log(q / p))) - float(expected))


def _chi_squared(a: Floats, b: Floats) -> float:
    table = np.stack([a, b])[:, (a + b) > 0]
    if table.shape[1] < 2 or (table.sum(1) == 0).any():
        return 1.0
    return float(stats.chi2_contingency(table).pvalue)
