"""A study in words: the Markdown note of its run in MLflow, and a page of HTML that needs nothing else.

What users wrote (names, choices, error texts) is data here and is escaped wherever it goes.
"""

from __future__ import annotations

import base64
import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rlhpo_core import __version__
from rlhpo_core.report import markdown
from rlhpo_core.report.causes import count_causes
from rlhpo_core.report.figures import CAPTIONS, POOR_R2
from rlhpo_core.report.plotting import formatted, number_of
from rlhpo_core.report.sensitivity import MIN_TRIALS, Sensitivity, analyse
from rlhpo_core.stopping.saved import Saved, duration
from rlhpo_core.study.budget import cost
from rlhpo_core.study.spec import BudgetSpec, StudySpec
from rlhpo_core.trial import Config, History, RoundSummary, Trial, TrialStatus

#: In place of importances, where there is nothing to divide between hyperparameters.
_HELD_BACK = (
    "Held back: the trials' scores differ by no more than noise, as a model of them predicts left-out ones no better "
    "than their mean. Widen the ranges, or take more rows to score trials on."
)
_MOST_ROWS = 40
_MOST_CAUSES = 5


@dataclass(frozen=True)
class Ending:
    """What is known about a study beyond its trials; all of it may be missing while it runs."""

    reason: str | None = None
    """Why it ended."""
    seconds: float | None = None
    """Wall time spent tuning."""
    holdout: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the refitted winner on the rows that no trial has seen."""
    registered: str | None = None
    """The registered model and its version (``churn version 3``), or why nothing was registered."""
    decision: str | None = None
    """What became of it at the gate, and why."""
    baseline: str | None = None
    """What trials have to beat, in a line."""
    warning: str | None = None
    """Why the winner is of no use, if it is not."""


def study_note(
    spec: StudySpec,
    history: History,
    summaries: Sequence[RoundSummary],
    ending: Ending | None = None,
    sensitivity: Sensitivity | None = None,
) -> str:
    """Markdown for the parent run, shorter than the 8000 characters that MLflow keeps of a tag.

    Args:
        summaries: of the rounds so far, in their order
        ending: what is known beyond the trials; nothing, if it is not given
        sensitivity: as from ``analyse``, which is called if it is not given
    """
    ending, best = ending or Ending(), history.best()
    sensitivity = sensitivity or analyse(spec, history)
    title = markdown.escaped(_short(spec.name))
    # MLflow shows the first lines of a note before it is unfolded: what came of the study stands there.
    facts = [fact for fact in _facts(spec, history, summaries, ending) if fact[0] != "decision"]
    parts = [f"# {title}", _outcome(spec, history, ending), _note_table(("", ""), facts)]
    if best is not None:
        rows = [(name, f"{value!r}" if isinstance(value, str) else f"{value}") for name, value in best.config.items()]
        parts += [f"## Best configuration (trial {number_of(best)})", _note_table(("hyperparameter", "value"), rows)]
    if ending.holdout:
        rows = [(name, _value(value)) for name, value in ending.holdout.items()]
        parts += ["## Winner on the holdout", _note_table(("metric", "value"), rows)]
    causes = _failures(history)
    if causes:
        parts += ["## Failures", _note_table(("trials", "status", "cause"), causes)]
    if sensitivity is not None:
        importances = [
            (i.name, f"{i.first:.2f}", f"{i.total:.2f} ± {i.total_std:.2f}") for i in sensitivity.importances[:10]
        ]
        header = ("hyperparameter", "alone", "with interactions")
        parts += ["## What matters", _trust(sensitivity), _note_table(header, importances)]
    elif len(list(history.complete())) >= MIN_TRIALS and len(spec.space.steps) > 1:
        parts += ["## What matters", _HELD_BACK]
    parts += ["## How to reproduce", _how_to_reproduce(spec)]
    note = "\n\n".join(parts) + "\n"
    return note if len(note) <= 7900 else note[:7900].rsplit("\n", 1)[0] + "\n\n(cut short)\n"


def html_report(
    spec: StudySpec,
    history: History,
    summaries: Sequence[RoundSummary],
    pngs: Mapping[str, bytes],
    ending: Ending | None = None,
    charts: Mapping[str, str] | None = None,
    script: str = "",
) -> str:
    """One page with everything in it, and no address outside.

    Args:
        summaries: of the rounds so far, in their order
        pngs: name to PNG, as from ``figures``
        ending: what is known beyond the trials; nothing, if it is not given
        charts: as from ``charts.charts``; they take the place of the pictures of the same name and need ``script``.
            Without them the page has no script at all.
        script: as from ``charts.script``
    """
    charts = charts or {}
    ending, best, causes = ending or Ending(), history.best(), _failures(history)
    order = [name for name in CAPTIONS if name in pngs] + sorted(set(pngs) - set(CAPTIONS))
    rows = _facts(spec, history, summaries, ending)
    rows += [(f"holdout {name}", _value(value)) for name, value in ending.holdout.items()]
    sections = [
        f"<h1>{_h(spec.name)}</h1>",
        _html_table((), rows, "facts"),
        *(_html_chart(name, charts[name]) if name in charts else _html_picture(name, pngs[name]) for name in order),
        "<h2>Failures</h2>" + _html_table(("trials", "status", "cause"), causes) if causes else "",
        "<h2>Trials</h2>",
        _html_trials(history, best),
        f"<footer>{_h(_how_to_reproduce(spec).replace('`', ''))}</footer>",
    ]
    policy = "; script-src 'unsafe-inline'" if charts else ""
    if charts:
        sections.append(_SORT)
    body = "\n".join(filter(None, sections))
    return _PAGE.format(title=_h(spec.name), policy=policy, script=script if charts else "", body=body)


# -- facts, as plain text --------------------------------------------------------------------------------------------


def _facts(
    spec: StudySpec, history: History, summaries: Sequence[RoundSummary], ending: Ending
) -> list[tuple[str, str]]:
    best, objective = history.best(), spec.objective
    space = f"{len(spec.space.steps)} hyperparameters of {spec.evaluator.describe()}"
    on = f", on {spec.data.path.name}" if spec.data is not None else ""
    best_value = "none: no trial has completed"
    if best is not None and best.value is not None:
        best_value = f"{objective.metric} {_value(best.value)} in trial {number_of(best)}"
    facts = [("tuned", space + on), ("objective", f"{objective.direction} {objective.metric}"), ("best", best_value)]
    if ending.baseline is not None:
        facts += [("to beat", ending.baseline)]
    facts += [("budget used", _budget_used(spec.budget, history, ending.seconds))]
    if (went := _where_the_time_went(history, ending.seconds)) is not None:
        facts += [("where the time went", went)]
    if (saved := Saved.of(history)) is not None:
        facts += [("stopped early", saved.described())]
    if ending.reason is not None:
        facts += [("ended because", ending.reason)]
    facts += [("reward model", _model_quality(spec, summaries))]
    if ending.warning is not None:
        facts += [("warning", ending.warning)]
    if ending.registered is not None:
        facts += [("registry", ending.registered)]
    if ending.decision is not None:
        facts += [("decision", ending.decision)]
    return facts


def _outcome(spec: StudySpec, history: History, ending: Ending) -> str:
    """What came of it, in one line of Markdown: the gate's decision, or the best so far and the winner."""
    best, metric = history.best(), markdown.escaped(spec.objective.metric)
    if ending.decision is not None:
        return f"**Decision:** {markdown.escaped(_short(ending.decision, 300))}"
    if best is None or best.value is None:
        return f"**No trial of {len(history)} has a score yet.**"
    words = [f"**Best {metric} {_value(best.value)}** in trial {number_of(best)} of {len(history)}"]
    if spec.objective.metric in ending.holdout:
        words.append(f"{_value(ending.holdout[spec.objective.metric])} on the holdout")
    if ending.registered is not None:
        words.append(f"registered as {markdown.escaped(_short(ending.registered))}")
    return ", ".join(words) + "."


