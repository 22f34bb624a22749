"""Names and aliases in MLflow's model registry, the same for models and for priors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

#: Aliases: the newest version, the one that serves, and the one that served before it.
CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"


def create_registered_model(client: MlflowClient, name: str, tag: str, description: str | None = None) -> None:
    """Make a registered model with the tag ``rlhpo``, unless it is there already.

    Args:
        description: Markdown, for whoever finds it in the registry.
    """
    try:
        client.create_registered_model(name, tags={"rlhpo": tag}, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def registered_model(client: MlflowClient, name: str) -> Any:
    """MLflow's entity of a registered model; ``None`` if there is none of this name."""
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def aliases_of_model(client: MlflowClient, name: str) -> dict[str, str]:
    """Alias to version; empty if there is no such model."""
    model = registered_model(client, name)
    return {} if model is None else {alias: str(version) for alias, version in model.aliases.items()}


def version_exists(client: MlflowClient, name: str, version: str) -> bool:
    """Whether the registered model has this version (still)."""
    try:
        client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def aliases_of_version(client: MlflowClient, name: str, version: str) -> tuple[str, ...]:
    """The aliases of one version, sorted."""
    return tuple(sorted(client.get_model_version(name, version).aliases))


def set_aliases(client: MlflowClient, name: str, version: str, aliases: Sequence[str]) -> None:
    """Give a version aliases, and make it the champion, too, if the model has none."""
    for alias in aliases:
        client.set_registered_model_alias(name, alias, version)
    if CHAMPION not in client.get_registered_model(name).aliases:
        client.set_registered_model_alias(name, CHAMPION, version)
