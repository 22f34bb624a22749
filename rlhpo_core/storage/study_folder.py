"""A study's folder on this machine: its files, and the lock that one process at a time holds while tuning."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhpo_core.errors import UserError
from rlhpo_core.storage.object_store import FolderStore
from rlhpo_core.storage.study_files import SPEC, StudyFiles, StudyRecord
from rlhpo_core.study.spec import StudySpec, load_study


class StudyFolder(StudyFiles):
    """A study's files in a local folder."""

    store: FolderStore

    def __init__(self, path: Path) -> None:
        super().__init__(FolderStore(path))

    @property
    def path(self) -> Path:
        return self.store.root

    @property
    def study_file(self) -> Path:
        return self.path / SPEC

    @classmethod
    def create(cls, path: Path, spec: StudySpec, record: StudyRecord) -> StudyFolder:
        """A new folder. Raises: UserError if there is a study in it already, or if it cannot be written."""
        folder = cls(path)
        if folder.study_file.exists():
            raise UserError(
                f"{path} holds a study already; continue it with `rlhpo resume {path}` or choose another --out"
            )
        try:
            (path / "trials").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write the study folder {path}: {error}") from error
        folder.write_record(record)
        folder.write_spec(spec)
        return folder

    @classmethod
    def open(cls, path: Path) -> StudyFolder:
        """Raises: UserError if there is no study in it."""
        folder = cls(path)
        if not folder.study_file.exists():
            raise UserError(f"{path} holds no study; `rlhpo tune STUDY.yaml` starts one")
        return folder

    def spec(self) -> StudySpec:
        """The study, with ``data.path`` relative to the folder."""
        return load_study(self.study_file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Held while tuning. Raises: UserError if another process holds it; a dead process holds nothing."""
        with (self.path / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(f"{self.path} is being tuned by another process; wait for it, or stop it") from error
            yield

    def busy(self) -> bool:
        """Whether a process is tuning in this folder now."""
        try:
            with self.locked():
                return False
        except UserError:
            return True


def studies(below: Path) -> Iterator[StudyFolder]:
    """The folders right below a path that hold a study, by name."""
    return (StudyFolder(file.parent) for file in sorted(below.glob(f"*/{SPEC}")))
