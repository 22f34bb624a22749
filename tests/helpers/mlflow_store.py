"""New MLflow stores without their migrations: these take seconds, a copy of a migrated database takes none."""

from __future__ import annotations

import atexit
import functools
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient


def new_store(folder: Path, name: str = "mlflow.db") -> str:
    """The URI of an empty MLflow database in a folder, which is made if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / name
    with closing(sqlite3.connect(_migrated())) as database:
        database.execute("VACUUM INTO ?", (str(path),))
    return f"sqlite:///{path}"


@functools.cache
def _migrated() -> Path:
    """A database that MLflow has made, once for the whole test run."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
