"""A prior as a version in MLflow's registry, with aliases that say what it is.

A version is an artifact folder of a run: the prior, its card, and an MLmodel file that says what it is. Nothing in it
is executable. The description is the card, so MLflow's pages show where the prior comes from.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model

from rlhpo_core.errors import UserError
from rlhpo_core.priors.store import DIGEST, FILE, FOLDER, digest
from rlhpo_core.tracking.connection import Connection
from rlhpo_core.tracking.content import source_tags
from rlhpo_core.tracking.registry import CHALLENGER, aliases_of_version, create_registered_model, set_aliases
from rlhpo_core.tuner.prior import FORMAT_VERSION, Prior, describe

EXPERIMENT = "rlhpo-priors"
#: How many characters of a card MLflow takes as a description.
_MOST = 5000


@dataclass(frozen=True)
class RegisteredPrior:
    """A version of a prior in the registry."""

    name: str
    version: str
    aliases: tuple[str, ...]

    @property
    def address(self) -> str:
        """What ``prior:`` takes."""
        return f"models:/{self.name}/{self.version}"


def register_prior(prior: Prior, name: str, connection: Connection, aliases: Sequence[str] = ()) -> RegisteredPrior:
    """Make a prior a version of ``name``.

    May be repeated: a prior that is registered under the name is not registered again, but gets the aliases given.

    Args:
        prior: The version's content; where it was itself taken from a registry, that is left out.
        name: Of the registered model, which is made if there is none.
        connection: To MLflow.
        aliases: Of the version. A new one is the ``challenger`` if none is given; the first of a name becomes the
            ``champion``, too.

    Raises: UserError if MLflow cannot be reached or refuses.
    """
    if not re.fullmatch(r"[^/@:]+", name):
        raise UserError(f"a prior cannot be registered as {name!r}: a name has no '/', ':' or '@'")
    prior = replace(prior, card=prior.card.model_copy(update={"registered": ""}))
    tags = {"rlhpo.prior": prior.card.name, "rlhpo.objective": prior.card.objective, DIGEST: digest(prior.to_bytes())}
    with connection.client() as client:
        create_registered_model(client, name, "prior")
        same_files = client.search_model_versions(f"tags.`{DIGEST}` = '{tags[DIGEST]}'")
        known = next((version for version in same_files if version.name == name), None)
        version = known or _new_version(client, connection, prior, name, tags)
        set_aliases(client, name, version.version, aliases or (() if known else (CHALLENGER,)))
        held = aliases_of_version(client, name, version.version)
    return RegisteredPrior(name, str(version.version), held)


def _new_version(
    client: MlflowClient, connection: Connection, prior: Prior, name: str, tags: dict[str, str]
) -> ModelVersion:
    """A run with the prior, its settings and its card, and a version that comes from it."""
    card, text = prior.card, describe(prior)
    note = {"mlflow.note.content": text[:_MOST]}
    made = {**tags, **source_tags(), **note, "rlhpo.run": "prior"}
    run = client.create_run(connection.experiment(client, EXPERIMENT), tags=made, run_name=card.name)
    run_id = run.info.run_id
    try:
        facts = {**card.made_with, "studies": str(len(card.studies)), "trials": str(card.trials)}
        client.log_batch(run_id, params=[Param(key, value) for key, value in facts.items()], synchronous=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / FOLDER
            folder.mkdir()
            (folder / FILE).write_bytes(prior.to_bytes())
            (folder / "card.md").write_text(text, encoding="utf-8")
            model = Model(artifact_path=FOLDER, run_id=run_id)
            model.add_flavor("rlhpo_prior", data=FILE, format_version=FORMAT_VERSION)
            model.save(folder / "MLmodel")
            client.log_artifacts(run_id, str(folder), FOLDER)
        version = client.create_model_version(
            name,
            source=f"{run.info.artifact_uri}/{FOLDER}",
            run_id=run_id,
            tags={**tags, "rlhpo.studies": str(len(card.studies)), "rlhpo.trials": str(card.trials)},
            description=text[:_MOST],
        )
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    return version
