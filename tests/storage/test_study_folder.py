"""A study's folder: made once, locked by one process, its files plain JSON."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder, studies
from rlhpo_core.study.spec import StudySpec


def study() -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "test",
            "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
            "objective": {"metric": "score", "direction": "maximize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"trials": 12},
        }
    )


def test_a_folder_holds_one_study(tmp_path: Path) -> None:
    StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    with pytest.raises(UserError, match="holds a study already; continue it with `rlhpo resume"):
        StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    assert [folder.path.name for folder in studies(tmp_path)] == ["a"]
    assert StudyFolder.open(tmp_path / "a").spec() == study()


def test_of_several_that_begin_in_one_folder_at_once_one_succeeds(tmp_path: Path) -> None:
    at_once = Barrier(4)

    def begin(path: Path, seed: int) -> str | None:
        spec = study().model_copy(update={"seed": seed})
        record = StudyRecord.new(spec)
        at_once.wait()
        try:
            StudyFolder.create(path, spec, record)
        except UserError:
            return None
        return f"{seed} {record.study_id}"

    with ThreadPoolExecutor(4) as threads:
        for attempt in range(30):
            path = tmp_path / str(attempt)
            if attempt % 2:
                path.mkdir()
            begun = [each for each in threads.map(begin, [path] * 4, range(4)) if each is not None]
            folder = StudyFolder.open(path)
            assert begun == [f"{folder.spec().seed} {folder.record().study_id}"]


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        StudyFolder.create(tmp_path, study(), StudyRecord.new(study()))
    assert [file.name for file in tmp_path.iterdir()] == ["code.py"]


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no study"):
        StudyFolder.open(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the study folder"):
        StudyFolder.create(tmp_path / "file" / "a", study(), StudyRecord.new(study()))


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    (folder.path / "study.json").write_text('{"study_id": 3}')
    with pytest.raises(UserError, match=r"study\.json is missing or damaged"):
        folder.record()


def test_a_damaged_trial_is_named(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    (folder.path / "trials" / "0123.json").write_text("{")
    with pytest.raises(UserError, match=r"0123\.json is damaged"):
        folder.history()


def test_two_processes_cannot_tune_in_one_folder(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    assert not folder.busy()
    with folder.locked():
        assert folder.busy()
        with pytest.raises(UserError, match="being tuned by another process"), StudyFolder(folder.path).locked():
            pytest.fail("the lock was given twice")
    assert not folder.busy()