def _budget_used(budget: BudgetSpec, history: History, seconds: float | None) -> str:
    """Trials, times and cost against their limits. ``seconds`` is the wall time spent tuning, if it is known."""
    counts = Counter(trial.status for trial in history.trials)
    statuses = ", ".join(f"{counts[status]} {status}" for status in TrialStatus if counts[status])
    used = f"{len(history)} of {budget.trials} trials" + (f" ({statuses})" if statuses else "")
    if seconds is not None:
        limit = f" of {duration(budget.wall_time.total_seconds())}" if budget.wall_time is not None else ""
        used += f"; wall time {duration(seconds)}{limit}"
    if history.trials:
        used += f"; trial time {duration(sum(trial.seconds for trial in history.trials))}"
    if budget.cost is not None:
        used += f"; cost {cost(budget, history):.4g} of {budget.cost.limit:g}"
    return used


def _where_the_time_went(history: History, seconds: float | None) -> str | None:
    """How much of the wall time at least one trial ran, and how much went between them; ``None`` if it is not known."""
    spans = sorted((trial.started_at, trial.started_at + trial.seconds) for trial in history.trials if trial.started_at)
    if not spans or not seconds:
        return None
    busy, end = 0.0, -math.inf
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    busy = min(busy, seconds)
    at_once = sum(trial.seconds for trial in history.trials) / busy if busy > 0 else 0.0
    slowest = max(history.trials, key=lambda trial: trial.seconds)
    return (
        f"{duration(busy)} ({100 * busy / seconds:.0f} %) in trials, {at_once:.1f} at a time; "
        f"{duration(seconds - busy)} between them (proposing, starting workers, MLflow); the longest trial, "
        f"{number_of(slowest)}, took {duration(slowest.seconds)}"
    )


