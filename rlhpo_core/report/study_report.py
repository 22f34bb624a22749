"""The report of a study, from its files: a page, a note and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlhpo_core.report import charts, page
from rlhpo_core.report.figures import figures as draw_figures
from rlhpo_core.report.sensitivity import analyse
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import History


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


def make_report(files: StudyFiles, spec: StudySpec) -> Report:
    """The report of a study as far as it has come."""
    history, summaries = files.history(), files.state().summaries
    record = files.record()
    ending = page.Ending(
        reason=spent(spec.budget, history, record.seconds),
        seconds=record.seconds,
        holdout=record.winner.holdout if record.winner is not None else {},
        registered=record.winner.registered if record.winner is not None else None,
        decision=record.decision,
    )
    sensitivity = analyse(spec, history)
    figures = draw_figures(spec, history, summaries, sensitivity)
    drawn = charts.charts(spec, history, summaries, sensitivity)
    return Report(
        html=page.html_report(spec, history, summaries, figures, ending),
        interactive=page.html_report(spec, history, summaries, figures, ending, drawn, charts.script()),
        note=page.study_note(spec, history, summaries, ending, sensitivity),
        figures=figures,
    )


def log_report(tracker: StudyTracker, found: Report) -> None:
    """Put a report beside the study's run. Raises: UserError if MLflow is away."""
    tracker.log_figures(found.figures)
    tracker.log_artifact_bytes("report.html", found.html.encode())
    tracker.log_artifact_bytes("interactive.html", found.interactive.encode())
    tracker.note(found.note)


def failure_report(history: History) -> str:
    """The commonest errors of a study in which no trial succeeded."""
    causes = page.count_causes(history.trials).most_common(5)
    lines = [f"  {count} × {cause}" for (_, cause), count in causes]
    return f"none of the {len(history)} trials succeeded:\n" + "\n".join(lines)
