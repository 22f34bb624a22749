"""What a step needs of its study: the files in the store, the table, and the run in MLflow."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import DataDescription
from rlhpo_core.retries import patiently
from rlhpo_core.storage import attempts
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.storage.tables import with_data
from rlhpo_core.study.cluster_settings import in_bytes
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import POD_MEMORY, Proposal, Trial, TrialStatus

#: What was found, beside the study's files in the folder of a retuning.
FINDINGS = "findings.json"


def files_of(store: str) -> StudyFiles:
    """The study's files. Raises: UserError if the address names no store."""
    return StudyFiles(open_store(store))


def on_cpu(spec: StudySpec) -> StudySpec:
    """The study for a step that trains nothing: only trials and the winner's refit have an accelerator."""
    return spec.model_copy(update={"execution": spec.execution.model_copy(update={"device": "cpu"})})


@contextmanager
def with_table(spec: StudySpec, table: Path, name: str) -> Iterator[StudySpec]:
    """The study with its table at hand. Artifacts have no file ending, and the ending tells the format."""
    if spec.data is None:
        yield spec
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / name
        link.symlink_to(table.resolve())
        yield with_data(spec, link)


def tracked(spec: StudySpec) -> Path:
    """Where a local MLflow store would lie. Raises: UserError if a pod would log into its own file system."""
    if not (spec.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")):
        raise UserError("a pipeline needs an MLflow server: set tracking.uri in the study or MLFLOW_TRACKING_URI")
    return Path.cwd()


def open_run(spec: StudySpec, files: StudyFiles, data: DataDescription | None) -> str:
    """The study's run, with all that there is to log so far. Raises: UserError if MLflow cannot be reached."""
    from rlhpo_core.tracking.tracker import StudyTracker

    place = files.store.uri.rstrip("/").rsplit("/", 1)[-1]
    # The first step of a retuning has left its findings there; the place is named by its moment.
    retunes = files.store.read(FINDINGS) is not None
    name = f"{spec.name} {place.rsplit('-', 1)[0]}" if retunes else None
    tracker = StudyTracker.open(spec, files.record().study_id, tracked(spec), name)
    if data is not None:
        tracker.log_data(data)
    state = files.state()
    if state.prior is not None:
        tracker.log_prior(state.prior)
    tracker.sync(files.history(), state.summaries, files.with_curve)
    return tracker.run_id


def died(files: StudyFiles, spec: StudySpec, proposal: Proposal) -> Trial | None:
    """The failed trial of a proposal whose pods have died of it; ``None`` if it is to be trained.

    The limit under which they died is among its metrics, as ``POD_MEMORY``.

    Raises: UserError if the store fails.
    """
    memory = spec.cluster.trial_memory
    if not attempts.died_of(files.store, proposal.trial_id, memory):
        return None
    error = (
        f"its pod died twice (exit 137 is the usual sign: out of memory at {memory}?); raise cluster.trial_memory or "
        "narrow the search space"
    )
    metrics = {POD_MEMORY: round(in_bytes(memory) / 1e6)}
    return Trial(proposal=proposal, status=TrialStatus.FAILED, error=error, metrics=metrics, started_at=time.time())


def keep(files: StudyFiles, trial: Trial) -> Trial:
    """Write a trial's file; returns the trial that is kept. If the store is away, the step's artifact has it."""
    try:
        return files.write_trial(trial)
    except UserError as error:
        print(f"warning: the trial is kept, but not in the store yet; the round's end tries again: {error}", flush=True)
        return trial


def log_trial(spec: StudySpec, run_id: str, trial: Trial) -> None:
    """Write a trial's run. If MLflow is away just now, the end of the round catches up: a trained trial is kept."""
    from rlhpo_core.tracking.tracker import StudyTracker

    try:
        with patiently(0):
            StudyTracker.attach(spec, run_id, tracked(spec)).log_trial(trial)
    except UserError as error:
        print(f"warning: the trial is kept, but not in MLflow yet: {error}", flush=True)


def catch_up(spec: StudySpec, files: StudyFiles, run_id: str) -> None:
    """Write what the run lacks. If MLflow is away just now, a later round catches up."""
    from rlhpo_core.tracking.tracker import StudyTracker

    history, summaries = files.history(), files.state().summaries
    try:
        with patiently(0):
            StudyTracker.attach(spec, run_id, tracked(spec)).sync(history, summaries, files.with_curve)
    except UserError as error:
        print(f"warning: MLflow misses a part, which a later round will log: {error}", flush=True)