def _model_quality(spec: StudySpec, summaries: Sequence[RoundSummary]) -> str:
    if spec.tuner.mode != "mbrl_sdp":
        return f"none in mode {spec.tuner.mode}"
    known = [summary for summary in summaries if summary.model_r2 is not None]
    if not known or (last := known[-1]).model_r2 is None:
        return "none yet: too few trials"
    text = f"{spec.tuner.model.kind}, R² {formatted(last.model_r2)} on held-out trials"
    if last.model_rank_correlation is not None:
        text += f", rank correlation {formatted(last.model_rank_correlation)}"
    if last.model_coverage is not None:
        text += f", {100 * last.model_coverage:.0f} % of scores inside its 80 % intervals"
    ran = sum(summary.model_phase == "ran" for summary in summaries)
    return f"{text}; it steered the policy in {ran} of {len(summaries)} rounds"


def _failures(history: History) -> list[tuple[str, str, str]]:
    """Trials that failed, by cause: number, status and cause; the commonest first."""
    failed = (trial for trial in history.trials if trial.status in (TrialStatus.FAILED, TrialStatus.INFEASIBLE))
    causes = count_causes(failed)
    rows = [(str(count), str(status), _short(cause)) for (status, cause), count in causes.most_common(_MOST_CAUSES)]
    rest = causes.total() - sum(int(row[0]) for row in rows)
    return [*rows, (str(rest), "", "other causes")] if rest else rows


def _how_to_reproduce(spec: StudySpec) -> str:
    return (
        f"`rlhpo tune` with this study's file, rlhpo {__version__} and seed {spec.seed} proposes the same trials "
        "on one kind of machine, as long as each training run scores the same again; on others, the same first round."
    )


def _trust(sensitivity: Sensitivity) -> str:
    text = f"Shares of the variance (Sobol indices) by a model of {sensitivity.trials} trials with R² "
    poor = ". It predicts poorly: take this as a hint" if sensitivity.r2 < POOR_R2 else ""
    return f"{text}{formatted(sensitivity.r2)} on left-out ones{poor}."


def _value(value: float) -> str:
    return f"{value:.6g}"


