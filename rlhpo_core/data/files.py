"""Table files: CSV in any of its forms, Parquet, and folders of Parquet parts, as a frame of named columns.

Of a CSV file read for the first time every value stays text, so that nothing is lost before it is known what it is: the
zeros of ``007``, the last one of version 1.10. What was recognised about a file is said in notes.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import itertools
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from rlhpo_core.data.recognition import decimal_sign
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec

#: Endings of text files, which may be compressed by gzip.
_TEXT = (".csv", ".tsv", ".txt")
SUFFIXES = (*_TEXT, ".csv.gz", ".parquet", ".npz")
#: Of spreadsheets, which hold formulas and formats besides a table.
_SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_SEPARATORS = (",", ";", "\t", "|")
#: Rows by which the separator is recognised, and bytes that are decoded at once.
_SAMPLE, _CHUNK = 50, 1 << 20
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_ENCODINGS = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "cp1252": "Windows-1252", "latin-1": "Latin-1"}


@dataclass(frozen=True)
class TableFile:
    """What a file holds, and how it was read."""

    frame: pd.DataFrame
    """Columns by distinct names, rows from 0."""
    typed: bool
    """Whether the file itself says which values are text."""
    decimal: str | None
    """The sign before decimals in its text; ``None`` if nothing tells."""
    separator: str | None = None
    encoding: str | None = None
    """Of text files."""
    notes: tuple[str, ...] = ()
    """What was recognised, for a person to read."""


@dataclass(frozen=True)
class _Form:
    """How a text file is written."""

    encoding: str
    separator: str
    skipped: int
    """Lines before the header."""


def read_file(spec: DataSpec, text: Collection[str] | None = None) -> TableFile:
    """A table's file as it is, but for NPZ.

    Args:
        spec: Its path, and what is declared about it.
        text: Columns of a text file whose values stay text, even if all are numbers; ``None`` for all.

    Raises: UserError if the file is missing, empty, damaged, or of another kind; if names or rows of it do not fit.
    """
    path = spec.path
    if not path.exists():
        raise UserError(f"there is no file {path}; data.path is taken relative to the study file")
    try:
        if path.is_dir():
            return _parquet(path, _parts(path))
        if path.suffix == ".zip":
            return _packed(path)
        if path.name.removesuffix(".gz").endswith(_TEXT):
            return _text_file(spec, text)
        if path.suffix == ".parquet":
            return _parquet(path, path)
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, csv.Error) as error:
        damaged = isinstance(error, EOFError | zlib.error | gzip.BadGzipFile)
        hint = "; it is damaged or cut off: get it anew" if damaged else ""
        raise UserError(f"cannot read {path}: {error}{hint}") from error
    hint = "; save it as CSV in the program that it comes from" if path.suffix.lower() in _SHEETS else ""
    raise UserError(f"{path}: a table is one of {', '.join(SUFFIXES)}, or a folder of Parquet files{hint}")


def holds_parts(path: Path) -> bool:
    """Whether a folder, or a ZIP of it, holds the parts of a table, and no images."""
    if path.is_dir():
        return any(path.rglob("*.parquet"))
    if path.suffix == ".zip" and path.exists() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".parquet") for name in archive.namelist())
    return False


# -- text files ------------------------------------------------------------------------------------------------------


def _text_file(spec: DataSpec, text: Collection[str] | None) -> TableFile:
    path = spec.path
    form = _form(spec)
    header = next(_records(path, form), [])
    _refuse_twins(path, [name for name in header if name])
    as_text = {name: str for name in header if text is not None and name in text}
    try:
        frame = pd.read_csv(
            path,
            low_memory=False,
            dtype=str if text is None else as_text,
            sep=form.separator,
            encoding=form.encoding,
            skiprows=form.skipped,
        )
    except pd.errors.ParserError:
        _refuse_long_rows(path, form)
        raise
    if not isinstance(frame.index, pd.RangeIndex):
        # Of rows longer than the header pandas makes the first values an index, and the others slide to the left.
        _refuse_long_rows(path, form)
    if len(frame) and frame.shape[1] > 1 and frame.iloc[:, -1].isna().any():
        _refuse_short_rows(path, form)
    notes = []
    if spec.encoding is None and form.encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"the file is read as {_ENCODINGS.get(form.encoding, form.encoding)} (data.encoding)")
    if spec.separator is None and form.separator != ",":
        notes.append(f"fields are divided by {_NAMES[form.separator]} (data.separator)")
    frame, dropped = _without_row_numbers(_named(frame, path))
    decimal = spec.decimal or ("." if form.separator == "," else decimal_sign(frame))
    if spec.decimal is None and decimal == ",":
        notes.append("numbers have decimal commas (data.decimal)")
    return TableFile(frame, False, decimal, form.separator, form.encoding, (*notes, *dropped))


def _form(spec: DataSpec) -> _Form:
    """How a text file is written, as it is declared or recognised.

    Raises: UserError if it is no text by its encoding.
    """
    encoding = spec.encoding or _encoding(spec.path)
    try:
        codecs.lookup(encoding)
        with _opened(spec.path, encoding) as file:
            first = file.readline()
    except LookupError as error:
        raise UserError(f"data.encoding: there is no encoding {encoding!r}; utf-8 and cp1252 are usual") from error
    except UnicodeError as error:
        raise UserError(f"{spec.path} is no text in {encoding} ({error}); mend data.encoding") from error
    given = first.strip().strip('"')
    if given.lower().startswith("sep=") and len(given) == 5:  # A line of Excel's.
        return _Form(encoding, spec.separator or given[4], 1)
    return _Form(encoding, spec.separator or _separator(spec.path, encoding), 0)


def _encoding(path: Path) -> str:
    """The encoding by a mark at the file's beginning, UTF-8 if it is that throughout, and else that of Windows.

    Raises: UserError if the file is empty or no text.
    """
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        start = file.read(4)
        if not start:
            raise UserError(f"{path} is empty; a table needs a header and rows")
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        utf8, windows = True, True
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            if b"\0" in chunk:
                raise UserError(f"cannot read {path} as a table: it holds bytes that are no text")
            windows = windows and not any(byte in chunk for byte in b"\x81\x8d\x8f\x90\x9d")
            try:
                utf8 = utf8 and decoder.decode(chunk) is not None
            except UnicodeDecodeError:
                utf8 = False
    if utf8:
        return "utf-8-sig" if start.startswith(codecs.BOM_UTF8) else "utf-8"
    return "cp1252" if windows else "latin-1"


def _separator(path: Path, encoding: str) -> str:
    """The sign that divides the header in most fields, among those that divide most rows likewise."""
    best, chosen = (False, 1), ","
    for separator in _SEPARATORS:
        rows = list(itertools.islice(_records(path, _Form(encoding, separator, 0)), _SAMPLE))
        fields = len(rows[0]) if rows else 0
        alike = sum(len(row) == fields for row in rows[1:]) >= len(rows[1:]) / 2
        if fields > 1 and (alike, fields) > best:
            best, chosen = (alike, fields), separator
    return chosen


@contextmanager
def _opened(path: Path, encoding: str) -> Iterator[TextIO]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding=encoding, newline="") as file:
        yield file


def _records(path: Path, form: _Form) -> Iterator[list[str]]:
    """The header and the rows, without blank lines."""
    with _opened(path, form.encoding) as file:
        for _ in range(form.skipped):
            file.readline()
        yield from (row for row in csv.reader(file, delimiter=form.separator) if row)


def _refuse_long_rows(path: Path, form: _Form) -> None:
    """Raises: UserError, with the first row that has more fields than the header."""
    rows = _records(path, form)
    names = next(rows, [])
    for number, row in enumerate(rows, start=1):
        if len(row) > len(names):
            surplus = "a delimiter at its end" if not any(row[len(names) :]) else "a value without a name"
            raise UserError(
                f"{path}: row {number} has {len(row)} fields and the header {len(names)}, so values would slide "
                f"under wrong names; it has {surplus}: {form.separator.join(row)[:100]!r}. Name each column in the "
                "header, put quotes around text with separators, or take the surplus ones out"
            )


def _refuse_short_rows(path: Path, form: _Form) -> None:
    """Raises: UserError, with the first row that has fewer fields than the header."""
    rows = _records(path, form)
    names = next(rows, [])
    for number, row in enumerate(rows, start=1):
        if len(row) < len(names):
            raise UserError(
                f"{path}: row {number} has {len(row)} fields and the header {len(names)}: "
                f"{form.separator.join(row)[:100]!r}; a separator or the end of the row is missing"
            )


# -- Parquet ---------------------------------------------------------------------------------------------------------


def _parts(path: Path) -> Path:
    """The folder. Raises: UserError if there are no Parquet files in it."""
    if not any(path.rglob("*.parquet")):
        raise UserError(f"{path} is a folder without Parquet files; a folder of a table holds its parts")
    return path


def _packed(path: Path) -> TableFile:
    """A folder of Parquet parts that travels as one ZIP."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        if not any(name.endswith(".parquet") for name in archive.namelist()):
            raise UserError(f"{path} is a ZIP without Parquet files; a table is one of {', '.join(SUFFIXES)}")
        archive.extractall(folder)
        return _parquet(path, Path(folder))


