"""Priors by their address: built in, in a file, in an object store, or a version in MLflow's registry.

``models:/NAME@ALIAS`` and ``models:/NAME/3`` name versions, which ``registry`` makes.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from rlhpo_core.atomic_files import create_atomically, write_atomically
from rlhpo_core.errors import UserError, suggestion
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.tuner.prior import Prior, from_bytes

# MLflow is slow to import, and most priors do without.
if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from rlhpo_core.tracking.connection import Connection

#: Begins the address of a version in the registry.
REGISTRY = "models:"
#: In the artifacts of a version's run: the prior's folder, and its file in it.
FOLDER, FILE = "prior", "prior.safetensors"
#: Tag of a version: SHA-256 of the file.
DIGEST = "rlhpo.prior_digest"
_ADDRESS = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<version>[0-9]+))")


def find_prior(address: str, connect: Callable[[], Connection]) -> Prior:
    """The prior at an address.

    Args:
        address: A built-in name, a path, the URL of an object, or ``models:/…``.
        connect: Gives the connection to MLflow; it is called for ``models:/…`` alone.

    Raises: UserError if there is none, or if it cannot be read.
    """
    if address.startswith(REGISTRY):
        return from_registry(address, connect())
    if "://" not in address:
        return load_prior(address)
    folder, _, name = address.rpartition("/")
    data = open_store(folder).read(name)
    if data is None:
        raise UserError(f"there is no prior at {address}")
    try:
        return from_bytes(data)
    except UserError as error:
        raise UserError(f"{address}: {error}") from error


def taken(address: str) -> bool:
    """Whether there is a file or an object at the address already."""
    if "://" not in address:
        return Path(address).exists()
    folder, _, name = address.rpartition("/")
    return open_store(folder).read(name) is not None


def save_prior(prior: Prior, address: str, overwrite: bool = False) -> bool:
    """Write a prior to a file or to an object store.

    Args:
        overwrite: Whether to replace what is there.

    Returns: ``False`` if there is something already, which is left as it is.

    Raises: UserError if it cannot be written.
    """
    data = prior.to_bytes()
    if "://" in address:
        folder, _, name = address.rpartition("/")
        store = open_store(folder)
        if not overwrite:
            return store.create(name, data)
        store.write(name, data)
        return True
    path = Path(address)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not overwrite:
            return create_atomically(path, data)
        write_atomically(path, data)
    except OSError as error:
        raise UserError(f"cannot write the prior {address}: {error}") from error
    return True


def from_registry(address: str, connection: Connection) -> Prior:
    """A registered prior; its card says which version it is.

    Raises: UserError if there is no such version, if it is no prior, or if MLflow cannot be reached.
    """
    if (wanted := _ADDRESS.fullmatch(address)) is None:
        raise UserError(f"prior: {address} is no version in a registry; write models:/NAME@ALIAS or models:/NAME/3")
    with connection.client() as client, tempfile.TemporaryDirectory() as folder:
        version = _version(client, connection, address, wanted["name"], wanted["alias"], wanted["version"])
        if DIGEST not in version.tags or version.run_id is None:
            raise UserError(f"prior: {address} is a model and not a prior; `rlhpo prior train … --register` makes one")
        data = Path(client.download_artifacts(version.run_id, f"{FOLDER}/{FILE}", folder)).read_bytes()
    if digest(data) != version.tags[DIGEST]:
        raise UserError(f"prior: the file of {address} is not the one that was registered; register the prior again")
    try:
        prior = from_bytes(data)
    except UserError as error:
        raise UserError(f"prior: {address}: {error}") from error
    registered = f"models:/{version.name}/{version.version}"
    return replace(prior, card=prior.card.model_copy(update={"registered": registered}))


def digest(data: bytes) -> str:
    """SHA-256 of a prior's file, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _version(
    client: MlflowClient, connection: Connection, address: str, name: str, alias: str | None, version: str | None
) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    from rlhpo_core.tracking.address import redacted

    try:
        if alias is not None:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(
            f"prior: there is no {address} in MLflow at {redacted(connection.uri)} (from {connection.origin}); "
            f"`rlhpo prior train … --register {name}` registers one"
        ) from error


def load_prior(place: str) -> Prior:
    """A prior that comes with rlhpo, by its name, or one from a file.

    Raises: UserError if there is none, or if it cannot be read.
    """
    if place in builtin_names():
        return from_bytes((_builtin() / f"{place}.safetensors").read_bytes())
    try:
        data = Path(place).read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the prior {place}: {error.strerror}; `rlhpo prior list` names those that are built in"
            f"{suggestion(place, builtin_names(), listing=False)}"
        ) from error
    try:
        return from_bytes(data)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def builtin_names() -> list[str]:
    """The priors that come with rlhpo."""
    return sorted(
        file.name.removesuffix(".safetensors") for file in _builtin().iterdir() if ".safetensors" in file.name
    )


def _builtin() -> Traversable:
    return resources.files(__package__) / "builtin"
