"""A registered model of a real table, and studies of one trial whose winner is registered under its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from rlhpo_core.data.schema import TableSchema
from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.production.registered_model import RegisteredModel
from rlhpo_core.production.winner import register_winner
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Trial, TrialStatus
from rlhpo_core.tuner import algorithm
from tests.helpers.tables import EXAMPLES

#: Of white wines, in an order without meaning.
WINES = pd.read_csv(EXAMPLES / "winequality_white.csv").sample(frac=1, random_state=0, ignore_index=True)


def study(folder: Path, table: pd.DataFrame, model: str, trees: int = 30, **fields: Any) -> StudySpec:
    """A study of how quickly so many trees learn; its table, store and ledger lie in ``folder``."""
    path = folder / f"{model}.csv"
    table.to_csv(path, index=False)
    return StudySpec.model_validate(
        {
            "name": model,
            "data": {"path": path, "target": "target", "task": "regression", "holdout": 0.4},
            "evaluator": {"kind": "xgboost", "params": {"n_estimators": trees}},
            "objective": "rmse",
            "space": {"learning_rate": {"type": "float", "low": 0.1, "high": 0.2}},
            "prior": "none",
            "execution": {"workers": 1, "threads": 1},
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
            "registry": {"model": model, "store": str(folder / "registry")},
            "gate": {"margin": 0.0, "latency_ratio": None, "size_ratio": None},
            **fields,
        }
    )


def registered_model(spec: StudySpec) -> RegisteredModel:
    return RegisteredModel.of_study(spec, Path("unused"))


def tuned(folder: Path, spec: StudySpec, schema: TableSchema | None = None) -> tuple[StudyFolder, StudyTracker, Trial]:
    """The study after its first trial, without a winner yet; its table is read by a schema, if one is given."""
    record = StudyRecord.new(spec)
    evaluator = build_evaluator(spec, 1, schema)
    data = evaluator.data()
    assert data is not None
    files = StudyFolder.create(folder / "runs" / record.study_id, spec, record, data.schema)
    proposal = algorithm.propose(begin_study(files, spec))[0]
    value = evaluator.evaluate(proposal.config, lambda step, value: None).value
    trial = Trial(proposal=proposal, status=TrialStatus.COMPLETE, value=value)
    files.write_trial(trial)
    tracker = StudyTracker.open(spec, record.study_id, folder)
    tracker.log_data(data)
    return files, tracker, trial


def finished(folder: Path, spec: StudySpec, schema: TableSchema | None = None) -> tuple[StudyFolder, StudyTracker]:
    """The study with its winner registered."""
    files, tracker, trial = tuned(folder, spec, schema)
    assert register_winner(files, spec, build_evaluator(spec, 1, files.schema()), tracker, trial) is not None
    return files, tracker


def copies(spec: StudySpec, name: str, versions: int) -> tuple[StudySpec, RegisteredModel]:
    """The study for another model, each of whose versions is the champion of the study's own; the first is champion."""
    original = registered_model(spec)
    registry = spec.registry.model_copy(update={"model": name, "store": f"{spec.registry.store}-{name}"})
    spec = spec.model_copy(update={"registry": registry})
    version = original.client.get_model_version(original.name, "1")
    original.client.create_registered_model(name)
    for _ in range(versions):
        original.client.create_model_version(name, source=version.source, tags=version.tags)
    original.client.set_registered_model_alias(name, "champion", "1")
    return spec, registered_model(spec)
