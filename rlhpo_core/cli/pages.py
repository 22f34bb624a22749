"""``rlhpo ui``: the pages of studies in MLflow, by their addresses; a local database is served."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from rlhpo_core.errors import UserError
from rlhpo_core.storage.study_folder import StudyFolder, studies
from rlhpo_core.tracking.address import experiment_page, is_server, run_page, tracking_uri

#: Studies whose address is printed: the latest.
_MOST = 10


@dataclass(frozen=True)
class Pages:
    """What there is to open."""

    addresses: dict[str, str]
    """By the study's folder, the latest last; and of all runs."""
    database: Path | None
    """To be served; ``None`` if the studies are logged to a server."""


def pages_of(folder: Path, port: int) -> Pages:
    """The pages of a study, or of the studies in a folder.

    Args:
        port: At which a local database will be served.

    Raises: UserError if there is neither a study nor a database.
    """
    one = StudyFolder(folder).study_file.exists()
    found = [StudyFolder(folder)] if one else sorted(studies(folder), key=lambda each: each.study_file.stat().st_mtime)
    database = (folder.resolve().parent if one else folder.resolve()) / "mlflow.db"
    addresses: dict[str, str] = {}
    for study in found[-_MOST:]:
        with suppress(UserError):
            spec = study.spec()
            uri = tracking_uri(spec.tracking, database.parent)
            if is_server(uri):
                addresses[str(study.path)] = uri
            elif (place := _place(database, study.record().study_id)) is not None:
                addresses[str(study.path)] = run_page(f"http://127.0.0.1:{port}", *place)
    local = [address for address in addresses.values() if "/runs/" in address]
    if database.exists():
        for name, experiment_id in _experiments(database).items():
            addresses[f"all runs of {name}"] = experiment_page(f"http://127.0.0.1:{port}", experiment_id)
    elif not addresses:
        raise UserError(f"there is no MLflow database in {database.parent}; `rlhpo tune STUDY.yaml` makes one")
    return Pages(addresses, database if local or database.exists() else None)


def serve(database: Path, port: int) -> None:
    """Become MLflow's server of a database."""
    program = Path(sys.executable).with_name("mlflow")
    command = [str(program) if program.exists() else "mlflow", "ui", "--backend-store-uri", f"sqlite:///{database}"]
    sys.stdout.flush()
    try:
        os.execvp(command[0], [*command, "--port", str(port)])
    except OSError as error:
        raise UserError(f"cannot start MLflow: {error}") from error


def _place(database: Path, study_id: str) -> tuple[str, str] | None:
    """Ids of experiment and run of a study; read without MLflow, which takes seconds to import."""
    rows = _asked(
        database,
        "SELECT r.experiment_id, r.run_uuid FROM runs r JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = "
        "'rlhpo.study_id' AND s.value = ? JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'rlhpo.run' AND "
        "k.value = 'study' WHERE r.lifecycle_stage = 'active' LIMIT 1",
        study_id,
    )
    return (str(rows[0][0]), str(rows[0][1])) if rows else None


def _experiments(database: Path) -> dict[str, str]:
    """Ids by name, of those with runs."""
    rows = _asked(
        database,
        "SELECT e.name, e.experiment_id FROM experiments e WHERE e.lifecycle_stage = 'active' AND EXISTS "
        "(SELECT 1 FROM runs r WHERE r.experiment_id = e.experiment_id)",
    )
    return {str(name): str(identity) for name, identity in rows}


def _asked(database: Path, question: str, *values: str) -> list[tuple[object, ...]]:
    """Nothing if the database is not there, or is not as this MLflow has it."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
            return connection.execute(question, values).fetchall()
    except sqlite3.Error:
        return []
