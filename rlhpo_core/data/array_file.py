"""NPZ files: rows as NumPy arrays, with their labels."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhpo_core.errors import UserError


@dataclass(frozen=True)
class ArrayFile:
    """N rows."""

    x: NDArray[Any]
    """(N, …)."""
    y: NDArray[Any]
    """(N,)."""
    given_holdout: int
    """How many of the last rows are for testing."""


def read_arrays(path: Path) -> ArrayFile:
    """Arrays ``x`` and ``y``, or ``x_train``, ``y_train`` and, for the holdout, ``x_test``, ``y_test``.

    Raises: UserError if there are none, if they do not belong together, or if the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name.lower(): file[name] for name in file.files}
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; data.path is taken relative to the study file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    suffixes = _suffixes(arrays)
    absent = [name + suffix for suffix in suffixes for name in "xy" if name + suffix not in arrays]
    if absent:
        raise UserError(f"{path} lacks {', '.join(absent)}; it has {', '.join(arrays) or 'no arrays'}")
    for suffix in suffixes:
        x, y = arrays["x" + suffix], arrays["y" + suffix]
        if y.ndim != 1 or x.ndim < 2 or len(x) != len(y):
            raise UserError(f"{path}: x{suffix} {x.shape} and y{suffix} {y.shape} must be (rows, …) and (rows,)")
    shapes = {arrays["x" + suffix].shape[1:] for suffix in suffixes}
    if len(shapes) > 1:
        raise UserError(
            f"{path}: the rows of x_train and x_test have different shapes, {' and '.join(map(str, shapes))}"
        )
    return ArrayFile(
        x=np.concatenate([arrays["x" + suffix] for suffix in suffixes]),
        y=np.concatenate([arrays["y" + suffix] for suffix in suffixes]),
        given_holdout=len(arrays["y_test"]) if "_test" in suffixes else 0,
    )


def shape_of_rows(path: Path) -> tuple[int, ...]:
    """(N, …) of the rows of an NPZ file, all parts together, from the headers of its arrays alone.

    Empty if it has no such array, or cannot be read: ``read_arrays`` says why.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if name.lower() in ("x.npy", "x_train.npy", "x_test.npy")]
            shapes = []
            for name in names:
                with file.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shapes.append(read(member)[0])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return ()
    return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes and all(shapes) else ()


def _suffixes(names: Any) -> list[str]:
    return [""] if "x" in names else ["_train", "_test"] if "x_test" in names else ["_train"]
