"""The retuning pipeline's own steps, as functions from files to files: before the looping pipeline, and after it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import pod
from rlhpo_core.kubeflow.steps import fetch_table, on_cpu, tracked
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.spec import StudySpec, dump_study, parse_study

# What is slow to import (torch, MLflow, XGBoost) is imported by the step that needs it, as in steps.

#: What the first step says is to be done; the pipeline's condition compares with ``GO``.
GO, STOP = "tune", "stop"


@dataclass(frozen=True)
class Checked:
    """What the first step hands on."""

    action: str
    """GO or STOP."""
    study: str
    """The study as it is to be tuned: with what it starts from."""
    store: str
    """Where the files of this retuning live."""
    findings: str
    """All that was found, as JSON."""


@pod.step
def check(study: str, store: str, table_source: str, force: bool, note: Path) -> Checked:
    """Compare the current data with the champion's, and score the champion on it.

    Args:
        study: The study file's text.
        store: The place of the model: its ledger lies below it, and each retuning has a folder of its own there.
        table_source: A path or an address (``s3://…``) of the current table; empty for ``data.path``.
        force: Whether to tune even if nothing has changed.
        note: Written: what was found, as Markdown.

    Raises: UserError if the study cannot be retuned, or if its data, MLflow or the store cannot be reached.
    """
    from rlhpo_core.production import retuning
    from rlhpo_core.production.registered_model import RegisteredModel

    spec = _spec(study, store)
    model = RegisteredModel.of_study(spec, tracked(spec))
    with retuning.recording_failure(spec, model, print), _at_hand(spec, table_source) as local:
        findings = retuning.check(local, model, force)
    note.write_text(f"# {spec.name}\n\n{findings.reason}\n", encoding="utf-8")
    tuned = spec.model_copy(update={"warm_start": findings.warm_start})
    place = f"{store.rstrip('/')}/studies/{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{findings.digest[:8]}"
    return Checked(GO if findings.proceed else STOP, dump_study(tuned), place, findings.model_dump_json())


@pod.step
def decide(study: str, store: str, model_store: str, table_source: str, findings: str, note: Path) -> dict[str, float]:
    """Let the gate decide about a study's winner; returns what it was decided by.

    A study with budget left has no winner yet: nothing is decided, and the result is empty.

    Args:
        study: As ``check`` has handed it on.
        store: Where the files of this retuning live.
        model_store: The place of the model, as ``check`` had it.
        table_source: As ``check`` had it; the table must be the same.
        findings: What ``check`` has found, as JSON.
        note: Written: the decision and its reason, as Markdown.

    Raises: UserError if the study's files, its data, MLflow or the registry cannot be used.
    """
    from rlhpo_core.production import alerts, retuning
    from rlhpo_core.production.registered_model import RegisteredModel
    from rlhpo_core.tracking.tracker import StudyTracker

    spec, files = _spec(study, model_store), StudyFiles(open_store(store))
    model = RegisteredModel.of_study(spec, tracked(spec))
    with retuning.recording_failure(spec, model, print), _at_hand(spec, table_source) as local:
        tracker = StudyTracker.open(spec, files.record().study_id, tracked(spec))
        found = retuning.Findings.model_validate_json(findings)
        record = retuning.decide(local, model, files, tracker, found, print)
        tracker.finish("FINISHED")
        if record is not None:
            details = {"study": spec.name, "reason": "the retuning is through"}
            alerts.send(spec.alerts, "budget_spent", details, print)
    if record is None:
        note.write_text("Nothing was decided: the study has no registered winner yet.\n", encoding="utf-8")
        return {}
    note.write_text(f"# {record.outcome}\n\n{record.reason}\n", encoding="utf-8")
    values = {"promoted": float(record.outcome in ("promoted", "first"))}
    if (verdict := record.verdict) is not None and verdict.measured is not None:
        values |= verdict.measured.model_dump(exclude={"detectable"}) | {"rows": float(verdict.rows)}
    return values


def _spec(study: str, store: str) -> StudySpec:
    """The study, with the one ledger of its model: its own, else the cluster's, else that in the model's store."""
    from rlhpo_core.production.ledger import STORE_VARIABLE

    spec = parse_study(study, "the study")
    ledger = spec.registry.store or os.environ.get(STORE_VARIABLE) or f"{store.rstrip('/')}/registry"
    return spec.model_copy(update={"registry": spec.registry.model_copy(update={"store": ledger})})


@contextmanager
def _at_hand(spec: StudySpec, source: str) -> Iterator[StudySpec]:
    """The study with its table in this file system, and without an accelerator."""
    if spec.data is None:
        raise UserError("a retuning needs a table: the study has no data")
    wanted = source or str(spec.data.path)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(wanted).name
        fetch_table(wanted, path)
        yield on_cpu(spec).model_copy(update={"data": spec.data.model_copy(update={"path": path})})
