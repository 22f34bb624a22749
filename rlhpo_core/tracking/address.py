"""Where MLflow is, and the addresses of its pages: known without importing MLflow."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from rlhpo_core import addresses
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import TrackingSpec

#: Opens a page of MLflow 3 on training runs; without it, it opens on what is for language models.
_TRAINING = "?workflowType=machine_learning"
#: Where `rlhpo ui` serves a local store, unless told otherwise.
LOCAL_PAGES = "http://127.0.0.1:5000"


def tracking_uri(spec: TrackingSpec, store: Path) -> str:
    """Where a study's MLflow is.

    The study file's URI, else ``MLFLOW_TRACKING_URI``, else an SQLite database in ``store``, the folder of studies; all
    studies there share it.

    Raises: UserError if what the variable holds is no address.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if spec.uri or not named:
        return spec.uri or f"sqlite:///{store.resolve() / 'mlflow.db'}"
    try:
        return addresses.as_mlflow(named)
    except ValueError as error:
        raise UserError(f"MLFLOW_TRACKING_URI: {error}") from error


def ui_command(uri: str) -> str:
    """The shell command that shows a store in MLflow's web interface; of a server, its address."""
    if is_server(uri):
        return redacted(uri)
    # From a virtual environment that is not activated, only the full path works.
    mlflow = "mlflow" if shutil.which("mlflow") else str(Path(sys.executable).with_name("mlflow"))
    return f"{shlex.quote(mlflow)} ui --backend-store-uri {shlex.quote(redacted(uri))}"


def experiment_page(base: str, experiment_id: str) -> str:
    """The address of an experiment's list of runs.

    Args:
        base: The server's address, or ``LOCAL_PAGES``.
    """
    return f"{redacted(base).rstrip('/')}/#/experiments/{experiment_id}/runs{_TRAINING}"


def run_page(base: str, experiment_id: str, run_id: str) -> str:
    """The address of a run's page."""
    return f"{redacted(base).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}{_TRAINING}"


def redacted(uri: str) -> str:
    """The URI without its password."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def is_server(uri: str) -> bool:
    """Whether MLflow is reached over HTTP, and not through a database of its own."""
    return uri.startswith(("http://", "https://"))
