"""Data from wherever it lies (a path, or an address in an object store), as one file on this machine."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rlhpo_core.errors import UserError
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.study.spec import StudySpec


@contextmanager
def at_hand(spec: StudySpec) -> Iterator[StudySpec]:
    """The study with its data on this machine: fetched, for as long as this lasts, if ``data.path`` is an address.

    Raises: UserError if there is nothing, or if the store cannot be read.
    """
    if spec.data is None or spec.data.address is None:
        yield spec
        return
    with fetched(spec.data.address) as path:
        yield with_data(spec, path)


@contextmanager
def fetched(source: str) -> Iterator[Path]:
    """What lies at a path or an address, as a file under its own name. Raises: UserError as ``fetch_table`` does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "fetched"
        yield copy.rename(Path(folder) / fetch_table(source, copy))


def with_data(spec: StudySpec, path: Path) -> StudySpec:
    """A study that has data, with the data at another path."""
    assert spec.data is not None
    return spec.model_copy(update={"data": spec.data.model_copy(update={"path": path})})


def fetch_table(source: str, table: Path) -> str:
    """Copy the table, or the images, to where the pipeline wants it. A folder of images becomes one ZIP.

    Args:
        source: A path or an address (``s3://…``).

    Returns: its file name, whose ending tells its format.

    Raises: UserError if there is none.
    """
    folder, _, name = source.rstrip("/").rpartition("/")
    if "://" in source:
        data = open_store(folder).read(name)
        if data is None:
            return _pack_store(source, table, f"{name}.zip")
        table.write_bytes(data)
        return name
    if Path(source).is_dir():
        # Folders as well: an empty one is a class without images, which has to be found out.
        found = {path.relative_to(source).as_posix(): path for path in sorted(Path(source).rglob("*"))}
        _pack({f"{name}/" if path.is_dir() else name: _reader(path) for name, path in found.items()}, table)
        return f"{Path(source).resolve().name}.zip"
    try:
        shutil.copyfile(source, table)
    except OSError as error:
        raise UserError(f"cannot read the table {source}: {error}") from error
    return Path(source).name


def _pack_store(source: str, table: Path, name: str) -> str:
    """What lies below an address, as a ZIP of that name."""
    store = open_store(source.rstrip("/"))

    def read(key: str) -> bytes:
        return store.read(key) or b""

    if not (keys := store.keys()):
        raise UserError(f"there is no table at {source}")
    _pack({key: partial(read, key) for key in keys}, table)
    return name


def _reader(path: Path) -> Callable[[], bytes]:
    return (lambda: b"") if path.is_dir() else path.read_bytes


def _pack(files: Mapping[str, Callable[[], bytes]], table: Path) -> None:
    """A ZIP, the same bytes for the same files; images are compressed already."""
    try:
        with zipfile.ZipFile(table, "w", zipfile.ZIP_STORED) as archive:
            for name, read in files.items():
                # Without a time, which would differ.
                archive.writestr(zipfile.ZipInfo(name), read())
    except OSError as error:
        raise UserError(f"cannot copy the images: {error}") from error
