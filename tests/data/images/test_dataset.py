from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data import drift
from rlhpo_core.data.holdout import row_keys, slices, unseen
from rlhpo_core.data.images.dataset import load_images
from rlhpo_core.data.labelled import split
from rlhpo_core.data.table import load_table
from rlhpo_core.errors import UserError
from rlhpo_core.study.production_settings import RetuneSpec
from rlhpo_core.study.spec import DataSpec
from tests.helpers.pictures import as_folder, as_npz, as_parquet, pictures


def test_the_form_in_which_images_come_changes_nothing(tmp_path: Path) -> None:
    arrays = load_images(DataSpec(path=as_npz(tmp_path / "a.npz")), seed=0)
    rows = load_images(DataSpec(path=as_parquet(tmp_path / "a.parquet"), target="corner"), seed=0)
    files = load_images(DataSpec(path=as_folder(tmp_path / "corners")), seed=0)
    assert arrays.digest == rows.digest
    assert arrays.classes == rows.classes == files.classes
    # Files come by their names.
    everything = np.arange(len(arrays))
    assert set(row_keys(arrays, everything)) == set(row_keys(files, everything))


def test_the_same_seed_divides_and_draws_alike(tmp_path: Path) -> None:
    spec = DataSpec(path=as_npz(tmp_path / "a.npz", count=120), max_rows=60)
    images = load_images(spec, seed=3)
    assert len(images) == 60
    assert np.bincount(images.target.astype(int)).tolist() == [20, 20, 20]
    assert images.digest == load_images(spec, seed=3).digest
    assert images.digest != load_images(spec, seed=4).digest
    parts = split(images, spec, seed=3)
    assert (len(parts.train), len(parts.validation), len(parts.holdout)) == (36, 12, 12)


def test_only_what_is_drawn_is_decoded(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "corners", count=120)
    drawn = load_images(DataSpec(path=folder, max_rows=60), seed=0)
    known, every = set(row_keys(drawn, np.arange(60))), load_images(DataSpec(path=folder), seed=0)
    left = [row for row, key in enumerate(row_keys(every, np.arange(120))) if key not in known]
    names = sorted(path for path in folder.rglob("*.png"))
    names[left[0]].write_bytes(b"no image")
    assert load_images(DataSpec(path=folder, max_rows=60), seed=0).digest == drawn.digest


def test_images_are_known_again_and_sent_as_arrays(tmp_path: Path) -> None:
    whole = load_images(DataSpec(path=as_npz(tmp_path / "a.npz")), seed=0)
    seen = row_keys(whole, np.arange(60))
    fresh = unseen(whole, np.arange(90), [seen])
    assert len(fresh) == 30
    np.testing.assert_array_equal(np.stack(list(fresh.rows["image"])), whole.pixels[60:, :, :, 0])
    with pytest.raises(UserError, match="holds images, which have no values to be sliced by"):
        slices(fresh, ["image"])


def test_later_images_are_read_by_the_schema_of_the_first(tmp_path: Path) -> None:
    coloured = load_images(DataSpec(path=as_npz(tmp_path / "a.npz", channels=3, classes=["left", "right"])), seed=0)
    grey = load_images(DataSpec(path=as_folder(tmp_path / "grey")), seed=0, schema=coloured.schema)
    assert grey.shape == (10, 10, 3)
    assert [change.text for change in grey.changes] == [
        "column 'class' has new classes 'below' in rows 1, 2, 3, 4, 5 and 25 more"
    ]
    assert grey.schema.classes == ("below", "left", "right")
    with pytest.raises(UserError, match="images with 3 channels are wanted, and these have 1"):
        load_images(DataSpec(path=as_npz(tmp_path / "b.npz")), seed=0, schema=coloured.schema)
    with pytest.raises(UserError, match="12 × 12 × 3 and 10 × 10 × 3"):
        load_images(DataSpec(path=as_folder(tmp_path / "large", size=12)), seed=0, schema=coloured.schema)
    single = load_images(DataSpec(path=as_npz(tmp_path / "c.npz")), seed=0)
    with pytest.raises(UserError, match="has colour, and the images so far were grey"):
        load_images(DataSpec(path=as_folder(tmp_path / "colour", channels=3)), seed=0, schema=single.schema)


def test_a_table_is_not_taken_for_images(tmp_path: Path) -> None:
    pd.DataFrame({"a": range(20), "target": [0, 1] * 10}).to_csv(tmp_path / "a.csv", index=False)
    table = load_table(DataSpec(path=tmp_path / "a.csv", target="target"), seed=0)
    with pytest.raises(UserError, match="that was a table, and these are images"):
        load_images(DataSpec(path=as_npz(tmp_path / "a.npz")), seed=0, schema=table.schema)
    with pytest.raises(UserError, match=r"a\.csv: images are a folder of class folders"):
        load_images(DataSpec(path=tmp_path / "a.csv", target="target"), seed=0)
    with pytest.raises(UserError, match="regression on images is not supported"):
        load_images(DataSpec(path=tmp_path / "a.npz", task="regression"), seed=0)


def test_darker_images_are_a_drift(tmp_path: Path) -> None:
    x, y = pictures(400)
    for name, images in (("then", x[:200]), ("alike", x[200:]), ("darker", x[200:] // 2)):
        np.savez(tmp_path / f"{name}.npz", x=images, y=y[:200])
    profiles = {
        name: drift.profile(load_images(DataSpec(path=tmp_path / f"{name}.npz"), seed=0))
        for name in ("then", "alike", "darker")
    }
    assert list(profiles["then"].columns) == ["grey mean", "grey deviation", "roughness"]
    assert drift.compare(profiles["then"], profiles["alike"], RetuneSpec()).drifted == ()
    assert set(drift.compare(profiles["then"], profiles["darker"], RetuneSpec()).drifted) >= {"grey mean"}
