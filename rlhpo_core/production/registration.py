"""The winner as a version of a registered model in MLflow, with aliases that say what it is.

A new version is the ``challenger``; the first of a model is its ``champion`` too. Later champions are made by the gate.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.types.schema import AnyType, ColSpec, Schema

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import Refit
from rlhpo_core.production.model_card import model_card
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.content import millis
from rlhpo_core.tracking.registry import CHALLENGER, aliases_of_version, create_registered_model, set_aliases
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Trial, shown

#: Tag of the registered model: the latest version that has got its first aliases. Later ones are the gate's and the
#: users'. Versions that were registered by earlier releases have a tag of this name of their own.
_ALIASED = "rlhpo.aliased"


@dataclass(frozen=True)
class RegisteredModelVersion:
    """A version of a registered model."""

    name: str
    version: str
    aliases: tuple[str, ...]
    """Sorted."""

    @property
    def uri(self) -> str:
        """What ``mlflow.pyfunc.load_model`` takes."""
        return f"models:/{self.name}/{self.version}"


def register(
    tracker: StudyTracker, name: str, refit: Refit, trial: Trial, spec: StudySpec, store: str = ""
) -> RegisteredModelVersion:
    """Log the refitted winner below the study's run and register it.

    May be repeated: a winner that is registered already is returned as it is, its aliases untouched.

    Args:
        tracker: Of the study; its run becomes the source of the version.
        name: Of the registered model, which is made if there is none.
        refit: The winner, trained and scored; its serving script is run once, as a check.
        trial: The one that ``refit`` comes from.
        store: The address of the study's files, for a later study that starts from this one.

    Raises: UserError if MLflow cannot be reached or refuses, or if the model predicts otherwise when served.
    """
    with tracker.connection.open(timeout=120):
        client = tracker.connection.patient(tracker.client)
        version = _find(client, name, tracker.study_id, trial.trial_id)
        if version is None:
            create_registered_model(client, name, "true", _about(name, spec))
            model = _log_model(tracker, name, refit, trial, spec)
            digest = tracker.tags.get("rlhpo.data_digest", "unknown")
            card = model_card(spec, tracker.study_id, trial, refit.metrics, tracker.rows(), digest)
            tracker.log_artifact_bytes("model_card.md", card.encode())
            version = client.create_model_version(
                name,
                # Not models:/<id>: a local store would look that up wherever the environment says MLflow is.
                source=model.artifact_location,
                run_id=tracker.run_id,
                # What later studies and retunings look up; the description has it all for people.
                tags={
                    "rlhpo.study_id": tracker.study_id,
                    "rlhpo.trial_id": trial.trial_id,
                    "rlhpo.config": json.dumps(trial.config),
                    **({"rlhpo.data_digest": digest} if "rlhpo.data_digest" in tracker.tags else {}),
                    **({"rlhpo.store": store} if store else {}),
                },
                description=card,
                model_id=model.model_id,
            )
            link = [{"name": name, "version": str(version.version)}]
            client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(link)})
        if _ALIASED not in version.tags and int(version.version) > _aliased(client, name):
            set_aliases(client, name, version.version, [CHALLENGER])
            client.set_registered_model_tag(name, _ALIASED, str(version.version))
        aliases = aliases_of_version(client, name, version.version)
    return RegisteredModelVersion(name, str(version.version), aliases)


def _aliased(client: MlflowClient, name: str) -> int:
    """The latest version of a model that has got its first aliases; 0 if none has."""
    tag = client.get_registered_model(name).tags.get(_ALIASED, "")
    return int(tag) if tag.isdecimal() else 0


def _about(name: str, spec: StudySpec) -> str:
    """What is said of a registered model: what it predicts from what, and what to do with it."""
    source = "" if spec.data is None else f" from {spec.data.path.name}"
    target = spec.data.target if spec.data is not None and spec.data.target else "its target"
    return (
        f"Predicts `{target}`{source} by {spec.evaluator.describe()}; each version is the winner of a study by rlhpo, "
        f"judged by {spec.objective.metric}.\n\nServe the alias `champion` (`models:/{name}@champion`). The newest "
        f"version is the `challenger`; the gate, or a person, makes it champion. `rlhpo audit {name}` shows what has "
        "happened."
    )


def _find(client: MlflowClient, name: str, study_id: str, trial_id: str) -> ModelVersion | None:
    versions = client.search_model_versions(f"tags.`rlhpo.study_id` = '{study_id}'")
    matches = (v for v in versions if v.name == name and v.tags.get("rlhpo.trial_id") == trial_id)
    return next(matches, None)


def _log_model(tracker: StudyTracker, name: str, refit: Refit, trial: Trial, spec: StudySpec) -> LoggedModel:
    """The model with its files, its configuration as parameters and its scores as metrics, tied to the study's run."""
    client, step = tracker.connection.patient(tracker.client), trial.proposal.number + 1
    model = client.create_logged_model(
        tracker.experiment_id,
        re.sub(r"[^\w-]", "-", name),
        source_run_id=tracker.run_id,
        tags=_tags(tracker, refit, trial),
        params={key: shown(value) for key, value in trial.config.items()},
        model_type=spec.evaluator.kind,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            save_model(path, refit, Model(
                artifact_path=model.artifact_location,
                run_id=tracker.run_id,
                model_uuid=model.model_id,
                model_id=model.model_id,
            ))  # fmt: skip
            client.log_model_artifacts(model.model_id, str(path))
        client.log_outputs(tracker.run_id, [LoggedModelOutput(model.model_id, step)])
        client.log_batch(tracker.run_id, _metrics(tracker, refit, trial, spec, model.model_id), synchronous=True)
    except BaseException:
        # Seen as failed, and not as one that is forever being uploaded.
        client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def save_model(path: Path, refit: Refit, model: Model) -> None:
    """The model's folder, checked: it is loaded once, and has to predict what the trained model did."""
    files = path.parent / "files"
    files.mkdir()
    artifacts = {**refit.files, **{module.name: module.read_bytes() for module in refit.modules}}
    for name, data in artifacts.items():
        (files / name).write_bytes(data)
    with warnings.catch_warnings():
        # Advice on type hints and integer columns, for the author of a script and not for its user.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.save_model(
            path,
            python_model=str(refit.serving),
            artifacts={name: str(files / name) for name in artifacts},
            pip_requirements=list(refit.requirements),
            signature=_signature(refit),
            input_example=refit.input_example,
            mlflow_model=model,
        )
        served = mlflow.pyfunc.load_model(str(path)).predict(refit.input_example)
    try:
        pd.testing.assert_frame_equal(
            pd.DataFrame(served).reset_index(drop=True),
            refit.output_example.reset_index(drop=True),
            check_dtype=False,
            rtol=1e-4,
        )
    except AssertionError as error:
        raise UserError(f"not registered: served by {refit.serving}, the model predicts otherwise:\n{error}") from error
    for cache in path.rglob("__pycache__"):
        shutil.rmtree(cache)


