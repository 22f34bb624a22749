"""Tables: read, check, and encode for gradient boosting.

Numbers stay numbers, text becomes categories, what is missing stays missing (NaN): XGBoost handles all three itself.
Data that would be misread in silence, such as text in a column of numbers, is refused with its column and row.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from rlhpo_core.arrays import Floats
from rlhpo_core.data import columns, profile
from rlhpo_core.data.array_file import read_arrays
from rlhpo_core.data.files import TableFile, read_file
from rlhpo_core.data.labelled import Labelled, Rows, draw
from rlhpo_core.data.recognition import ColumnError
from rlhpo_core.data.schema import ColumnSchema, SchemaChange, TableSchema
from rlhpo_core.data.splits import Dividing
from rlhpo_core.data.target import Target, read_target
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec


@dataclass(frozen=True, kw_only=True)
class Table(Labelled):
    """A checked table."""

    features: pd.DataFrame
    """Numeric columns and columns of dtype ``category`` (of strings); NaN where missing."""
    originals: pd.DataFrame = field(default_factory=pd.DataFrame)
    """(N, …): the columns that were converted from text or times to numbers, as the file has them."""
    notes: tuple[str, ...] = ()
    """What was recognised and converted, for a person to read."""

    @property
    def categories(self) -> dict[str, list[str]]:
        """The values of each categorical column."""
        return {
            str(name): list(column.cat.categories)
            for name, column in self.features.items()
            if isinstance(column.dtype, pd.CategoricalDtype)
        }

    def columns(self) -> pd.DataFrame:
        """All features."""
        return self.features

    def identities(self, rows: Rows) -> pd.DataFrame:
        """The features, whatever their order, and whatever a reader made of numbers."""
        return pd.DataFrame(
            {
                str(name): column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("float64")
                for name, column in self.features.iloc[rows].items()
            }
        ).sort_index(axis=1)

    def raw(self, rows: Rows) -> pd.DataFrame:
        """Text instead of categories, numbers that may be missing, and what is converted as the file has it."""
        features = self.features.iloc[rows]

        def raw(name: str, column: pd.Series) -> pd.Series:
            if name in self.originals:
                original = self.originals[name].iloc[rows]
                if pd.api.types.is_datetime64_any_dtype(original.dtype):
                    original = original.map(pd.Timestamp.isoformat, na_action="ignore")
                return original.astype(object).where(original.notna(), None)
            return column.astype(object if isinstance(column.dtype, pd.CategoricalDtype) else "float64")

        return pd.DataFrame({str(name): raw(str(name), column) for name, column in features.items()}).reset_index(
            drop=True
        )


def load_table(spec: DataSpec, seed: int, schema: TableSchema | None = None) -> Table:
    """Read and check a table; with ``max_rows``, a stratified draw from it by seed.

    Args:
        schema: What an earlier table of the same study or model held; ``None`` to infer it from this one.

    Raises: UserError on a file that cannot be read, a wrong target, a column that cannot be used, or one that is not
    there or does not hold what the schema says.
    """
    file, target_name, given_holdout = _read(spec, schema)
    frame = file.frame
    if frame.empty:
        raise UserError(f"{spec.path} has no rows")
    labels = frame[target_name]
    dividing, weights = _dividing(file, spec), _weights(file, spec)
    _known(spec.columns, frame, spec)
    frame = frame.drop(columns=[target_name, *_known(spec.dropped, frame, spec)])
    if frame.shape[1] == 0:
        raise UserError(f"{spec.path} has no column to predict {target_name!r} from")
    known = None if schema is None else schema.without([target_name, *spec.dropped])
    features, described, changes = _features(file, frame, known, spec)
    target = read_target(labels, known, spec, file.decimal)
    values = target.values
    converted = [name for name, column in described.items() if column.number is not None or column.kind == "time"]
    originals = frame[converted]
    if spec.max_rows is not None and len(values) > spec.max_rows:
        rows = draw(values, target.task, spec.max_rows, given_holdout, seed)
        given_holdout = int((rows >= len(values) - given_holdout).sum())
        features, values = features.iloc[rows].reset_index(drop=True), values[rows]
        originals = originals.iloc[rows].reset_index(drop=True)
        dividing = None if dividing is None else dividing.of(rows)
        weights = None if weights is None else weights[rows]
    if len(values) < 10:
        raise UserError(f"{spec.path} has {len(values)} rows; 10 are the least that can be divided in three parts")
    notes = () if schema is not None else _given_away(features, values, target, target_name, spec)
    described_all = TableSchema(task=target.task, classes=target.ever, columns=described, label=target.label)
    return Table(
        features=features,
        originals=originals,
        notes=(*file.notes, *described_all.notes(target_name), *notes),
        target=values,
        task=target.task,
        classes=target.classes,
        target_name=target_name,
        given_holdout=given_holdout,
        dividing=dividing,
        weights=weights,
        digest=_digest(features, values, dividing, weights),
        schema=described_all,
        changes=(*changes, *target.changes),
    )


def _read(spec: DataSpec, schema: TableSchema | None) -> tuple[TableFile, str, int]:
    """The table, the name of its target and the number of rows at its end that are for testing."""
    if spec.path.suffix == ".npz":
        frame, target, given_holdout = _read_npz(spec.path)
        return TableFile(frame, True, "."), target, given_holdout
    text = None
    if schema is not None:
        text = set(schema.as_text)
        if spec.split is not None and spec.split.column not in schema.columns:
            text.add(spec.split.column)
        if schema.label_is_text and spec.target is not None:
            text.add(spec.target)
    file = read_file(spec, text)
    if spec.target is None:
        raise UserError(f"data.target: which column of {spec.path} is to be predicted? It has {_list(file.frame)}")
    _known([spec.target], file.frame, spec)
    return file, spec.target, 0


def _read_npz(path: Path) -> tuple[pd.DataFrame, str, int]:
    """Arrays with any number of axes: all values of a row are its columns."""
    arrays = read_arrays(path)
    x = arrays.x.reshape(len(arrays.x), -1)
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    frame["y"] = arrays.y
    return frame, "y", arrays.given_holdout


def _known(names: Iterable[str], frame: pd.DataFrame, spec: DataSpec) -> list[str]:
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


def _features(
    file: TableFile, frame: pd.DataFrame, schema: TableSchema | None, spec: DataSpec
) -> tuple[pd.DataFrame, dict[str, ColumnSchema], list[SchemaChange]]:
    """The columns as numbers and categories, what they hold, and what is new about them.

    Raises: UserError, naming all columns that cannot be used, or that break the schema.
    """
    encoded: dict[str, pd.Series] = {}
    described: dict[str, ColumnSchema] = {}
    changes: list[SchemaChange] = []
    known = {} if schema is None else schema.columns
    names = [str(name) for name in frame.columns]
    new = [name for name in names if name not in known]
    problems = [_gone(name, new) for name in known if name not in names]
    for name, column in ((str(name), column) for name, column in frame.items()):
        declared = spec.columns.get(name)
        try:
            if name in known:
                if declared is not None and declared.kind != known[name].kind:
                    raise ColumnError(f"column {name!r} is declared {declared.kind} now and was {known[name].kind}")
                encoded[name], described[name], change = columns.read(name, column, known[name])
                changes += [] if change is None else [change]
            else:
                encoded[name], described[name] = columns.infer(name, column, declared, file.decimal, file.typed)
        except ColumnError as error:
            problems.append(str(error))
    if problems and schema is None:
        raise UserError("\n".join(problems) if len(problems) < 2 else "\n- ".join([f"{spec.path}:", *problems]))
    if problems:
        raise UserError(
            f"{spec.path} breaks the schema of the table that was tuned on first: {'. '.join(problems)}. Correct the "
            "table; if it is to be so from now on, begin anew with `rlhpo tune`"
        )
    if schema is not None:
        changes += [SchemaChange(column=name, change="is new") for name in new]
    return pd.DataFrame(encoded), described, changes


def _given_away(
    features: pd.DataFrame, values: Floats, target: Target, target_name: str, spec: DataSpec
) -> tuple[str, ...]:
    """What a person has to know of columns that tell too much, or nothing, at the first reading.

    Raises: UserError if a column is the target over again.
    """
    undeclared = features[[name for name in features if str(name) not in spec.columns]]
    if copied := profile.copies(undeclared, values, len(target.classes)):
        listed = "; ".join(f"column {name!r}: {why}" for name, why in copied.items())
        raise UserError(
            f"{spec.path} gives the target {target_name!r} away: {listed}. A model would learn nothing else; list it "
            "in data.drop, or, if it is known before the target, declare its kind in data.columns"
        )
    told = profile.telling(undeclared, values, len(target.classes))
    counting = [str(name) for name, column in undeclared.items() if columns.identifying(column)]
    return (
        *(f"column {name!r}: {why}; is it known before the target? If not: data.drop" for name, why in told.items()),
        *(f"column {name!r}: it counts the rows; is it an identifier? If so: data.drop" for name in counting),
    )


def _gone(name: str, new: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, new, n=1)
    hint = f" (is {close[0]!r} another name for it?)" if close else ""
    return f"column {name!r} is gone{hint}; bring it back, with blanks where there is no value"


def _dividing(file: TableFile, spec: DataSpec) -> Dividing | None:
    """By what the rows are divided, as the study says.

    Raises: UserError if a value of that column is missing, or is no time.
    """
    if spec.split is None:
        return None
    name, by = spec.split.column, spec.split.by
    _known([name], file.frame, spec)
    _not_the_target("data.split", name, spec)
    column = file.frame[name]
    if column.isna().any():
        row = int(np.flatnonzero(column.isna())[0]) + 1
        raise UserError(f"data.split: column {name!r} is blank in row {row}; fill it in, or take these rows out")
    if by == "group":
        return Dividing("group", name, pd.factorize(column.astype(str))[0].astype(np.float64))
    declared = spec.columns.get(name)
    used = declared if declared is not None and declared.kind in ("time", "number") else None
    encoded, schema = columns.infer(name, column, used, file.decimal, file.typed)
    if schema.kind not in ("time", "number"):
        raise UserError(
            f"data.split: column {name!r} holds no times, but {column.iloc[0]!r}; name another one, or declare "
            f"`data.columns: {{{name}: {{kind: time, format: …}}}}`"
        )
    return Dividing("time", name, encoded.to_numpy(dtype=np.float64))


def _weights(file: TableFile, spec: DataSpec) -> Floats | None:
    """(N,): how much each row counts, as the study says.

    Raises: UserError at what is no positive number.
    """
    if spec.weight is None:
        return None
    _known([spec.weight], file.frame, spec)
    _not_the_target("data.weight", spec.weight, spec)
    try:
        values = columns.numbers(spec.weight, file.frame[spec.weight]).to_numpy(dtype=np.float64)
    except UserError as error:
        raise UserError(f"data.weight: {error}") from error
    wrong = np.flatnonzero(~(values > 0))
    if len(wrong):
        first = values[wrong[0]]
        found = "blank" if np.isnan(first) else f"{first:g}"
        raise UserError(
            f"data.weight: column {spec.weight!r} is {found} in row {wrong[0] + 1}; weights are above 0, so take rows "
            "out that are not to count"
        )
    return values


def _not_the_target(field: str, name: str, spec: DataSpec) -> None:
    """Raises: UserError if a column that says something of the rows is what is to be predicted of them."""
    if name == spec.target:
        raise UserError(f"{field}: {name!r} is the target, which is not known of new rows; name another column")


def _digest(features: pd.DataFrame, target: Floats, dividing: Dividing | None, weights: Floats | None) -> str:
    """Of all that scores follow from: features, target, and what is no feature and yet counts."""
    rows = pd.util.hash_pandas_object(features, index=False).to_numpy()
    names = "\n".join(map(str, features.columns)).encode()
    more = b"" if weights is None else weights.tobytes()
    if dividing is not None and dividing.column not in features:
        more += dividing.values.tobytes()
    return hashlib.sha256(names + rows.tobytes() + target.tobytes() + more).hexdigest()[:32]
