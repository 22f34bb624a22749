"""Where images come from: their labels, and their pixels once it is known which are wanted."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rlhpo_core.data.array_file import read_arrays, shape_of_rows
from rlhpo_core.data.images.encoded import MOST_FILE_BYTES, MOST_PIXELS, Header, decode, look
from rlhpo_core.data.labelled import Rows
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec

Pixels = NDArray[np.uint8] | NDArray[np.float32]

#: A data set has at most so many images, and takes so many bytes once they are decoded.
MOST_IMAGES, MOST_BYTES = 2_000_000, 4 * 2**30
_SUFFIXES = (".png", ".jpg", ".jpeg")
#: Folders that divide a data set, as some are shipped, and are no classes.
_TRAINING, _TESTING = "train", "test"
#: What macOS adds to archives.
_OF_MACOS = "__MACOSX"
_NO_CLASSES = "no class folders; put the images of each class into a folder of its name"


@dataclass(frozen=True)
class Source:
    """N images that are not decoded yet."""

    labels: pd.Series
    """(N,) with the target's name."""
    given_holdout: int
    """How many of the last ones are for testing."""
    pixels: Callable[[Rows, int | None], Pixels]
    """The pixels (n, height, width, channels) of some rows, with as many channels as asked for, or as they have.

    Raises: UserError if they differ in size, or if one cannot be read.
    """


def holds_images(path: Path) -> bool:
    """Whether there are images, and no table: a folder, an archive, arrays of three or more axes, or encoded images."""
    if path.is_dir() or path.suffix == ".zip":
        return True
    if path.suffix == ".npz":
        return len(shape_of_rows(path)) > 2
    return path.suffix == ".parquet" and path.exists() and bool(_image_columns(path))


def open_images(spec: DataSpec) -> Source:
    """Find the images and their labels.

    Raises: UserError if there are none, if they are too many, or if they cannot be read.
    """
    path = spec.path
    if path.is_dir() or path.suffix == ".zip":
        return _folder(path)
    if path.suffix == ".npz":
        return _arrays(path)
    if not path.exists():
        raise UserError(f"there is neither a file nor a folder {path}; data.path is taken relative to the study file")
    if path.suffix == ".parquet":
        return _parquet(spec)
    raise UserError(f"{path}: images are a folder of class folders (or a ZIP of it), an NPZ or a Parquet file")


def decoded(names: Sequence[str], read: Callable[[int], bytes], rows: Rows, channels: int | None) -> Pixels:
    """Encoded images of one size as pixels (n, height, width, channels).

    All headers are looked at before the first image is decoded.

    Args:
        names: What an error calls each of the N images.
        read: The bytes of the one at a position.
        rows: (n,) positions.
        channels: 1 or 3; ``None``: 3 if any of them has colour.

    Raises: UserError, with the name of an image that is of another size, too large or damaged.
    """
    headers = [look(read(row), names[row]) for row in rows]
    first = headers[0]
    for row, header in zip(rows, headers, strict=True):
        if (header.height, header.width) != (first.height, first.width):
            raise UserError(
                f"the images differ in size: {names[rows[0]]} has {_size(first)} pixels, {names[row]} {_size(header)}; "
                "scale them to one size"
            )
        if channels == 1 and header.channels == 3:
            raise UserError(f"{names[row]} has colour, and the images so far were grey; save it in shades of grey")
    channels = channels or max(header.channels for header in headers)
    shape = (len(rows), first.height, first.width, channels)
    check_size(shape, 1, names[rows[0]])
    pixels = np.empty(shape, dtype=np.uint8)
    for position, row in enumerate(rows):
        pixels[position] = decode(read(row), names[row], channels)
    return pixels


def check_size(shape: Sequence[int], item: int, where: str) -> None:
    """Raises: UserError if images of this shape (n, height, width, …) take more room than they may.

    Args:
        item: Bytes of one value.
        where: What an error calls them.
    """
    total = int(np.prod([int(length) for length in shape], dtype=np.float64)) * item
    if shape[1] * shape[2] > MOST_PIXELS:
        raise UserError(f"{where}: {shape[2]} × {shape[1]} pixels; an image may have {MOST_PIXELS} in all")
    if shape[0] > MOST_IMAGES or total > MOST_BYTES:
        raise UserError(
            f"{where}: {shape[0]} images of {shape[2]} × {shape[1]} pixels take {total / 2**30:.1f} GiB; {MOST_IMAGES} "
            f"images of {MOST_BYTES / 2**30:.0f} GiB in all are the most: scale them down, or set data.max_rows"
        )


