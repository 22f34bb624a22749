"""Images of one size with a class each: read, checked, and known by their pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlhpo_core.data.images.sources import Pixels, open_images
from rlhpo_core.data.labelled import Labelled, Rows, draw
from rlhpo_core.data.schema import ColumnSchema, TableSchema
from rlhpo_core.data.target import read_target
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec

#: The one column that images have, in a schema and where they are served.
IMAGE = "image"
#: Images whose statistics are computed at once.
_CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class Images(Labelled):
    """Checked images."""

    pixels: Pixels
    """(N, height, width, channels): uint8, or float32 if the file holds other numbers; 1 or 3 channels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of each image."""
        height, width, channels = self.pixels.shape[1:]
        return int(height), int(width), int(channels)

    def columns(self) -> pd.DataFrame:
        """Mean and standard deviation of each image's channels, and how much neighbouring pixels differ."""
        parts = [self._statistics(start) for start in range(0, len(self), _CHUNK)]
        return pd.concat(parts, ignore_index=True)

    def identities(self, rows: Rows) -> pd.DataFrame:
        """A hash of each image's shape and pixels."""
        prefix = repr((self.shape, str(self.pixels.dtype))).encode()
        hashes = [hashlib.sha256(prefix + self.pixels[row].tobytes()).hexdigest() for row in rows]
        return pd.DataFrame({IMAGE: pd.Series(hashes, dtype=object)})

    def raw(self, rows: Rows) -> pd.DataFrame:
        """One column, ``image``, of arrays: (height, width), or with a third axis for colour."""
        grey = self.shape[2] == 1
        cells = [self.pixels[row, :, :, 0] if grey else self.pixels[row] for row in rows]
        return pd.DataFrame({IMAGE: pd.Series(cells, dtype=object)})

    def _statistics(self, start: int) -> pd.DataFrame:
        chunk = self.pixels[start : start + _CHUNK].astype(np.float32)
        names = ("grey",) if chunk.shape[-1] == 1 else ("red", "green", "blue")
        values = {f"{name} mean": chunk[..., i].mean((1, 2)) for i, name in enumerate(names)}
        values |= {f"{name} deviation": chunk[..., i].std((1, 2)) for i, name in enumerate(names)}
        values["roughness"] = _mean_step(chunk, 1) + _mean_step(chunk, 2)
        return pd.DataFrame({name: column.astype(np.float64) for name, column in values.items()})


def load_images(spec: DataSpec, seed: int, schema: TableSchema | None = None) -> Images:
    """Read and check images; with ``max_rows``, a stratified draw from them by seed: no others are decoded.

    Args:
        schema: What earlier images of the same study or model were; ``None`` to infer it from these.

    Raises: UserError, naming the file, if images cannot be read, differ in size, or are not what the schema says; if
    they are too many or too large; on wrong labels.
    """
    source = open_images(spec)
    wanted = None if schema is None else schema.columns.get(IMAGE)
    if schema is not None and wanted is None:
        raise UserError(
            f"{spec.path} breaks the schema of what was tuned on first: that was a table, and these are images"
        )
    if spec.task == "regression":
        raise UserError("data.task: images are told apart by class; regression on images is not supported")
    classes = spec.model_copy(update={"task": "classification"})
    target, given_holdout = read_target(source.labels, schema, classes), source.given_holdout
    rows = np.arange(len(target.values))
    if spec.max_rows is not None and len(rows) > spec.max_rows:
        rows = draw(target.values, target.task, spec.max_rows, given_holdout, seed)
        given_holdout = int((rows >= len(target.values) - given_holdout).sum())
    if len(rows) < 10:
        raise UserError(f"{spec.path} has {len(rows)} images; 10 are the least that can be divided in three parts")
    pixels = source.pixels(rows, None if wanted is None else wanted.shape[2])
    if wanted is not None and pixels.shape[1:] != wanted.shape:
        shapes = " and ".join(" × ".join(map(str, shape)) for shape in (pixels.shape[1:], wanted.shape))
        raise UserError(
            f"{spec.path} breaks the schema of the images that were tuned on first: height × width × channels are "
            f"{shapes}. Scale the images; if they are to be so from now on, begin anew with `rlhpo tune`"
        )
    values = target.values[rows]
    shape = tuple(int(length) for length in pixels.shape[1:])
    return Images(
        pixels=pixels,
        target=values,
        task="classification",
        classes=target.classes,
        target_name=target.name,
        given_holdout=given_holdout,
        digest=_digest(pixels, values, target.classes),
        schema=TableSchema(
            task="classification", classes=target.ever, columns={IMAGE: ColumnSchema(kind="image", shape=shape)}
        ),
        changes=target.changes,
    )


def _mean_step(chunk: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """(n,): how much neighbours along an axis differ on average; 0 where an image has no neighbours."""
    if chunk.shape[axis] == 1:
        return np.zeros(len(chunk), dtype=np.float32)
    return np.asarray(np.abs(np.diff(chunk, axis=axis)).mean((1, 2, 3)), dtype=np.float32)


def _digest(pixels: Pixels, target: NDArray[np.float64], classes: tuple[object, ...]) -> str:
    content = hashlib.sha256(repr((pixels.shape, str(pixels.dtype), classes)).encode())
    content.update(np.ascontiguousarray(pixels).data)
    content.update(target.tobytes())
    return content.hexdigest()[:32]
