"""Small pictures that a network learns in an epoch or two, in all the forms in which they may come, and evaluators."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlhpo_core.data.images.encoded import png
from rlhpo_core.evaluators.cnn.evaluator import CNNEvaluator
from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.study.spec import StudySpec

#: Where the bright quarter of a picture is.
CORNERS = ("left", "right", "below")
#: A network of a few hundred weights.
SMALL = {
    "batch_size": 16, "learning_rate": 0.05, "conv1_channels": 6, "conv2_channels": 8, "fc1_nodes": 16, "fc2_nodes": 16
}  # fmt: skip

Pictures = NDArray[np.uint8]


def pictures(
    count: int = 90, size: int = 10, channels: int = 1, seed: int = 0, classes: Sequence[str] = CORNERS
) -> tuple[Pictures, list[str]]:
    """Noise (count, size, size, channels) with a bright quarter, and where that is."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 120, (count, size, size, channels)).astype(np.uint8)
    y = [classes[i % len(classes)] for i in range(count)]
    half = size // 2
    places = {"left": np.s_[:half, :half], "right": np.s_[:half, half:], "below": np.s_[half:, half:]}
    for picture, name in zip(x, y, strict=True):
        picture[places[name]] += 130
    return x, y


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header says that it is large, and which has no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def as_npz(path: Path, **given: Any) -> Path:
    x, y = pictures(**given)
    np.savez(path, x=x[..., 0] if x.shape[-1] == 1 else x, y=np.array(y))
    return path


def as_folder(path: Path, **given: Any) -> Path:
    """A folder of class folders."""
    for i, (picture, name) in enumerate(zip(*pictures(**given), strict=True)):
        (path / name).mkdir(parents=True, exist_ok=True)
        (path / name / f"{i:03d}.png").write_bytes(png(picture))
    return path


def as_parquet(path: Path, **given: Any) -> Path:
    """Records with bytes among their fields, as collections of data sets have them."""
    x, y = pictures(**given)
    cells = [{"bytes": png(picture), "path": f"{i}.png"} for i, picture in enumerate(x)]
    pd.DataFrame({"image": cells, "corner": y, "id": range(len(y))}).to_parquet(path)
    return path


def study(path: Path, metric: str = "accuracy", epochs: int = 2, **fields: Any) -> StudySpec:
    """A study of a network on pictures; ``fields`` are the study's."""
    return StudySpec.model_validate(
        {
            "name": "pictures",
            "data": {"path": path, **fields.pop("data", {})},
            "evaluator": {"kind": "cnn", "epochs": epochs, **fields.pop("evaluator", {})},
            "objective": metric,
            "space": "cnn",
            **fields,
        }
    )


def build(path: Path, metric: str = "accuracy", epochs: int = 2, **fields: Any) -> CNNEvaluator:
    built = build_evaluator(study(path, metric, epochs, **fields), threads=1)
    assert isinstance(built, CNNEvaluator)
    return built
