from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from rlhpo_core.report.figures import CAPTIONS
from rlhpo_core.report.study_report import log_report, make_report
from rlhpo_core.storage.study_files import StudyRecord, Winner
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.tuner.state import initial_state
from tests.helpers.html_page import Page
from tests.helpers.reported_studies import line_space, make_spec
from tests.helpers.studies import CUBE, after_rounds, bowl


class Recorder:
    """What would be logged to MLflow."""

    def __init__(self, uri: str) -> None:
        self.connection = SimpleNamespace(uri=uri)
        self.artifacts: dict[str, bytes] = {}
        self.description = ""

    def log_figures(self, figures: Mapping[str, bytes]) -> None:
        self.artifacts |= figures

    def log_artifact_bytes(self, name: str, data: bytes) -> None:
        self.artifacts[name] = data

    def note(self, markdown: str) -> None:
        self.description = markdown

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        self.columns = dict(metrics)

    def tag(self, tags: Mapping[str, str]) -> None:
        self.tags = dict(tags)


def finished(folder: Path) -> StudyFolder:
    """A study of twelve random trials, its winner registered."""
    settings: dict[str, Any] = {"mode": "random", "trials_per_round": 6}
    spec = make_spec(CUBE, budget={"trials": 12}, tuner=settings)
    winner = Winner(trial_id="t", holdout={"auc": 0.875}, registered="churn version 3")
    record = StudyRecord(study_id="a-study-1", seconds=61.0, winner=winner, decision="promoted: it is better")
    files = StudyFolder.create(folder, spec, record)
    first = initial_state("a-study-1", spec.seed, spec.space, "maximize", spec.tuner)
    files.write_state(after_rounds(first, bowl, 2))
    return files


def test_a_report_says_what_the_files_hold_and_is_logged_whole(tmp_path: Path) -> None:
    files = finished(tmp_path / "study")
    report = make_report(files, files.spec())
    facts = [
        "12 of 12 trials",
        "wall time 1 min 1 s",
        "all 12 trials done",
        "churn version 3",
        "promoted: it is better",
    ]
    text = "\n".join(Page(report.html).texts)
    for fact in [*facts, "0.875"]:
        assert fact in text
        assert fact in report.note
    assert set(report.figures) <= set(CAPTIONS)
    assert {"progress.png", "importance.png", "slices.png"} <= set(report.figures)
    assert "script" not in Page(report.html).tags
    assert "script" in Page(report.interactive).tags

    small = {**report.figures, "report.html": report.html.encode()}
    local = {**small, "interactive.html": report.interactive.encode()}
    for uri, expected in (("sqlite:///mlflow.db", local), ("http://mlflow:5000", small)):
        recorder = Recorder(uri)
        log_report(cast(StudyTracker, recorder), report)
        assert recorder.artifacts == expected
        assert recorder.description == report.note
        assert recorder.columns == {"trials": 12.0}, "the objective is not among the holdout's metrics"
        assert recorder.tags == {"rlhpo.state": "promoted"}


def test_a_study_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    spec = make_spec(line_space(1))
    files = StudyFolder.create(tmp_path / "study", spec, StudyRecord.new(spec))
    files.write_state(initial_state("id", spec.seed, spec.space, "maximize", spec.tuner))
    report = make_report(files, spec)
    assert report.figures == {}
    assert "none: no trial has completed" in report.note
