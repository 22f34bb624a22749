"""A study's folder on this machine: its files, and that one process at a time tunes in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlhpo_core.atomic_files import remove_leftovers
from rlhpo_core.data.schema import SCHEMA, TableSchema
from rlhpo_core.errors import UserError
from rlhpo_core.storage.lease import leased, refused
from rlhpo_core.storage.lock import Lock
from rlhpo_core.storage.object_store import FolderStore
from rlhpo_core.storage.study_files import RECORD, SPEC, STATES, StudyFiles, StudyRecord
from rlhpo_core.study.spec import StudySpec, load_study

_LOCK = "lock/"


class StudyFolder(StudyFiles):
    """A study's files in a local folder."""

    store: FolderStore

    def __init__(self, path: Path) -> None:
        super().__init__(FolderStore(path))

    @property
    def path(self) -> Path:
        """The folder."""
        return self.store.root

    @property
    def study_file(self) -> Path:
        """The path of ``study.yaml``."""
        return self.path / SPEC

    @classmethod
    def create(cls, path: Path, spec: StudySpec, record: StudyRecord, schema: TableSchema | None = None) -> StudyFolder:
        """A folder with the files that a study has before it begins. Of several processes at once, one succeeds.

        Args:
            path: Where there is no folder yet, or an empty one.
            schema: Of its table, if it has one.

        Raises: UserError if there is a study or anything else in it already, or if it cannot be written.
        """
        folder = cls(path)
        try:
            if not _made(path) and not folder.study_file.exists() and any(path.iterdir()):
                raise UserError(f"{path} is not empty; a study has a folder of its own: choose another --out")
            if not folder.claim(record):
                raise UserError(
                    f"{path} holds a study already; continue it with `rlhpo resume {path}` or choose another --out"
                )
            (path / "trials").mkdir()
        except OSError as error:
            raise UserError(f"cannot write the study folder {path}: {error}") from error
        if schema is not None:
            folder.claim_schema(schema)
        folder.write_spec(spec)
        return folder

    @classmethod
    def create_numbered(
        cls, path: Path, spec: StudySpec, record: StudyRecord, schema: TableSchema | None = None
    ) -> StudyFolder:
        """As ``create``, in the first of path, path-2, path-3, … that is not there: of several processes at once, each
        has its own.
        """
        for number in itertools.count(1):
            candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
            try:
                made = _made(candidate)
            except OSError as error:
                raise UserError(f"cannot write the study folder {candidate}: {error}") from error
            if made:
                return cls.create(candidate, spec, record, schema)
        raise AssertionError

    def discard(self, keep_folder: bool) -> None:
        """Remove what a study that could not begin has written, and nothing else; the caller holds the lease.

        Args:
            keep_folder: Whether the folder was there before; else it is removed as well, if nothing else is in it.

        Raises: UserError if a file cannot be removed.
        """
        for key in (SPEC, SCHEMA, *self.store.keys(STATES), *self.store.keys(_LOCK)):
            self.store.delete(key)
        for name in ("trials", "state", "lock"):
            _remove_if_empty(self.path / name)
        # Last: as long as it is there, no other process can begin a study here.
        self.store.delete(RECORD)
        if not keep_folder:
            _remove_if_empty(self.path)

    @classmethod
    def open(cls, path: Path) -> StudyFolder:
        """Raises: UserError if there is no study in it."""
        folder = cls(path)
        if not folder.study_file.exists():
            raise UserError(f"{path} holds no study; `rlhpo tune STUDY.yaml` starts one")
        return folder

    def spec(self) -> StudySpec:
        """The study, with ``data.path`` relative to the folder. Raises: UserError as ``check_unchanged`` does, too."""
        spec = load_study(self.study_file)
        self.check_unchanged(spec)
        return spec

    @contextmanager
    def locked(self) -> Iterator[Lock]:
        """Held while tuning. What a process that was killed had begun to write is cleared away.

        Raises: as ``lease.leased`` does.
        """
        with leased(self.store) as lock:
            for folder in (self.path, *(self.path / name for name in ("trials", "state", "checkpoints"))):
                remove_leftovers(folder)
            yield lock

    def busy(self) -> str | None:
        """Why nobody else may tune in this folder now: who does; ``None`` if nobody does."""
        return refused(self.store)


def studies(below: Path) -> Iterator[StudyFolder]:
    """The folders right below a path that hold a study, by name."""
    return (StudyFolder(file.parent) for file in sorted(below.glob(f"*/{SPEC}")))


def _made(path: Path) -> bool:
    """Make a folder; whether it is new."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()