def _signature(refit: Refit) -> ModelSignature:
    """The names of the columns, whatever their type: MLflow would refuse whole numbers where training saw a fraction,
    and text of digits where a reader made numbers of it. The serving script checks what they hold.
    """
    inputs = Schema([ColSpec(AnyType(), str(name)) for name in refit.input_example.columns])
    return ModelSignature(inputs, infer_signature(refit.input_example, refit.output_example).outputs)


def _metrics(tracker: StudyTracker, refit: Refit, trial: Trial, spec: StudySpec, model_id: str) -> list[Metric]:
    """The winner's scores on both parts of the data that it can be judged by."""
    validation = {} if trial.value is None else {spec.objective.metric: trial.value}
    metrics, now = [], millis(time.time())
    for context, values in (("holdout", refit.metrics), ("validation", validation)):
        dataset = tracker.datasets.get(context)
        data = {} if dataset is None else {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
        for key, value in values.items():
            # One value, and no curve: without a step.
            metrics.append(Metric(f"{context}.{key}", value, now, 0, model_id=model_id, **data))
    return metrics


def _tags(tracker: StudyTracker, refit: Refit, trial: Trial) -> dict[str, str]:
    """The study's (its id and the digest of its data among them), and what became of the winner."""
    return {
        **tracker.tags,
        "rlhpo.trial_id": trial.trial_id,
        "rlhpo.trial": str(trial.proposal.number + 1),
        **{f"rlhpo.holdout.{metric}": repr(float(value)) for metric, value in refit.metrics.items()},
    }
