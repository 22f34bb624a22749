"""A study's folder: made once, locked by one process, its files plain JSON."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Thread

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


def test_several_that_begin_at_once_get_a_folder_each(tmp_path: Path) -> None:
    at_once = Barrier(4)

    def begin(seed: int) -> Path:
        spec = study().model_copy(update={"seed": seed})
        record = StudyRecord.new(spec)
        at_once.wait()
        folder = StudyFolder.create_numbered(tmp_path / "study", spec, record)
        assert (folder.spec().seed, folder.record().study_id) == (seed, record.study_id)
        return folder.path

    with ThreadPoolExecutor(4) as threads:
        made = [path for _ in range(10) for path in threads.map(begin, range(4))]
    assert sorted(made) == sorted(tmp_path / name for name in ["study", *(f"study-{n}" for n in range(2, 41))])


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


def test_what_a_killed_process_had_begun_to_write_is_cleared_away(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    begun = [
        folder.path / ".study.json.rlhpo-0123456789abcdef",
        folder.path / "trials" / ".x.json.rlhpo-00000000deadbeef",
    ]
    others = [folder.path / ".hidden", folder.path / ".study.json.mine", folder.path / "trials" / ".gitkeep"]
    for path in [*begun, *others]:
        path.touch()
    with folder.locked():
        assert not any(path.exists() for path in begun)
        assert all(path.exists() for path in others)


def test_two_processes_cannot_tune_in_one_folder(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    assert folder.busy() is None
    with folder.locked():
        why = folder.busy() or ""
        assert f"{folder.path} is being tuned by process {os.getpid()} on " in why
        with pytest.raises(UserError, match=re.escape(why)), StudyFolder(folder.path).locked():
            pytest.fail("the lease was given twice")
    assert folder.busy() is None


def test_looking_whether_a_study_is_tuned_keeps_nobody_from_tuning(tmp_path: Path) -> None:
    folder, done = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study())), Event()

    def look() -> None:
        while not done.is_set():
            StudyFolder(folder.path).busy()

    looking = Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            with folder.locked():
                pass
    finally:
        done.set()
        looking.join()
