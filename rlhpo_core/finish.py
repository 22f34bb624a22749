"""The end of a study: its winner, refitted, scored on the holdout and registered, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlhpo_core import charts, registry, report
from rlhpo_core.budget import spent
from rlhpo_core.evaluators.protocol import Evaluator
from rlhpo_core.study import StudySpec
from rlhpo_core.study_files import StudyFiles, Winner
from rlhpo_core.tracking import StudyTracker
from rlhpo_core.trial import History, Trial


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


def crown(
    files: StudyFiles, spec: StudySpec, evaluator: Evaluator, tracker: StudyTracker, best: Trial
) -> Winner | None:
    """Refit the best trial, score it once on the holdout and register it; what was done before is not done again."""
    record = files.record()
    winner = record.winner if record.winner is not None and record.winner.trial_id == best.trial_id else None
    wanted = spec.registry.model
    if winner is not None and (wanted is None or winner.registered is not None):
        return winner
    refit = evaluator.refit(best.config)
    if refit is None:
        return None
    # The holdout's score is written down before MLflow is asked: it is to be taken once.
    winner = winner or Winner(trial_id=best.trial_id, holdout=dict(refit.metrics))
    files.write_record(files.record().model_copy(update={"winner": winner}))
    if wanted is None:
        tracker.log_metrics({f"holdout.{name}": value for name, value in winner.holdout.items()})
    else:
        registered = registry.register(tracker, wanted, refit, best, spec, files.address)
        winner = winner.model_copy(update={"registered": f"{registered.name} version {registered.version}"})
        files.write_record(files.record().model_copy(update={"winner": winner}))
    return winner


def make_report(files: StudyFiles, spec: StudySpec) -> Report:
    """The report of a study as far as it has come."""
    history, summaries = files.history(spec), files.state(spec).summaries
    record = files.record()
    ending = report.Ending(
        reason=spent(spec.budget, history, record.seconds),
        seconds=record.seconds,
        holdout=record.winner.holdout if record.winner is not None else {},
        registered=record.winner.registered if record.winner is not None else None,
        decision=record.decision,
    )
    sensitivity = report.analyse(spec, history)
    figures = report.figures(spec, history, summaries, sensitivity)
    drawn = charts.charts(spec, history, summaries, sensitivity)
    return Report(
        html=report.html_report(spec, history, summaries, figures, ending),
        interactive=report.html_report(spec, history, summaries, figures, ending, drawn, charts.script()),
        note=report.study_note(spec, history, summaries, ending, sensitivity),
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
    errors: dict[str, int] = {}
    for trial in history.trials:
        text = (trial.error or "no reason given").strip().splitlines()[-1]
        errors[text] = errors.get(text, 0) + 1
    lines = [f"  {count} × {text}" for text, count in sorted(errors.items(), key=lambda item: -item[1])[:5]]
    return f"none of the {len(history)} trials succeeded:\n" + "\n".join(lines)