def _parquet(path: Path, place: Path) -> TableFile:
    part = next(iter(sorted(place.rglob("*.parquet")))) if place.is_dir() else place
    schema = pq.read_schema(part)
    _refuse_twins(path, schema.names)
    frame = pd.read_parquet(place)
    # Names in the paths of parts are read as dictionaries, and are plain columns.
    keys = {part.name.partition("=")[0] for part in place.rglob("*=*") if part.is_dir()} if place.is_dir() else set()
    frame = frame.astype({name: frame[name].cat.categories.dtype for name in keys if name in frame})
    frame = frame.astype(dict.fromkeys(_categorical(schema), "category"))
    if not isinstance(frame.index, pd.RangeIndex) and any(name is not None for name in frame.index.names):
        # What somebody has named is a column; other indices are numbers of rows.
        frame.index.names = [f"index_{i}" if name is None else name for i, name in enumerate(frame.index.names)]
        frame = frame.reset_index(allow_duplicates=True)
    frame, dropped = _without_row_numbers(_named(frame.reset_index(drop=True), path))
    return TableFile(frame, True, ".", notes=dropped)


def _categorical(schema: Any) -> list[str]:
    """Columns that pandas had as categories when it wrote the file; of numbers, Parquet keeps no dictionary."""
    known = schema.pandas_metadata or {}
    return [str(c["name"]) for c in known.get("columns", []) if c["pandas_type"] == "categorical" and c["name"]]


# -- names -----------------------------------------------------------------------------------------------------------


def _named(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """With text as names, as they stand in the file: a served model is asked by them.

    Raises: UserError if two are the same.
    """
    names = ["_".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]
    _refuse_twins(path, names)
    return frame.set_axis(names, axis=1)


def _refuse_twins(path: Path, names: list[str]) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        name = twins[0]
        places = " and ".join(str(i + 1) for i, other in enumerate(names) if other == name)
        raise UserError(
            f"{path} has {names.count(name)} columns called {name!r} (columns {places}); give each a name of its own"
        )


def _without_row_numbers(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Without a nameless first column that counts the rows, which pandas writes unless told not to."""
    if not frame.shape[1] or not len(frame) or frame.columns[0] not in ("Unnamed: 0", "", "__index_level_0__"):
        return frame, ()
    numbers = pd.to_numeric(frame.iloc[:, 0], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if not (np.diff(numbers) == 1).all():
        return frame, ()
    return frame.iloc[:, 1:], ("the first column, which has no name, counts the rows; it is not used",)
