"""What folders, archives, NPZ and Parquet files may hold, and what is said of those that cannot be used."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data.images.dataset import load_images
from rlhpo_core.data.images.encoded import png
from rlhpo_core.data.images.sources import as_pixels, check_size, holds_images
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec
from tests.helpers.pictures import as_folder, as_npz, as_parquet, bomb, pictures


def refused(path: Path, match: str, **fields: object) -> None:
    with pytest.raises(UserError, match=match):
        load_images(DataSpec.model_validate({"path": path, **fields}), seed=0)


def test_a_table_is_told_from_images(tmp_path: Path) -> None:
    assert holds_images(as_npz(tmp_path / "a.npz"))
    assert holds_images(as_folder(tmp_path / "folder"))
    assert holds_images(as_parquet(tmp_path / "a.parquet"))
    np.savez(tmp_path / "table.npz", x_train=np.zeros((20, 3)), y_train=np.arange(20) % 2)
    pd.DataFrame({"text": ["a"], "number": [1]}).to_parquet(tmp_path / "table.parquet")
    assert not any(holds_images(tmp_path / name) for name in ("table.npz", "table.parquet", "none.npz", "a.csv"))


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_zip_holds_what_its_folder_holds(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "corners")
    (folder / ".DS_Store").write_bytes(b"hidden")
    packed = Path(shutil.make_archive(str(tmp_path / "corners"), "zip", folder))
    one, other = (load_images(DataSpec(path=path), seed=0) for path in (folder, packed))
    assert one.digest == other.digest
    assert one.classes == ("below", "left", "right")


@pytest.mark.parametrize("parts", ["", "train"])
def test_an_archive_may_hold_the_folder_itself(parts: str, tmp_path: Path) -> None:
    """As it does if it was packed by `zip -r`, or on macOS."""
    as_folder(tmp_path / "corners" / parts, count=30)
    if parts:
        as_folder(tmp_path / "corners" / "test", count=30, seed=1)
    (tmp_path / "__MACOSX" / "corners").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "corners" / "._left").write_bytes(b"")
    (tmp_path / "data").mkdir()
    packed = tmp_path / "data" / "corners.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for top in ("corners", "__MACOSX"):
            for path in sorted((tmp_path / top).rglob("*")):
                archive.write(path, path.relative_to(tmp_path))
    expected = load_images(DataSpec(path=tmp_path / "corners"), seed=0)
    found = load_images(DataSpec(path=packed), seed=0)
    assert (found.digest, found.given_holdout) == (expected.digest, 30 if parts else 0)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(f"corners/{parts or 'left'}/left/wrong.png", b"no image")
    refused(packed, r"corners\.zip/corners/(train/)?left/.*wrong\.png cannot be read")


def test_one_folder_that_holds_images_is_one_class(tmp_path: Path) -> None:
    as_folder(tmp_path / "corners", classes=["left"])
    refused(tmp_path / "corners", "one class only")
    refused(tmp_path / "corners" / "left", "lies in no class folder")


def test_train_and_test_are_parts_and_no_classes(tmp_path: Path) -> None:
    as_folder(tmp_path / "digits" / "train", count=60)
    as_folder(tmp_path / "digits" / "test", count=30, seed=1)
    images = load_images(DataSpec(path=tmp_path / "digits"), seed=0)
    assert (len(images), images.given_holdout, len(images.classes)) == (90, 30, 3)
    held = load_images(DataSpec(path=tmp_path / "digits" / "test"), seed=0)
    np.testing.assert_array_equal(images.pixels[60:], held.pixels)


def test_folders_that_hold_no_classes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is empty: it has no class folders")
    refused(tmp_path / "none", "there is neither a file nor a folder")
    folder = as_folder(tmp_path / "corners")
    (folder / "above").mkdir()
    refused(folder, "corners/above/ holds no images")
    shutil.rmtree(folder / "above")
    (folder / "stray.png").write_bytes(png(pictures(1)[0][0]))
    refused(folder, r"corners/stray\.png lies in no class folder")
    (folder / "stray.png").rename(folder / "left" / "notes.txt")
    refused(folder, r"corners/left/notes\.txt is neither PNG nor JPEG")


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    refused(as_folder(tmp_path / "corners", classes=["left"]), "one class only")


def test_an_image_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "corners")
    wrong = folder / "right" / "wrong.png"
    whole = png(np.random.default_rng(0).integers(0, 256, (10, 10, 1)).astype(np.uint8))
    wrong.write_bytes(whole[:-40])
    refused(folder, r"right/wrong\.png cannot be read as PNG or JPEG")
    wrong.write_bytes(b"")
    refused(folder, r"right/wrong\.png cannot be read as PNG or JPEG")
    wrong.write_bytes(bomb(30_000, 30_000))
    refused(folder, r"right/wrong\.png has far too many pixels")
    wrong.write_bytes(png(pictures(1, size=12)[0][0]))
    refused(folder, r"the images differ in size: .*below/\d+\.png has 10 × 10 pixels, .*right/wrong\.png 12 × 12")


def test_one_coloured_image_makes_all_coloured(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "corners", count=30)
    (folder / "left" / "red.png").write_bytes(png(pictures(1, channels=3)[0][0]))
    assert load_images(DataSpec(path=folder), seed=0).shape == (10, 10, 3)


# -- NPZ ---------------------------------------------------------------------------------------------------------------


def test_parts_of_arrays_that_are_set_apart(tmp_path: Path) -> None:
    x, y = pictures(30, channels=3)
    np.savez(tmp_path / "a.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    images = load_images(DataSpec(path=tmp_path / "a.npz"), seed=0)
    assert (images.shape, images.given_holdout) == ((10, 10, 3), 10)


def test_arrays_that_are_no_images(tmp_path: Path) -> None:
    path, labels = tmp_path / "a.npz", np.arange(20) % 2
    np.savez(path, x=np.zeros((20, 8, 8, 2)), y=labels)
    refused(path, r"with 1 or 3 channels, and these are \(20, 8, 8, 2\)")
    np.savez(path, x=np.zeros((20, 8)), y=labels)
    refused(path, r"images are \(rows, height, width\)")
    np.savez(path, y=labels)
    refused(path, r"a\.npz lacks x")
    np.savez(path, x=np.zeros((19, 8, 8)), y=labels)
    refused(path, r"must be \(rows, …\) and \(rows,\)")
    np.savez(path, x=np.full((20, 8, 8), np.nan), y=labels)
    refused(path, "missing or infinite")
    np.savez(path, x=np.full((20, 8, 8), "a"), y=labels)
    refused(path, "images are numbers")
    np.savez(path, x_train=np.zeros((20, 8, 8)), y_train=labels, x_test=np.zeros((20, 9, 9)), y_test=labels)
    refused(path, "different shapes")
    path.write_bytes(path.read_bytes()[:-60])
    refused(path, "cannot read")


def test_numbers_stay_bytes_where_they_can() -> None:
    whole, fraction = as_pixels(np.full((2, 2, 2, 1), 16.0), "a"), as_pixels(np.full((2, 2, 2, 1), 0.5), "a")
    assert (whole.dtype, fraction.dtype) == (np.uint8, np.float32)
    assert as_pixels(np.full((2, 2, 2, 1), -1), "a").dtype == np.float32


def test_too_much_is_refused_by_shape_alone() -> None:
    with pytest.raises(UserError, match="30000 × 30000 pixels"):
        check_size((1, 30_000, 30_000, 1), 1, "a.npz")
    with pytest.raises(UserError, match=r"a\.npz: 6000 images of 1000 × 1000 pixels take 5\.6 GiB.*data\.max_rows"):
        check_size((6000, 1000, 1000, 1), 1, "a.npz")


# -- Parquet -----------------------------------------------------------------------------------------------------------


def test_encoded_images_in_a_column(tmp_path: Path) -> None:
    images = load_images(DataSpec(path=as_parquet(tmp_path / "a.parquet"), target="corner"), seed=0)
    np.testing.assert_array_equal(images.pixels, pictures()[0])
    assert images.target_name == "corner"


def test_columns_that_have_to_be_named(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "a.parquet")
    refused(path, "data.target: which column of .* It has image, corner, id")
    refused(path, "data.target: no column is called 'side'", target="side")
    refused(path, "data.image: 'id' is no column of encoded images; there are image", target="corner", image="id")
    frame = pd.read_parquet(path)
    frame.assign(thumbnail=frame["image"]).to_parquet(path)
    refused(path, "data.image: which column .* Bytes are in image, thumbnail", target="corner")
    assert len(load_images(DataSpec(path=path, target="corner", image="thumbnail"), seed=0)) == 90
    frame.drop(columns="image").to_parquet(path)
    refused(path, "Bytes are in none", target="corner")


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    x, y = pictures(30)
    cells: list[bytes | None] = [png(picture) for picture in x]
    for wrong, match in ((None, r"missing in 1 of 30 rows \(first in row 8\)"), (b"no image", "row 8 cannot be read")):
        pd.DataFrame({"image": [*cells[:7], wrong, *cells[8:]], "corner": y}).to_parquet(path)
        refused(path, match, target="corner")
    pd.DataFrame({"image": cells, "corner": [None, *y[1:]]}).to_parquet(path)
    refused(path, r"the target 'corner' is missing in 1 of 30 rows \(first in row 1\)", target="corner")
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "cannot read", target="corner")
