"""Ending a study's runs on a cluster for good, so that nothing says that it goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import client, next_run
from rlhpo_core.kubeflow.connection import Server, ServerError, call
from rlhpo_core.retries import patiently
from rlhpo_core.storage import lease
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import RECORD, StudyFiles

#: Seconds within which a run that was stopped has to be over: the pods' grace of 30 seconds, and Argo's looks.
_STOPPING = 300.0


def stop_run(server: Server, run_id: str, tell: Callable[[str], None]) -> None:
    """End a run at once: its pods get SIGTERM, and no other run follows it.

    Its study's store is asked to start nothing more, and its run in MLflow ends as KILLED. What of these cannot be
    reached from here is told, and no error: the run is stopped all the same.

    Args:
        tell: Takes lines for a person to read.

    Raises: UserError if there is no such run, if it has ended already, or if it does not end within five minutes.
    """
    run = client.run(server, run_id)
    if run.store:
        try:
            StudyFiles(open_store(run.store)).request_stop()
        except UserError as error:
            tell(f"warning: {run.store} was not asked to stop, so another run may follow: {error}")
    client.terminate(server, run_id)
    ended = client.wait(server, run_id, poll=2.0, timeout=_STOPPING)
    # KFP says FAILED of a run that was stopped.
    tell(f"run {run_id} is stopped ({ended.state})")
    if run.store:
        try:
            files = StudyFiles(open_store(run.store))
            lease.release(files.store, run_id)
            mark_killed(files)
        except UserError as error:
            tell(_not_ended(error))


def after_death(files: StudyFiles, run_id: str, tell: Callable[[str], None]) -> None:
    """What the last step of a run would have done that has ended without it: free the study, and end it in MLflow.

    Nothing of that where another run follows, or the end of the chain was told.

    Raises: UserError if the store cannot be reached.
    """
    if not next_run.is_followed(files, run_id):
        lease.release(files.store, run_id)
        try_to_mark_killed(files, tell)


def free_from_the_dead(server: Server, files: StudyFiles) -> None:
    """Free a study that is held by a run which, as KFP knows, has ended: its steps were killed before they could.

    Raises: UserError if KFP or the store cannot be reached or refuses.
    """
    if (holder := lease.holding_run(files.store)) is None:
        return
    try:
        state = call(server, "run_service_get_run", holder).state
    except ServerError as error:
        if error.status == 404:
            # Of another KFP, whose runs nobody here knows.
            return
        raise
    if state in client.ENDED:
        lease.release(files.store, holder)


def try_to_mark_killed(files: StudyFiles, tell: Callable[[str], None]) -> None:
    """As ``mark_killed``, without waiting; what cannot be reached is told."""
    try:
        with patiently(0):
            mark_killed(files)
    except UserError as error:
        tell(_not_ended(error))


def mark_killed(files: StudyFiles) -> bool:
    """End the study's run in MLflow as KILLED if it says that it goes on; whether it did.

    Raises: UserError if the store or MLflow cannot be reached.
    """
    from rlhpo_core.tracking.tracker import StudyTracker

    spec = files.spec_or_none()
    if spec is None or files.store.read(RECORD) is None:
        return False
    if not (spec.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")):
        raise UserError("which MLflow? Set MLFLOW_TRACKING_URI to the one of the cluster")
    return StudyTracker.kill(spec, files.record().study_id, Path.cwd())


def _not_ended(error: UserError) -> str:
    return f"warning: the study's run in MLflow was not ended: {error}"
