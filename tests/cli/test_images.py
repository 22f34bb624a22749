"""Images on the command line: what cannot be used ends with its name and code 1, and nothing was begun."""

from __future__ import annotations

import functools
import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image, ImageFile

from rlhpo_core.cli import main as cli
from rlhpo_core.data.images.encoded import png
from rlhpo_core.trial import TrialStatus
from tests.helpers.command_line import trials
from tests.helpers.mlflow_store import new_store
from tests.helpers.pictures import SMALL, as_folder, as_npz, pictures

pytestmark = pytest.mark.usefixtures("only_these_settings")


@pytest.fixture
def rlhpo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The command in this process; returns its exit code, and what it has printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["rlhpo", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, " ".join((printed.out + printed.err).split())

    return run


def write_study(path: str, **fields: Any) -> str:
    study = {
        "name": "pictures",
        "data": {"path": path, **fields.pop("data", {})},
        "evaluator": {"kind": "cnn", "epochs": 2, "params": SMALL, **fields.pop("evaluator", {})},
        "objective": "accuracy",
        "space": {"pool1_type": {"type": "categorical", "choices": ["max", "average"]}},
        "budget": {"trials": 2},
        "execution": {"workers": 1, "threads": 1, **fields.pop("execution", {})},
        **fields,
    }
    Path("study.yaml").write_text(yaml.safe_dump(study))
    return "study.yaml"


@functools.cache
def wide(side: int) -> bytes:
    """A whole PNG of one colour, with one bit a pixel: a small file, which would be large once it is decoded."""
    packer, row = zlib.compressobj(), b"\0" * (1 + -(-side // 8))
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _large(wrong: Path) -> None:
    wrong.write_bytes(wide(30_000))
    assert wrong.stat().st_size < 2**20


def _truncated(wrong: Path) -> None:
    data = png(np.random.default_rng(0).integers(0, 256, (10, 10, 1)).astype(np.uint8))
    # The header is whole, and so is the size that it names.
    wrong.write_bytes(data[:-40])


def _truncated_jpeg(wrong: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pictures(1)[0][0][..., 0]).save(buffer, "JPEG")
    wrong.with_suffix(".jpg").write_bytes(buffer.getvalue()[:-60])


#: What is done to a folder of class folders, or to an image in it, and what is said of it.
FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another size": (
        lambda wrong: wrong.write_bytes(png(pictures(1, size=12)[0][0])),
        "the images differ in size: corners/below/002.png has 10 × 10 pixels, corners/right/wrong.png 12 × 12",
    ),
    "truncated": (_truncated, "corners/right/wrong.png cannot be read as PNG or JPEG; mend it or take it out"),
    "truncated JPEG": (_truncated_jpeg, "corners/right/wrong.jpg cannot be read as PNG or JPEG; mend it"),
    "no image": (lambda wrong: wrong.write_bytes(b"GIF89a"), "corners/right/wrong.png cannot be read as PNG or JPEG"),
    "empty file": (lambda wrong: wrong.write_bytes(b""), "corners/right/wrong.png cannot be read as PNG or JPEG"),
    "far too large": (_large, "corners/right/wrong.png has far too many pixels; an image may have 1048576 in all"),
    "no image in a class": (lambda wrong: (wrong.parent.parent / "above").mkdir(), "corners/above/ holds no images"),
    "in no class": (
        lambda wrong: (wrong.parent.parent / "stray.png").write_bytes(png(pictures(1)[0][0])),
        "corners/stray.png lies in no class folder",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
@pytest.mark.parametrize("command", ["tune", "init"])
def test_a_file_that_cannot_be_used_is_named(
    case: str, command: str, rlhpo: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything has begun; what is too large, or not like the others, is not decoded either."""
    spoil, message = FOLDERS[case]
    folder = as_folder(Path("corners"), count=30)
    spoil(folder / "right" / "wrong.png")
    if case in ("another size", "far too large"):
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("an image was decoded"))
    before = sorted(path.name for path in Path().iterdir())
    if command == "tune":
        write_study("corners")
        before = sorted([*before, "study.yaml"])
        code, printed = rlhpo("tune", "study.yaml")
    else:
        code, printed = rlhpo("init", "--data", "corners")
    assert code == 1
    assert "error: " in printed
    # Of a study the path is whole, of an option as it was given.
    assert message in printed.replace(f"{Path.cwd()}/", "")
    assert sorted(path.name for path in Path().iterdir()) == before


def npz(**arrays: Any) -> str:
    np.savez("a.npz", **arrays)
    return "a.npz"


def parquet(cells: list[bytes | None]) -> str:
    pd.DataFrame({"image": cells, "corner": pictures(len(cells))[1]}).to_parquet("a.parquet")
    return "a.parquet"


CELLS: list[bytes | None] = [png(picture) for picture in pictures(30)[0]]
#: Data that cannot be used, and what is said of it.
DATA: dict[str, tuple[Callable[[], str], str]] = {
    "nothing there": (lambda: "none", "none; data.path is taken relative to the study file"),
    "an empty folder": (lambda: Path("none").mkdir() or "none", "none is empty: it has no class folders"),
    "one class": (lambda: str(as_folder(Path("one"), classes=["left"])), "one: the target 'class' has one class only"),
    "labels without images": (lambda: npz(y=np.arange(30) % 2), "a.npz lacks x"),
    "fewer images than labels": (
        lambda: npz(x=np.zeros((29, 8, 8)), y=np.arange(30) % 2),
        "a.npz: x (29, 8, 8) and y (30,) must be (rows, …) and (rows,)",
    ),
    "missing values": (
        lambda: npz(x=np.full((30, 8, 8), np.nan), y=np.arange(30) % 2), "a.npz: images hold values that are missing"
    ),
    "a missing image": (lambda: parquet([*CELLS[:7], None, *CELLS[8:]]), "a.parquet: the image is missing in 1 of 30"),
    "a truncated image": (
        lambda: parquet([*CELLS[:7], (CELLS[7] or b"")[:-30], *CELLS[8:]]), "a.parquet, row 8 cannot be read as PNG"
    ),
    "another size": (
        lambda: parquet([*CELLS[:7], png(pictures(1, size=12)[0][0]), *CELLS[8:]]), "a.parquet, row 8 12 × 12; scale"
    ),
    "far too large": (
        lambda: parquet([*CELLS[:7], wide(30_000), *CELLS[8:]]), "a.parquet, row 8 has far too many pixels"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA)
def test_data_that_cannot_be_used_is_named(case: str, rlhpo: Callable[..., tuple[int, str]]) -> None:
    make, message = DATA[case]
    path = make()
    write_study(path, data={"target": "corner"} if path.endswith(".parquet") else {})
    code, printed = rlhpo("tune", "study.yaml")
    assert code == 1
    assert "error: " in printed
    assert message in printed
    assert not Path("runs").exists()


def test_a_loss_that_is_no_number_fails_its_trial_and_not_the_study(rlhpo: Callable[..., tuple[int, str]]) -> None:
    new_store(Path("runs"))
    write_study(
        str(as_npz(Path("corners.npz"))),
        space={"learning_rate": {"type": "categorical", "choices": [0.05, 10.0]}},
        evaluator={"params": {k: v for k, v in SMALL.items() if k != "learning_rate"} | {"weight_decay": 1.0}},
        budget={"trials": 4},
    )
    code, printed = rlhpo("tune", "study.yaml")
    assert code == 0, printed
    assert "all 4 trials done" in printed
    ended = {trial.config["learning_rate"]: trial for trial in trials(Path("runs/pictures"))}
    assert ended[0.05].status is TrialStatus.COMPLETE
    assert ended[10.0].status is TrialStatus.FAILED
    assert "no number" in str(ended[10.0].cause) or "smaller learning_rate" in str(ended[10.0].cause)


def test_a_network_that_memory_does_not_hold_fails_its_trial_and_not_the_study(
    rlhpo: Callable[..., tuple[int, str]],
) -> None:
    """17 GB of weights: the allocator refuses them, or the trial's limit ends it."""
    new_store(Path("runs"))
    write_study(
        str(as_npz(Path("corners.npz"))),
        space={"fc2_nodes": {"type": "categorical", "choices": [16, 65_536]}},
        evaluator={"params": {k: v for k, v in SMALL.items() if k != "fc2_nodes"} | {"fc1_nodes": 65_536}},
        budget={"trials": 4},
        execution={"trial_memory_mb": 2000},
    )
    code, printed = rlhpo("tune", "study.yaml")
    assert code == 0, printed
    ended = {trial.config["fc2_nodes"]: trial for trial in trials(Path("runs/pictures"))}
    assert ended[16].status is TrialStatus.COMPLETE
    assert ended[65_536].status is TrialStatus.FAILED
    assert "no room for a network of 4," in str(ended[65_536].cause) or "MB of memory" in str(ended[65_536].cause)
