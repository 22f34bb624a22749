"""A registered model: its place in MLflow, its ledger, and its versions loaded for judging."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from pydantic import ValidationError

from rlhpo_core.data import holdout
from rlhpo_core.data.drift import DataProfile
from rlhpo_core.data.holdout import Keys
from rlhpo_core.data.schema import SCHEMA, TableSchema
from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.production.answers import Model
from rlhpo_core.production.ledger import PLACE, STORE_VARIABLE, Ledger
from rlhpo_core.retries import wait_out
from rlhpo_core.study.spec import StudySpec, TrackingSpec
from rlhpo_core.tracking.connection import Connection

Content = TypeVar("Content", bound=Frozen)


@dataclass(frozen=True)
class Served:
    """A loaded version, and what it says of its training."""

    model: Model
    size: int
    """Bytes of the files that serve it."""
    seen: Keys
    """Fingerprints of the rows that it was trained on; none if it does not say."""
    profile: DataProfile | None
    """Of the table that it was trained on; ``None`` if it does not say."""
    schema: TableSchema | None
    """By which that table was read; ``None`` if it does not say."""


@dataclass(frozen=True)
class RegisteredModel:
    """The registry entry of one model in MLflow, with the ledger that decides about it."""

    connection: Connection
    client: MlflowClient
    ledger: Ledger

    @classmethod
    def open(cls, name: str, tracking: TrackingSpec, store: str | None, local_mlflow: Path) -> RegisteredModel:
        """Make contact with MLflow; the model itself need not be there yet.

        Args:
            store: Where the ledger lies; ``None`` stands for the default.
            local_mlflow: The folder of the local MLflow store, which is used if no other is named.

        Raises: UserError if MLflow cannot be reached, or if the model's ledger lies at another address.
        """
        connection, ledger = Connection.of(tracking, local_mlflow), Ledger.of(name, store)
        wanted = "name = '{}'".format(name.replace("'", "''"))
        found, client = connection.contact(lambda client: (client.search_registered_models(wanted), client))
        place = found[0].tags.get(PLACE) if found else None
        if place is not None and place != ledger.place:
            raise UserError(
                f"the ledger of the model {name} lies at {place}, and not at {ledger.place or ledger.store.uri}: with "
                f"two, each would know half of what happened. Set registry.store, --store or {STORE_VARIABLE} to it "
                f"(or, if the ledger was moved, the tag {PLACE} of the model)"
            )
        return cls(connection, connection.patient(client), ledger)

    @classmethod
    def of_study(cls, spec: StudySpec, local_mlflow: Path) -> RegisteredModel:
        """The model that the study names, opened.

        Raises: UserError if the study names none, or if MLflow cannot be reached.
        """
        if spec.registry.model is None:
            raise UserError("registry.model: a retuning needs the name of the registered model that it is about")
        return cls.open(spec.registry.model, spec.tracking, spec.registry.store, local_mlflow)

    @property
    def name(self) -> str:
        """Of the model, in the registry and in the ledger."""
        return self.ledger.model

    def tags(self, version: str) -> dict[str, str]:
        """Of a version.

        Raises: UserError if there is no such version, or if MLflow cannot be reached.
        """
        with self.connection.open(timeout=60):
            tags: dict[str, str] = self.client.get_model_version(self.name, version).tags
        return tags

    def schema(self, version: str) -> TableSchema | None:
        """By which the table of a version was read; ``None`` if it does not say.

        Raises: UserError if the version cannot be fetched.
        """
        with ExitStack() as stack:
            return _parsed(TableSchema, self._fetched(version, stack) / "artifacts" / SCHEMA)

    @contextmanager
    def served(self, *versions: str) -> Iterator[dict[str, Served]]:
        """Versions of the model, loaded from the registry; their files are there inside the context only.

        Raises: UserError if one cannot be fetched or loaded.
        """
        with ExitStack() as stack:
            yield {version: self._load(version, stack) for version in versions}

    def _fetched(self, version: str, stack: ExitStack) -> Path:
        """The folder of a version."""
        folder, uri = stack.enter_context(tempfile.TemporaryDirectory()), self.connection.uri

        def fetch() -> Path:
            with self.connection.open(timeout=120):
                source = self.client.get_model_version(self.name, version).source
                return Path(mlflow.artifacts.download_artifacts(source, dst_path=folder, tracking_uri=uri))

        return wait_out(f"fetch version {version} of {self.name}", fetch)

    def _load(self, version: str, stack: ExitStack) -> Served:
        path = self._fetched(version, stack)
        try:
            model = mlflow.pyfunc.load_model(str(path))
        except Exception as error:
            # Whatever a model raises that was logged with other packages, or damaged since.
            raise UserError(f"version {version} of {self.name} cannot be loaded: {error}") from error
        artifacts = path / "artifacts"
        seen, unserved = artifacts / holdout.SEEN, (holdout.SEEN, holdout.PROFILE, SCHEMA)
        # Nor does code make one model slower to load than another.
        files = (file for file in artifacts.rglob("*") if file.is_file() and file.suffix != ".py")
        serving = [file for file in files if file.name not in unserved]
        return Served(
            model=model,
            size=sum(file.stat().st_size for file in serving),
            seen=holdout.from_bytes(seen.read_bytes()) if seen.exists() else np.empty(0, np.uint64),
            profile=_parsed(DataProfile, artifacts / holdout.PROFILE),
            schema=_parsed(TableSchema, artifacts / SCHEMA),
        )


def _parsed(kind: type[Content], path: Path) -> Content | None:
    try:
        return kind.model_validate_json(path.read_bytes()) if path.exists() else None
    except ValidationError as error:
        raise UserError(f"{path.name} of a registered version is damaged: {error}") from error
