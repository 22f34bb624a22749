"""The retuning pipeline's own steps: before the looping pipeline, after it, and at the end of a run in any case."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import pod
from rlhpo_core.kubeflow.steps.study import FINDINGS, files_of, on_cpu, tracked
from rlhpo_core.retries import patiently
from rlhpo_core.storage import lease
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.storage.tables import fetched, with_data
from rlhpo_core.study.spec import StudySpec

# What is slow to import (torch, MLflow, XGBoost) is imported by the step that needs it, as in steps.
if TYPE_CHECKING:
    from rlhpo_core.production.endings import Begun
    from rlhpo_core.production.ledger import Ledger

#: What the first step says is to be done; the pipeline's condition compares with ``GO``.
GO, STOP = "tune", "stop"


@dataclass(frozen=True)
class Checked:
    """What the first step hands on."""

    action: str
    """GO or STOP."""
    store: str
    """Where the files of this retuning live: the study as it is to be tuned, and all that was found."""


@pod.step
def check(store: str, table_source: str, force: bool, note: Path, kfp_run: str = "") -> Checked:
    """Compare the current data with the champion's, and score the champion on it.

    Args:
        store: The place of the model: its study file lies in it, its ledger below it, and each retuning has a folder of
            its own there.
        table_source: A path or an address (``s3://…``) of the current table; empty for ``data.path``.
        force: Whether to tune even if nothing has changed.
        note: Written: what was found, as Markdown.
        kfp_run: This run's id in KFP, by which ``end`` finds how far it came; empty if that is not called.

    Raises: UserError if the study cannot be retuned, or if its data, MLflow or the store cannot be reached.
    """
    from rlhpo_core.kubeflow.next_run import forget_fault
    from rlhpo_core.production import endings, retuning
    from rlhpo_core.production.registered_model import RegisteredModel

    spec, run = _spec(store, store), kfp_run or None
    ledger = _ledger(spec)
    if run is not None:
        forget_fault(files_of(store))
        endings.begin(ledger, run)
    model = RegisteredModel.of_study(spec, tracked(spec))
    with endings.recording_failure(spec, ledger, print, run), _at_hand(spec, table_source) as local:
        findings = retuning.check(local, model, force, run=run, explain=lambda begun: _explain(store, begun))
    note.write_text(f"# {spec.name}\n\n{findings.reason}\n", encoding="utf-8")
    place = f"{store.rstrip('/')}/studies/{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{findings.digest[:8]}"
    if findings.proceed:
        files = StudyFiles(open_store(place))
        if findings.champion is not None and (schema := model.schema(findings.champion)) is not None:
            # The study reads its table by what the champion was trained on.
            files.claim_schema(schema)
        files.write_spec(retuning.tuned_spec(spec, findings))
        files.store.write(FINDINGS, findings.model_dump_json().encode())
    if run is not None and findings.proceed:
        endings.note_study(ledger, run, place)
    elif run is not None:
        endings.end(ledger, run, findings.reason)
    return Checked(GO if findings.proceed else STOP, place)


@pod.step
def decide(store: str, model_store: str, table_source: str, note: Path, kfp_run: str = "") -> dict[str, float]:
    """Let the gate decide about a study's winner; returns what it was decided by.

    A study with budget left has no winner yet: nothing is decided, and the result is empty.

    Args:
        store: Where the files of this retuning live, as ``check`` has handed it on.
        model_store: The place of the model, as ``check`` had it.
        table_source: As ``check`` had it; the table must be the same.
        note: Written: the decision and its reason, as Markdown.
        kfp_run: As ``check`` had it.

    Raises: UserError if the study's files, its data, MLflow or the registry cannot be used.
    """
    from rlhpo_core.production import alerts, endings, retuning
    from rlhpo_core.production.registered_model import RegisteredModel
    from rlhpo_core.tracking.tracker import StudyTracker

    spec, files, run = _spec(store, model_store), files_of(store), kfp_run or None
    ledger = _ledger(spec)
    model = RegisteredModel.of_study(spec, tracked(spec))
    with (
        endings.recording_failure(spec, ledger, print, run),
        lease.renewed(files.store),
        _at_hand(spec, table_source) as local,
    ):
        tracker = StudyTracker.open(spec, files.record().study_id, tracked(spec))
        found = retuning.Findings.model_validate_json(_found(files))
        record = retuning.decide(local, model, files, tracker, found, print)
        tracker.finish("FINISHED")
        if record is not None:
            details = {"study": spec.name, "reason": "the retuning is through"}
            alerts.send(spec.alerts, "budget_spent", details, print)
    if run is not None:
        endings.end(ledger, run, "nothing was to be decided yet" if record is None else record.outcome)
    if record is None:
        note.write_text("Nothing was decided: the study has no registered winner yet.\n", encoding="utf-8")
        return {}
    note.write_text(f"# {record.outcome}\n\n{record.reason}\n", encoding="utf-8")
    values = {"promoted": float(record.outcome in ("promoted", "first"))}
    if (verdict := record.verdict) is not None and verdict.measured is not None:
        values |= verdict.measured.model_dump(exclude={"detectable"}) | {"rows": float(verdict.rows)}
    return values


@pod.step
def end(store: str, kfp_run: str) -> str:
    """If this run of the retuning pipeline has come to no end, record that it failed, and send the alert.

    Runs at the end of each run, also of one that failed, and goes by the store alone.

    Args:
        store: The place of the model, as ``check`` had it.
        kfp_run: This run's id in KFP.

    Returns: what was recorded, for a person to read; empty if the run had come to an end.

    Raises: UserError if the store cannot be reached; the step may then be run again.
    """
    from rlhpo_core.production import endings

    spec = _spec(store, store)
    ledger = _ledger(spec)
    record = endings.fail_unless_ended(spec, ledger, kfp_run, print, lambda begun: _explain(store, begun))
    if (place := endings.study_of(ledger, kfp_run)) is not None:
        _let_go(files_of(place), kfp_run)
    return "" if record is None else record.reason


def _let_go(files: StudyFiles, run: str) -> None:
    """Free the study, and have nothing say that it goes on. A decided one has said so itself."""
    from rlhpo_core.kubeflow.stopping import try_to_mark_killed

    lease.release(files.store, run)
    try_to_mark_killed(files, lambda line: print(line, flush=True))


def _explain(store: str, begun: Begun) -> str:
    """What is known of a retuning that came to no end: what a step could not do, or how one died, as far as KFP, its
    pods and their logs can be read from here.
    """
    from rlhpo_core.kubeflow import diagnosis, next_run
    from rlhpo_core.kubeflow.connection import Server

    with patiently(0):
        try:
            if (fault := next_run.fault(files_of(begun.store or store))) is not None:
                return f"{fault.step}: {fault.reason.strip().splitlines()[0]}"
            found = diagnosis.troubles(Server.of(), begun.run, os.environ.get("RLHPO_KFP_ARTIFACTS"), lines=1)
        except UserError as error:
            print(f"what has become of run {begun.run} cannot be looked up: {error}", flush=True)
            return ""
    return "; ".join(" ".join(str(trouble).split()) for trouble in found[:2])


def _ledger(spec: StudySpec) -> Ledger:
    """Of the model that the study names. Raises: UserError if it names none."""
    from rlhpo_core.production.ledger import Ledger

    if spec.registry.model is None:
        raise UserError("registry.model: a retuning needs the name of the registered model that it is about")
    return Ledger.of(spec.registry.model, spec.registry.store)


def _spec(store: str, model_store: str) -> StudySpec:
    """The study in a store, with the one ledger of its model: as it says, else the cluster's, else the store's."""
    from rlhpo_core.production.ledger import STORE_VARIABLE

    spec = StudyFiles(open_store(store)).spec()
    ledger = spec.registry.store or os.environ.get(STORE_VARIABLE) or f"{model_store.rstrip('/')}/registry"
    return spec.model_copy(update={"registry": spec.registry.model_copy(update={"store": ledger})})


@contextmanager
def _at_hand(spec: StudySpec, source: str) -> Iterator[StudySpec]:
    """The study with its table in this file system, and without an accelerator."""
    if spec.data is None:
        raise UserError("a retuning needs a table: the study has no data")
    with fetched(source or spec.data.source) as path:
        yield with_data(on_cpu(spec), path)


def _found(files: StudyFiles) -> bytes:
    """What ``check`` has found, as JSON."""
    if (data := files.store.read(FINDINGS)) is None:
        raise UserError(f"{files.store.uri}/{FINDINGS} is missing: what was found before the tuning was removed")
    return data
