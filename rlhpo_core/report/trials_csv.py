"""A study's trials as CSV: one row each, with a column per hyperparameter and per metric."""

from __future__ import annotations

import csv
import io
import time

from rlhpo_core.report.plotting import number_of
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, Trial, shown

_FIRST = ("trial", "round", "status", "value", "best_so_far", "seconds", "started")


def trials_csv(spec: StudySpec, history: History) -> str:
    """The trials in their order; what a trial has not is left empty.

    Hyperparameters stand under their names and further metrics under ``metric.NAME``; ``started`` is in UTC, and
    ``why`` is the last line of an error, or the reason of a stop.
    """
    names = [parameter.name for parameter in spec.space.parameters]
    metrics = sorted({name for trial in history.trials for name in trial.metrics})
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*_FIRST, *names, *(f"metric.{name}" for name in metrics), "why"])
    for trial, best in zip(history.trials, history.best_so_far(), strict=True):
        rows.writerow(
            [
                *_facts(trial, best),
                *(shown(trial.config[name]) if name in trial.config else "" for name in names),
                *(_number(trial.metrics.get(name)) for name in metrics),
                trial.stop.reason if trial.stop is not None else trial.cause or "",
            ]
        )
    return text.getvalue()


def _facts(trial: Trial, best: float | None) -> list[str]:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(trial.started_at)) if trial.started_at > 0 else ""
    return [
        str(number_of(trial)),
        str(trial.proposal.round + 1),
        str(trial.status),
        _number(trial.value),
        _number(best),
        f"{trial.seconds:.3f}",
        started,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)
