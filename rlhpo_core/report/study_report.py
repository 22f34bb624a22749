"""The report of a study: made from its files, logged to its run in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.address import is_server
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import History

# What draws is slow to import (matplotlib, plotly): whoever tunes first needs it at the end.
if TYPE_CHECKING:
    from rlhpo_core.report import page


@dataclass(frozen=True)
class Report:
    """A study in pictures and words."""

    html: str
    """One page that needs nothing else, and has no script."""
    interactive: str
    """The same with charts to point at and to zoom into, and with the script that draws them; about 5 MB."""
    note: str
    """Markdown."""
    figures: Mapping[str, bytes]
    """Name to PNG."""
    columns: Mapping[str, float]
    """What the list of runs shows of the study: trials, the best, and the winner on the holdout."""
    state: str
    """How far it has come, for a person to read."""


def get_ready() -> None:
    """Import what draws, which takes a second or more, so that ``make_report`` need not."""
    from rlhpo_core.report import charts, page  # noqa: F401


def make_report(files: StudyFiles, spec: StudySpec) -> Report:
    """The report of a study as far as it has come.

    Raises: UserError if a file of the study is missing or cannot be read.
    """
    from rlhpo_core.report import charts, page
    from rlhpo_core.report.figures import figures as draw_figures
    from rlhpo_core.report.sensitivity import analyse

    history, summaries = files.whole_history(), files.state().summaries
    record = files.record()
    ending = page.Ending(
        reason=spent(spec.budget, history, record.seconds),
        seconds=record.seconds,
        holdout=record.winner.holdout if record.winner is not None else {},
        registered=record.winner.registered if record.winner is not None else None,
        decision=record.decision,
        baseline=record.baseline.text if record.baseline is not None else None,
        warning=record.winner.warning if record.winner is not None else None,
    )
    sensitivity = analyse(spec, history)
    figures = draw_figures(spec, history, summaries, sensitivity, record.baseline)
    drawn = charts.charts(spec, history, summaries, sensitivity, record.baseline)
    return Report(
        html=page.html_report(spec, history, summaries, figures, ending),
        interactive=page.html_report(spec, history, summaries, figures, ending, drawn, charts.script()),
        note=page.study_note(spec, history, summaries, ending, sensitivity),
        figures=figures,
        columns=_columns(spec, history, ending),
        state=_state(history, ending),
    )


def _columns(spec: StudySpec, history: History, ending: page.Ending) -> dict[str, float]:
    best, holdout = history.best(), ending.holdout.get(spec.objective.metric)
    values = {"trials": float(len(history)), "best": None if best is None else best.value, "holdout": holdout}
    # The curve of the best is logged trial by trial.
    return {name: value for name, value in values.items() if value is not None and name != "best"}


def _state(history: History, ending: page.Ending) -> str:
    if ending.decision is not None:
        return ending.decision.split(":")[0]
    if ending.reason is None:
        return "under way"
    return f"{'finished' if history.best() is not None else 'failed'}: {ending.reason}"


def log_report(tracker: StudyTracker, report: Report) -> None:
    """Store a report with the study's run: pictures and pages as artifacts, the note as its description.

    The page with interactive charts is kept in a local store only.

    Raises: UserError if MLflow cannot be reached or refuses.
    """
    tracker.note(report.note)
    tracker.log_metrics(report.columns)
    tracker.tag({"rlhpo.state": report.state})
    tracker.log_artifact_bytes("report.html", report.html.encode())
    tracker.log_figures(report.figures)
    # Its script is 5 MB, and what stands before a server often takes 1 MB; `rlhpo report --html` writes the page anew.
    if not is_server(tracker.connection.uri):
        tracker.log_artifact_bytes("interactive.html", report.interactive.encode())