def _size(header: Header) -> str:
    return f"{header.width} × {header.height}"


# -- NPZ -------------------------------------------------------------------------------------------------------------


def _arrays(path: Path) -> Source:
    shape = shape_of_rows(path)
    if len(shape) in (3, 4):
        check_size(shape, 1, str(path))
    arrays = read_arrays(path)
    x = arrays.x if arrays.x.ndim == 4 else arrays.x[..., None]
    if arrays.x.ndim not in (3, 4) or x.shape[-1] not in (1, 3) or 0 in x.shape:
        raise UserError(
            f"{path}: images are (rows, height, width), or (rows, height, width, channels) with 1 or 3 channels, and "
            f"these are {arrays.x.shape}"
        )
    if not np.issubdtype(x.dtype, np.number) and x.dtype != np.bool_:
        raise UserError(f"{path}: images are numbers, and these are {x.dtype}")

    def pixels(rows: Rows, channels: int | None) -> Pixels:
        if channels is not None and channels != x.shape[-1]:
            raise UserError(f"{path}: images with {channels} channels are wanted, and these have {x.shape[-1]}")
        return as_pixels(x[rows], str(path))

    return Source(pd.Series(arrays.y, name="y"), arrays.given_holdout, pixels)


def as_pixels(values: NDArray[Any], where: str) -> Pixels:
    """Numbers as uint8 if all are whole and 0 to 255, else as float32.

    Raises: UserError at infinite and missing values.
    """
    if values.dtype == np.uint8:
        return values
    numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise UserError(f"{where}: images hold values that are missing or infinite; replace them")
    whole = numbers.min() >= 0 and numbers.max() <= 255 and bool((numbers == numbers.round()).all())
    return numbers.astype(np.uint8) if whole else numbers


# -- a folder of class folders, or a ZIP of it -------------------------------------------------------------------------


def _folder(path: Path) -> Source:
    members, read = _members(path)
    if not members:
        raise UserError(f"{path} is empty: it has {_NO_CLASSES}")
    above, names = _unwrapped(members)
    tops = {PurePosixPath(name).parts[0] for name in names}
    divided = tops == {_TRAINING, _TESTING}
    depth = 1 if divided else 0
    training = [name for name in names if not divided or name.startswith(f"{_TRAINING}/")]
    ordered = [*training, *(name for name in names if divided and name.startswith(f"{_TESTING}/"))]
    files = [name for name in ordered if not name.endswith("/")]
    for name in files:
        if len(PurePosixPath(name).parts) < depth + 2:
            if name.lower().endswith((".csv", ".csv.gz", ".tsv", ".txt")):
                raise UserError(
                    f"{path}/{above}{name} is no image; a folder holds images, or a table in Parquet parts. Join "
                    "tables in text to one file, and name that"
                )
            raise UserError(f"{path}/{above}{name} lies in no class folder; put the images of each class into a folder")
        if not name.lower().endswith(_SUFFIXES):
            raise UserError(f"{path}/{above}{name} is neither PNG nor JPEG; convert it, or take it out")
    filled = {PurePosixPath(name).parts[: depth + 1] for name in files}
    empty = [name for name in ordered if name.endswith("/") and len(PurePosixPath(name).parts) == depth + 1]
    for name in empty:
        if PurePosixPath(name).parts not in filled:
            raise UserError(f"{path}/{above}{name} holds no images; fill the folder or remove it")
    if not files:
        raise UserError(f"{path} has {_NO_CLASSES}")
    if len(files) > MOST_IMAGES:
        raise UserError(f"{path} holds {len(files)} images; {MOST_IMAGES} are the most")
    labels = pd.Series([PurePosixPath(name).parts[depth] for name in files], name="class", dtype=object)
    held = sum(name.startswith(f"{_TESTING}/") for name in files) if divided else 0
    titles = [f"{path}/{above}{name}" for name in files]

    def pixels(rows: Rows, channels: int | None) -> Pixels:
        return decoded(titles, lambda row: read(f"{above}{files[row]}"), rows, channels)

    return Source(labels, held, pixels)


