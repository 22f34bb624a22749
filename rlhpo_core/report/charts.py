"""The pictures of a study as interactive charts (plotly), for a page that needs nothing else.

Each is a fragment of HTML for the place of the PNG of the same name. Plotly's script, about 5 MB, goes
into a page once. Parallel coordinates stay a picture: plotly draws them by WebGL, which many browsers refuse.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from rlhpo_core.evaluators.protocol import Baseline
from rlhpo_core.report.plotting import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MAX_AXES,
    PALE,
    PURPLE,
    SKY,
    VERMILION,
    drawable,
    lane_and_limits,
    lane_needed,
    levels_of,
    number_of,
    reached_by,
    shown_range,
    values_of,
)
from rlhpo_core.report.sensitivity import Sensitivity, by_importance
from rlhpo_core.space.parameters import Float, Int
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, RoundSummary, Trial, sign

_COLUMNS = 4
_SCALE = "Cividis_r"


def script() -> str:
    """The HTML element that holds Plotly itself, about 5 MB; the charts of a page need it once."""
    return f"<script>{get_plotlyjs()}</script>"


def charts(
    spec: StudySpec,
    history: History,
    summaries: Sequence[RoundSummary],
    sensitivity: Sensitivity | None,
    baseline: Baseline | None = None,
) -> dict[str, str]:
    """The charts of a study by the name, as in ``figures.CAPTIONS``, of the picture that each replaces.

    Each is a fragment of HTML. Those for which there are too few trials are left out.

    Args:
        summaries: of the rounds so far, in their order
        sensitivity: as from ``analyse``; without it there is no chart of importances
        baseline: what trials have to beat, if it is known
    """
    drawn: dict[str, Callable[[], go.Figure | None]] = {
        "progress.png": lambda: _progress(spec, history, baseline),
        "importance.png": lambda: _importance(sensitivity),
        "slices.png": lambda: _slices(spec, history, sensitivity),
        "predicted_vs_real.png": lambda: _predicted(spec, history),
        "learning.png": lambda: _learning(summaries),
        "curves.png": lambda: _curves(spec, history),
    }
    made = {name: make() for name, make in drawn.items()}
    return {name: _fragment(name, figure) for name, figure in made.items() if figure is not None}


def _fragment(name: str, figure: go.Figure) -> str:
    figure.update_layout(
        template="plotly_white", hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        margin={"l": 70, "r": 30, "t": 50, "b": 50}, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )  # fmt: skip
    identity = "chart-" + name.removesuffix(".png").replace("_", "-")
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=identity, config={"displaylogo": False, "responsive": True}
    )
    return text


def _progress(spec: StudySpec, history: History, baseline: Baseline | None = None) -> go.Figure | None:
    trials = [trial for trial in history.complete() if trial.value is not None]
    if not trials:
        return None
    figure = go.Figure()
    figure.add_scatter(
        x=[number_of(trial) for trial in trials], y=values_of(trials), mode="markers", name="trials",
        marker={"color": SKY, "line": {"color": BLUE, "width": 1}, "size": 8}, text=[_about(t) for t in trials],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[number_of(trial) for trial in history.trials], y=drawable(history.best_so_far()), mode="lines",
        line={"shape": "hv", "color": VERMILION, "width": 2}, name="best so far",
        hovertemplate="best after %{x}: %{y:.6g}<extra></extra>",
    )  # fmt: skip
    lost = [trial for trial in history.trials if trial.value is None and trial.stop is None]
    stopped = [trial for trial in history.trials if trial.stop is not None and trial.stop.value is not None]
    window = shown_range(values_of(trials), history.direction)
    levels, window = levels_of(baseline, window, history.direction)
    lane, limits = lane_and_limits(window, history.direction == "maximize", lane_needed(history.trials, window))
    if stopped:
        figure.add_scatter(
            x=[number_of(trial) for trial in stopped], y=np.clip(reached_by(stopped), *window), mode="markers",
            name="stopped early", marker={"symbol": "diamond-open", "color": GREEN, "size": 8},
            text=[_about(t) for t in stopped], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    if lost:
        figure.add_scatter(
            x=[number_of(trial) for trial in lost], y=[lane] * len(lost), mode="markers", name="no score",
            marker={"symbol": "x", "color": PURPLE}, text=[_about(t) for t in lost],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    numbers = [number_of(trial) for trial in history.trials]
    margin = 0.02 * (numbers[-1] - numbers[0]) or 0.5
    ends = (numbers[0] - margin, numbers[-1] + margin)
    for level, dash in zip(levels, ("dash", "dot"), strict=False):
        figure.add_scatter(
            x=ends, y=[level.value if level.shown else None] * 2, mode="lines", name=_text(level.name, 60),
            line={"color": GREY, "dash": dash, "width": 1.5}, hovertemplate="%{fullData.name}<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(title=_metric(spec), range=limits)
    figure.update_xaxes(title="trial", range=ends)
    return figure


def _importance(sensitivity: Sensitivity | None) -> go.Figure | None:
    if sensitivity is None or not sensitivity.importances:
        return None
    shown = list(reversed(sensitivity.importances[:MAX_AXES]))
    names = [_text(i.name) for i in shown]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=[i.total for i in shown], orientation="h", name="with interactions", marker_color=SKY,
        error_x={"array": [i.total_std for i in shown], "color": INK, "thickness": 1},
    )  # fmt: skip
    figure.add_bar(y=names, x=[i.first for i in shown], orientation="h", name="alone", marker_color=BLUE, width=0.35)
    figure.update_layout(barmode="overlay", height=140 + 26 * len(shown))
    figure.update_xaxes(title="share of the variance (Sobol index)", rangemode="tozero")
    figure.update_yaxes(automargin=True)
    return figure


def _slices(spec: StudySpec, history: History, sensitivity: Sensitivity | None) -> go.Figure | None:
    trials = [trial for trial in history.complete() if trial.value is not None]
    steps = by_importance(spec.space, sensitivity)[:MAX_AXES]
    if len(trials) < 3 or not steps:
        return None
    columns = min(len(steps), _COLUMNS)
    rows = math.ceil(len(steps) / columns)
    figure = make_subplots(
        rows, columns, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.5 / max(rows, 2) / 1.6,
        subplot_titles=[_text(step.name, 22) for step in steps],
    )  # fmt: skip
    window, best = shown_range(values_of(trials), history.direction), history.best()
    for position, step in enumerate(steps):
        active = [trial for trial in trials if step.name in trial.config]
        row, column = position // columns + 1, position % columns + 1
        figure.add_scatter(
            x=[trial.config[step.name] if isinstance(step, Float | Int) else _text(trial.config[step.name])
               for trial in active],
            y=values_of(active), mode="markers", showlegend=False, row=row, col=column,
            marker={"color": [number_of(t) for t in active], "colorscale": _SCALE, "size": 7,
                    "line": {"width": [2.5 if t == best else 0.5 for t in active],
                             "color": [VERMILION if t == best else "white" for t in active]}},
            text=[_about(t) for t in active], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
        if isinstance(step, Float | Int) and step.log:
            figure.update_xaxes(type="log", row=row, col=column, nticks=4)
    figure.update_yaxes(range=window)
    figure.update_annotations(font_size=12)
    figure.update_layout(height=120 + 220 * rows)
    return figure


def _predicted(spec: StudySpec, history: History) -> go.Figure | None:
    trials = [t for t in history.complete() if t.value is not None and t.proposal.predicted is not None]
    if len(trials) < 3:
        return None
    real = values_of(trials)
    guess = sign(history.direction) * drawable([trial.proposal.predicted for trial in trials])
    spread = drawable([t.proposal.predicted_std or 0.0 for t in trials])
    window = shown_range(real, history.direction)
    # As in the picture: measured to the right, predicted upwards, with a margin for what is off the scale.
    margin = 0.06 * (window[1] - window[0])
    limits = (window[0] - margin, window[1] + margin)
    figure = go.Figure()
    figure.add_scatter(x=window, y=window, mode="lines", line={"color": GREY, "dash": "dot"}, showlegend=False)
    figure.add_scatter(
        x=np.clip(real, *limits), y=np.clip(guess, *limits), mode="markers", name="trials",
        error_y={"array": spread, "color": PALE, "thickness": 1}, marker={"color": GREEN, "size": 8},
        text=[_about(t) for t in trials], hovertemplate="%{text}<extra></extra>", showlegend=False,
    )  # fmt: skip
    figure.update_xaxes(title=f"measured {_metric(spec)}", range=limits)
    figure.update_yaxes(title=f"predicted {_metric(spec)}, ± one standard deviation", range=limits)
    return figure


def _learning(summaries: Sequence[RoundSummary]) -> go.Figure | None:
    if not summaries:
        return None
    shown = (
        ("R² of the model on held-out trials", "model_r2", BLUE),
        ("KL of the model phase, nats per step", "kl", VERMILION),
        ("imagined updates", "imagined_updates", GREEN),
        ("entropy, nats per step", "entropy", PURPLE),
    )
    figure = make_subplots(
        len(shown), 1, shared_xaxes=True, vertical_spacing=0.06, subplot_titles=[s[0] for s in shown]
    )
    for row, (_, name, colour) in enumerate(shown, start=1):
        values = drawable([getattr(summary, name) for summary in summaries])
        if name == "model_r2":
            values = np.clip(values, -1.0, 1.0)
        figure.add_scatter(
            x=[summary.round + 1 for summary in summaries], y=values, mode="lines+markers", line={"color": colour},
            showlegend=False, row=row, col=1,
        )  # fmt: skip
    figure.update_xaxes(title="round", row=len(shown), col=1)
    figure.update_annotations(font_size=12)
    figure.update_layout(height=160 * len(shown) + 80)
    return figure


def _curves(spec: StudySpec, history: History) -> go.Figure | None:
    """All curves of a kind are one trace with gaps: plotly is slow with hundreds of traces."""
    trials = [trial for trial in history.trials if trial.curve]
    if not trials:
        return None
    best = history.best()
    kinds = (
        ("complete", GREY, [t for t in trials if t.stop is None and t.value is not None and t != best]),
        ("without a score", VERMILION, [t for t in trials if t.stop is None and t.value is None]),
        ("stopped early", GREEN, [t for t in trials if t.stop is not None]),
        ("best", BLUE, [t for t in trials if t == best]),
    )
    figure = go.Figure()
    for name, colour, of in kinds:
        if not of:
            continue
        points = [(step, value, number_of(t)) for t in of for step, value in [*(t.curve or ()), (None, None)]]
        figure.add_scatter(
            x=[step for step, _, _ in points], y=drawable([value for _, value, _ in points]), mode="lines",
            line={"color": colour, "width": 3 if name == "best" else 1}, opacity=1.0 if name == "best" else 0.6,
            name=f"{name} ({len(of)})", legendgroup=name, customdata=[number for _, _, number in points],
            hovertemplate="trial %{customdata}, %{x}: %{y:.6g}<extra></extra>",
        )  # fmt: skip
        if name == "stopped early":
            ends = [t.curve[-1] for t in of if t.curve]
            figure.add_scatter(
                x=[step for step, _ in ends], y=drawable([value for _, value in ends]), mode="markers",
                marker={"symbol": "diamond", "color": colour, "size": 9}, legendgroup=name, showlegend=False,
                text=[f"{_about(t)}<br>{_text(t.stop.reason if t.stop else '', 200)}" for t in of],
                hovertemplate="%{text}<extra></extra>",
            )  # fmt: skip
    every = drawable([value for trial in trials for _, value in trial.curve or ()])
    figure.update_yaxes(title=_metric(spec), range=shown_range(every, history.direction))
    figure.update_xaxes(title=spec.evaluator.step_name)
    return figure


# -- what they share -------------------------------------------------------------------------------------------------


def _about(trial: Trial) -> str:
    value = trial.status.value if trial.value is None else f"{trial.value:.6g}"
    config = "<br>".join(
        f"{_text(name)} = {f'{v:.4g}' if isinstance(v, float) else _text(v)}" for name, v in trial.config.items()
    )
    return f"trial {number_of(trial)}: {value}<br>{config}"


def _metric(spec: StudySpec) -> str:
    better = "higher" if spec.objective.direction == "maximize" else "lower"
    return f"{_text(spec.objective.metric, 32)} ({better} is better)"


def _text(text: object, length: int = 40) -> str:
    """Shown literally: plotly takes tags in labels for markup."""
    line = " ".join(str(text).split())
    return html.escape(line if len(line) <= length else line[: length - 1] + "…")
