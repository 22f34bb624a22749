"""Several studies side by side: a table of what each found and spent, and their curves in one picture."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from rlhpo_core import __version__
from rlhpo_core.errors import UserError
from rlhpo_core.report.plotting import canvas, drawable, metric_label, plain, style, to_png
from rlhpo_core.stopping.saved import duration
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, TrialStatus, shown, sign

HEADER = ("study", "trials", "failed", "best", "in trial", "holdout", "wall time", "trial time", "first within 1 %")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")


@dataclass(frozen=True)
class Compared:
    """One of the studies."""

    name: str
    """Its folder, or its address."""
    spec: StudySpec
    history: History
    seconds: float
    holdout: float | None
    """The winner's objective on the rows that no trial has seen."""


@dataclass(frozen=True)
class Comparison:
    """Studies of one objective, the best first."""

    studies: tuple[Compared, ...]
    rows: tuple[tuple[str, ...], ...]
    """As ``HEADER`` has it."""
    html: str
    """One page that needs nothing else."""


def compare(studies: Sequence[tuple[str, StudyFiles]]) -> Comparison:
    """Studies by their names.

    Raises: UserError if they have different objectives, or if one cannot be read.
    """
    read = [_read(name, files) for name, files in studies]
    first = read[0].spec.objective
    for other in read[1:]:
        if other.spec.objective != first:
            raise UserError(
                f"{other.name} is judged by {other.spec.objective.metric}, and {read[0].name} by {first.metric}; "
                "only studies of one objective can be compared"
            )
    better = sign(first.direction)
    ordered = tuple(sorted(read, key=lambda one: -better * _best(one) if _best(one) is not None else math.inf))  # type: ignore[operator]
    goal = next((best for one in ordered if (best := _best(one)) is not None), None)
    rows = tuple(_row(one, goal) for one in ordered)
    return Comparison(ordered, rows, _page(ordered, rows))


def _read(name: str, files: StudyFiles) -> Compared:
    spec, record = files.spec(), files.record()
    holdout = record.winner.holdout.get(spec.objective.metric) if record.winner is not None else None
    return Compared(name, spec, files.history(), record.seconds, holdout)


def _best(study: Compared) -> float | None:
    best = study.history.best()
    return None if best is None else best.value


def _row(study: Compared, goal: float | None) -> tuple[str, ...]:
    history, best = study.history, study.history.best()
    failed = sum(trial.status in (TrialStatus.FAILED, TrialStatus.INFEASIBLE) for trial in history.trials)
    return (
        study.name,
        f"{len(history)} of {study.spec.budget.trials}",
        str(failed),
        "–" if best is None or best.value is None else f"{best.value:.6g}",
        "–" if best is None else str(best.proposal.number + 1),
        "–" if study.holdout is None else f"{study.holdout:.6g}",
        duration(study.seconds),
        duration(sum(trial.seconds for trial in history.trials)),
        _first_within(study, goal),
    )


def _first_within(study: Compared, goal: float | None) -> str:
    """After how many trials a study was within one per cent of the best of all; a dash if it never was."""
    if goal is None:
        return "–"
    better, slack = sign(study.history.direction), 0.01 * abs(goal)
    for number, value in enumerate(study.history.best_so_far(), start=1):
        if value is not None and better * value >= better * goal - slack:
            return f"trial {number}"
    return "–"


def _curves(studies: Sequence[Compared]) -> Figure:
    figure = canvas(9, 4.4)
    ax = figure.subplots()
    for position, study in enumerate(studies):
        line = drawable(study.history.best_so_far())
        colour = _COLOURS[position % len(_COLOURS)]
        ax.step(range(1, len(line) + 1), line, where="post", label=plain(study.name, 40), color=colour, linewidth=1.6)
    ends = [best for study in studies if (best := _best(study)) is not None]
    title = "The best so far" if not ends else f"{plain(studies[0].name, 40)} has found the best"
    style(ax, title, "trial", metric_label(studies[0].spec))
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    return figure


def _page(studies: Sequence[Compared], rows: Sequence[Sequence[str]]) -> str:
    picture = base64.b64encode(to_png(_curves(studies))).decode("ascii")
    names = list(dict.fromkeys(name for one in studies for name in _config(one)))
    configs = [(name, *(_config(one).get(name, "") for one in studies)) for name in names]
    parts = [
        f"<h1>{len(studies)} studies by {_h(studies[0].spec.objective.metric)}</h1>",
        _table(HEADER, rows),
        f'<figure><img alt="best so far" src="data:image/png;base64,{picture}"></figure>',
        "<h2>Best configurations</h2>",
        _table(("hyperparameter", *(one.name for one in studies)), configs),
        f"<footer>rlhpo {_h(__version__)}. Trials are not equally long: see the times.</footer>",
    ]
    return _PAGE.format(body="\n".join(parts))


def _config(study: Compared) -> dict[str, str]:
    best = study.history.best()
    config = {} if best is None else best.config
    return {name: f"{value:.6g}" if isinstance(value, float) else shown(value) for name, value in config.items()}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{_h(cell)}</th>" for cell in header) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_h(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return '<div class="wide"><table>' + "\n".join(lines) + "</table></div>"


def _h(text: object) -> str:
    return html.escape(str(text), quote=True)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Studies compared</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 70rem; margin: auto }}
body {{ padding: 1rem }}
table {{ border-collapse: collapse; font-size: .85rem }}
th, td {{ text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #e3e3e3 }}
.wide {{ overflow-x: auto }}
figure {{ margin: 1.5rem 0 }}
img {{ max-width: 100%; height: auto }}
footer {{ color: #555; font-size: .9rem; margin-top: 2rem }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