def _unwrapped(names: Sequence[str]) -> tuple[str, list[str]]:
    """What stands before all names, with ``/``, and the names without it.

    An archive often holds the folder itself, and not only what is in it. So a single folder at the top is no class if
    all images lie at least one folder deeper.
    """
    above, below = "", list(names)
    while True:
        tops = {PurePosixPath(name).parts[0] for name in below}
        depths = [len(PurePosixPath(name).parts) for name in below if not name.endswith("/")]
        if len(tops) != 1 or min(depths, default=0) < 3:
            return above, below
        top = f"{tops.pop()}/"
        above, below = f"{above}{top}", [name.removeprefix(top) for name in below if name != top]


def _members(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """Names of files and, with ``/`` at their ends, of folders, sorted, but for hidden ones; and how to read a file."""
    if path.is_dir():
        found = (_name(entry.relative_to(path).as_posix(), entry.is_dir()) for entry in path.rglob("*"))
        return _visible(found), lambda name: _read_file(path / name)
    try:
        archive = zipfile.ZipFile(path)
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; data.path is taken relative to the study file") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {error}") from error

    def read(name: str) -> bytes:
        if sizes[name] > MOST_FILE_BYTES:
            raise UserError(f"{path}/{name} has {sizes[name]} bytes; an image may have {MOST_FILE_BYTES}")
        try:
            return archive.read(name)
        except (OSError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
            raise UserError(f"cannot read {path}/{name}: {error}") from error

    return _visible(sizes), read


def _name(name: str, folder: bool) -> str:
    return f"{name}/" if folder else name


def _visible(names: Iterable[str]) -> list[str]:
    def shown(part: str) -> bool:
        return not part.startswith(".") and part != _OF_MACOS

    return sorted(name for name in names if all(map(shown, PurePosixPath(name).parts)))


def _read_file(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MOST_FILE_BYTES:
            raise UserError(f"{path} has {size} bytes; an image may have {MOST_FILE_BYTES}: make it smaller")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error


# -- Parquet ---------------------------------------------------------------------------------------------------------


def _image_columns(path: Path) -> list[str]:
    """Columns of bytes, or of records with ``bytes`` among their fields. Raises: UserError if the file is damaged."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return [field.name for field in schema if _is_binary(field.type)]


def _is_binary(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _parquet(spec: DataSpec) -> Source:
    path, columns = spec.path, _image_columns(spec.path)
    known = list(pq.read_schema(path).names)
    if spec.target is None or spec.target not in known:
        asked = "which column of" if spec.target is None else f"no column is called {spec.target!r} in"
        raise UserError(f"data.target: {asked} {path} is to be predicted? It has {', '.join(known)}")
    if spec.image is not None and spec.image not in columns:
        raise UserError(
            f"data.image: {spec.image!r} is no column of encoded images; there are {', '.join(columns) or 'none'}"
        )
    if spec.image is None and len(columns) != 1:
        raise UserError(
            f"data.image: which column of {path} has the images? Bytes are in {', '.join(columns) or 'none'}"
        )
    name = spec.image or columns[0]
    if pq.read_metadata(path).num_rows > MOST_IMAGES:
        raise UserError(f"{path} holds more than {MOST_IMAGES} images")
    try:
        frame = pd.read_parquet(path, columns=[name, spec.target])
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if frame.empty:
        raise UserError(f"{path} has no rows")
    cells: list[Any] = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in frame[name]]
    if missing := [row for row, cell in enumerate(cells) if not cell]:
        raise UserError(
            f"{path}: the image is missing in {len(missing)} of {len(cells)} rows (first in row {missing[0] + 1}); "
            "fill them in or take these rows out"
        )
    titles = [f"{path}, row {row + 1}" for row in range(len(cells))]

    def pixels(rows: Rows, channels: int | None) -> Pixels:
        return decoded(titles, lambda row: cells[row], rows, channels)

    return Source(frame[spec.target], 0, pixels)