def _short(text: str, length: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


# -- Markdown --------------------------------------------------------------------------------------------------------


def _note_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells and rows that are too many are cut short: MLflow keeps 8000 characters."""
    shown = [[_short(cell) for cell in row] for row in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        shown.append([f"and {len(rows) - _MOST_ROWS} more", *[""] * (len(header) - 1)])
    return markdown.table(header, shown)


# -- HTML ------------------------------------------------------------------------------------------------------------


def _h(text: object) -> str:
    return html.escape(str(text), quote=True)


def _html_table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    head = "<thead><tr>" + "".join(f"<th>{_h(cell)}</th>" for cell in header) + "</tr></thead>" if header else ""
    body = "".join("<tr>" + "".join(f"<td>{_h(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table class="{kind}">{head}<tbody>{body}</tbody></table></div>'


def _html_picture(name: str, png: bytes) -> str:
    caption, data = CAPTIONS.get(name, name), base64.b64encode(png).decode("ascii")
    return (
        f'<figure><div class="wide"><img alt="{_h(name)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{_h(caption)}</figcaption></figure>"
    )


def _html_chart(name: str, chart: str) -> str:
    return f'<figure><div class="wide">{chart}</div><figcaption>{_h(CAPTIONS.get(name, name))}</figcaption></figure>'


def _html_trials(history: History, best: Trial | None) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("trial", "status", "value", "seconds", "configuration", "why"))
    rows = []
    for trial in history.trials:
        mark = ' class="best"' if best is not None and trial.trial_id == best.trial_id else ""
        rows.append(
            f"<tr{mark}><td>{number_of(trial)}</td><td>{_h(trial.status)}</td>"
            f"<td>{'' if trial.value is None else _value(trial.value)}</td><td>{trial.seconds:.1f}</td>"
            f"<td><code>{_h(_config(trial.config))}</code></td><td>{_html_error(trial)}</td></tr>"
        )
    body = "\n".join(rows)
    return f'<div class="wide"><table class="trials"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _config(config: Config) -> str:
    return ", ".join(f"{name}={_value(v) if isinstance(v, float) else v}" for name, v in config.items())


def _html_error(trial: Trial) -> str:
    """The last line of the error, and the whole text unfolds; or why the trial was stopped early."""
    if trial.stop is not None:
        return _h(trial.stop.reason)
    text = (trial.error or "").strip()
    if trial.cause is None or trial.cause == text:
        return _h(text)
    return f"<details><summary>{_h(_short(trial.cause))}</summary><pre>{_h(text)}</pre></details>"


#: Sorts the table of trials by the column whose head is clicked; on the page that has a script anyway.
_SORT = """<script>
document.querySelectorAll("table.trials th").forEach((head, column) => {
  head.title = "sort by this column"; head.style.cursor = "pointer";
  head.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0], up = head.dataset.up !== "yes";
    const key = row => { const text = row.cells[column].textContent.trim(), number = Number(text);
      return text === "" ? null : Number.isNaN(number) ? text : number; };
    const rows = [...body.rows].sort((a, b) => { const x = key(a), y = key(b);
      if (x === null || y === null) return (x === null) - (y === null);
      const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return up ? order : -order; });
    head.dataset.up = up ? "yes" : "no"; body.append(...rows);
  });
});
</script>"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'{policy}">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff }}
body {{ max-width: 70rem; margin: auto; padding: 1rem }}
h1 {{ font-size: 1.5rem; overflow-wrap: anywhere }}
h2 {{ font-size: 1.15rem; margin-top: 2rem }}
table {{ border-collapse: collapse; font-size: .85rem }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #e3e3e3 }}
.facts td:first-child {{ color: #666; white-space: nowrap }}
.wide {{ overflow-x: auto }}
.best td {{ background: #eaf4fb; font-weight: 600 }}
figure {{ margin: 1.5rem 0 }}
img {{ max-width: 100%; height: auto }}
figcaption, footer {{ color: #555; font-size: .9rem }}
footer {{ margin-top: 2rem }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere }}
@media (max-width: 40rem) {{ img {{ max-width: none; height: 17rem }} }}
</style>
{script}
</head>
<body>
{body}
</body>
</html>
"""
