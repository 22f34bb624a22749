"""A registered model at hand: its place in MLflow, its ledger, and its versions loaded for judging."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from pydantic import ValidationError

from rlhpo_core.data import holdout
from rlhpo_core.data.drift import DataProfile
from rlhpo_core.data.holdout import Keys
from rlhpo_core.errors import UserError
from rlhpo_core.production.answers import Model
from rlhpo_core.production.ledger import Ledger
from rlhpo_core.study.spec import StudySpec, TrackingSpec
from rlhpo_core.tracking.connection import CONTACT, Connection


@dataclass(frozen=True)
class Served:
    """A version that can be asked."""

    model: Model
    size: int
    """Bytes of the files that serve it."""
    seen: Keys
    """Fingerprints of the rows that it was trained on; none if it does not say."""
    profile: DataProfile | None
    """Of the table that it was trained on."""


@dataclass(frozen=True)
class Desk:
    connection: Connection
    client: MlflowClient
    ledger: Ledger

    @classmethod
    def of(cls, model: str, tracking: TrackingSpec, store: str | None, beside: Path) -> Desk:
        """``beside`` is where a local MLflow store lies if no other is named.

        Raises: UserError if MLflow cannot be reached.
        """
        connection = Connection.of(tracking, beside)
        with connection.open(timeout=CONTACT):
            connection.probe()
            client = MlflowClient(tracking_uri=connection.uri)
            client.search_registered_models(max_results=1)
        return cls(connection, client, Ledger.of(model, store))

    @classmethod
    def of_study(cls, spec: StudySpec, beside: Path) -> Desk:
        """Raises: UserError if the study names no registered model, or if MLflow cannot be reached."""
        if spec.registry.model is None:
            raise UserError("registry.model: a retuning needs the name of the registered model that it is about")
        return cls.of(spec.registry.model, spec.tracking, spec.registry.store, beside)

    @property
    def model(self) -> str:
        return self.ledger.model

    def tags(self, version: str) -> dict[str, str]:
        """Of a version."""
        with self.connection.open(timeout=60, retries=2):
            found: dict[str, str] = self.client.get_model_version(self.model, version).tags
        return found

    @contextmanager
    def served(self, *versions: str) -> Iterator[dict[str, Served]]:
        """Versions of the model, loaded from the registry. Raises: UserError if one cannot be had or loaded."""
        with ExitStack() as stack:
            yield {version: self._load(version, stack) for version in versions}

    def _load(self, version: str, stack: ExitStack) -> Served:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        with self.connection.open(timeout=120, retries=2):
            source = self.client.get_model_version(self.model, version).source
            path = Path(mlflow.artifacts.download_artifacts(source, dst_path=folder, tracking_uri=self.connection.uri))
        try:
            model = mlflow.pyfunc.load_model(str(path))
        except Exception as error:
            # Whatever a model raises that was logged with other packages, or damaged since.
            raise UserError(f"version {version} of {self.model} cannot be loaded: {error}") from error
        beside = path / "artifacts"
        files = [
            file for file in beside.rglob("*") if file.is_file() and file.name not in (holdout.PROFILE, holdout.SEEN)
        ]
        seen, profile = beside / holdout.SEEN, beside / holdout.PROFILE
        return Served(
            model=model,
            size=sum(file.stat().st_size for file in files),
            seen=holdout.from_bytes(seen.read_bytes()) if seen.exists() else np.empty(0, np.uint64),
            profile=_profile(profile),
        )


def _profile(path: Path) -> DataProfile | None:
    try:
        return DataProfile.model_validate_json(path.read_bytes()) if path.exists() else None
    except ValidationError as error:
        raise UserError(f"{path.name} of a registered version is damaged: {error}") from error
