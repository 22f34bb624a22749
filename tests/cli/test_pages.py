"""``rlhpo ui``: addresses of studies in a local database, and of those on a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from rlhpo_core.cli import main as cli
from rlhpo_core.cli.pages import pages_of
from rlhpo_core.errors import UserError
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.tracking.tracker import StudyTracker
from tests.helpers.mlflow_store import new_store
from tests.helpers.tracked_studies import make_spec

pytestmark = pytest.mark.usefixtures("only_these_settings")


def test_each_study_has_its_address(tmp_path: Path) -> None:
    uri = new_store(tmp_path)
    spec = make_spec("pages")
    record = StudyRecord.new(spec)
    StudyFolder.create(tmp_path / "toy", spec, record)
    StudyFolder.create(tmp_path / "never-begun", spec, StudyRecord.new(spec))
    tracker = StudyTracker.open(spec.model_copy(update={"tracking": spec.tracking}), record.study_id, tmp_path)
    found = pages_of(tmp_path, port=5099)
    page = f"http://127.0.0.1:5099/#/experiments/{tracker.experiment_id}/runs/{tracker.run_id}?workflowType="
    assert found.addresses[str(tmp_path / "toy")] == f"{page}machine_learning"
    assert found.addresses["all runs of pages"].endswith("/runs?workflowType=machine_learning")
    assert str(tmp_path / "never-begun") not in found.addresses
    assert found.database == tmp_path / "mlflow.db"
    shown = CliRunner().invoke(cli.app, ["ui", str(tmp_path / "toy"), "--print"]).output
    assert f"/runs/{tracker.run_id}?workflowType=machine_learning" in shown

    MlflowClient(uri).delete_run(tracker.run_id)
    assert str(tmp_path / "toy") not in pages_of(tmp_path, port=5099).addresses


def test_studies_on_a_server_are_opened_there(tmp_path: Path) -> None:
    spec = make_spec("pages", tracking={"uri": "https://mlflow.example"})
    StudyFolder.create(tmp_path / "toy", spec, StudyRecord.new(spec))
    found = pages_of(tmp_path / "toy", port=5000)
    assert found.addresses == {str(tmp_path / "toy"): "https://mlflow.example"}
    assert found.database is None


def test_where_there_is_nothing_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no MLflow database"):
        pages_of(tmp_path, port=5000)
