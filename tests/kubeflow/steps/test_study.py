from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlhpo_core.data.images.dataset import load_images
from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow.steps.study import with_table
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.tables import fetch_table
from rlhpo_core.study.spec import DataSpec
from tests.helpers.pictures import as_folder, study


@pytest.mark.parametrize("stored", [False, True])
def test_a_folder_of_images_comes_as_one_file(stored: bool, tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "corners")
    source = str(folder)
    if stored:
        source = f"file://{tmp_path}/bucket/corners"
        store = open_store(source)
        for path in folder.rglob("*.png"):
            store.write(path.relative_to(folder).as_posix(), path.read_bytes())
        shutil.rmtree(folder)
        as_folder(folder)
    name = fetch_table(source, tmp_path / "fetched")
    assert name == "corners.zip"
    first = (tmp_path / "fetched").read_bytes()
    assert fetch_table(f"{source}/", tmp_path / "fetched") == name
    assert (tmp_path / "fetched").read_bytes() == first
    with with_table(study(folder), tmp_path / "fetched", name) as local:
        assert local.data is not None
        packed = load_images(local.data, seed=0)
    assert packed.digest == load_images(DataSpec(path=folder), seed=0).digest


def test_a_class_without_images_is_found_out_in_the_pipeline_too(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "corners", count=30)
    (folder / "above").mkdir()
    name = fetch_table(str(folder), tmp_path / "fetched")
    with with_table(study(folder), tmp_path / "fetched", name) as local:
        assert local.data is not None
        with pytest.raises(UserError, match=r"corners\.zip/above/ holds no images"):
            load_images(local.data, seed=0)
