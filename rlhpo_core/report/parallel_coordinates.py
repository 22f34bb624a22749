"""The parallel-coordinates picture: one axis per hyperparameter, one line per trial (Inselberg 1985)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from rlhpo_core.arrays import Floats
from rlhpo_core.report.plotting import (
    GREY,
    INK,
    MAX_AXES,
    SCALE,
    VERMILION,
    canvas,
    metric_name,
    plain,
    shown_range,
    style,
    values_of,
)
from rlhpo_core.report.sensitivity import Sensitivity
from rlhpo_core.space.parameters import Float, Int, Tunable
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Direction, History, Trial

#: Height, below all axes, at which a line passes where its trial has no value.
_LANE = -0.14
_MOST_TICKS = 16


def parallel_coordinates(spec: StudySpec, history: History, sensitivity: Sensitivity | None) -> Figure | None:
    """Complete trials coloured by value, the best tenth thick; trials without a value dotted. ``None`` below two.

    A space of more hyperparameters than fit is cut to the most important.
    """
    complete = [trial for trial in history.complete() if trial.value is not None]
    if len(complete) < 2:
        return None
    # Of equals the earliest comes last and lies on top: it is the best everywhere.
    worst_first = list(reversed(history.ranked()))
    without = [t for t in history.trials if t.value is None]
    trials = [*without, *worst_first]
    steps = _axes_to_show(spec, sensitivity)
    window = shown_range(values_of(complete), history.direction)
    goodness = np.clip((values_of(trials) - window[0]) / (window[1] - window[0]), 0, 1)
    goodness = goodness if history.direction == "maximize" else 1 - goodness
    heights = np.column_stack([_heights(spec, steps, trials), np.where(np.isnan(goodness), _LANE, goodness)])
    figure = canvas(max(7.0, 0.95 * heights.shape[1] + 1), 4.6)
    ax = figure.subplots()
    lines = [np.column_stack([np.arange(heights.shape[1]), row]) for row in heights]
    failed = lines[: len(without)]
    ax.add_collection(LineCollection(failed, colors=VERMILION, linewidths=0.6, linestyles=":", alpha=0.6))
    top = max(1, round(0.1 * len(complete)))
    colours = SCALE(goodness[len(without) :])
    rest, best = lines[len(without) : -top], lines[-top:]
    alpha = float(np.clip(25 / max(len(rest), 1), 0.15, 0.6))
    ax.add_collection(LineCollection(rest, colors=colours[:-top], linewidths=0.8, alpha=alpha))
    ax.add_collection(LineCollection(best, colors=colours[-top:], linewidths=1.8 if top <= 15 else 1.2, zorder=3))
    for position, step in enumerate(steps):
        _draw_axis(ax, position, *_ticks(step))
    _draw_axis(ax, len(steps), *_objective_ticks(window, history.direction))
    bar = np.linspace(0, 1, 128)[:, None]
    right = len(steps)
    ax.imshow(bar, extent=(right + 0.02, right + 0.09, 0, 1), aspect="auto", cmap=SCALE, origin="lower", zorder=2)
    names = [plain(s.name, 20) + (" (log)" if isinstance(s, Float | Int) and s.log else "") for s in steps]
    ax.xaxis.tick_top()
    ax.set_xticks(range(right + 1), [*names, metric_name(spec)])
    conditional, missing = bool((heights[:, :-1] < -0.05).any()), bool(without)
    ax.set_yticks([])
    if conditional or missing:
        ax.axhline(_LANE, color=GREY, linewidth=0.6, linestyle=(0, (4, 4)), zorder=0)
        ax.set_yticks([_LANE], ["\n".join(["inactive"] * conditional + ["no score"] * missing)])
    ax.set_xlim(-0.45, right + 0.15)
    ax.set_ylim(_LANE - 0.05 if conditional or missing else -0.04, 1.04)
    title = "The best trial is drawn thick"
    if top > 1:
        title = f"The best {top} of {len(complete)} trials are drawn thick: where they meet, good values lie"
    count = len(spec.space.steps)
    style(ax, title, "", "", f"{len(steps)} of {count} hyperparameters" if len(steps) < count else "")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(axis="both", length=0)
    ax.tick_params(axis="x", labelrotation=20)
    for label in ax.get_xticklabels():
        label.set_horizontalalignment("left")
        label.set_rotation_mode("anchor")
    return figure


def _axes_to_show(spec: StudySpec, sensitivity: Sensitivity | None) -> list[Tunable]:
    """All steps in their order; the most important ones if they are too many to read."""
    steps = list(spec.space.steps)
    if len(steps) <= MAX_AXES:
        return steps
    names = [i.name for i in sensitivity.importances] if sensitivity else [step.name for step in steps]
    return [step for step in steps if step.name in names[:MAX_AXES]]


def _heights(spec: StudySpec, steps: Sequence[Tunable], trials: Sequence[Trial]) -> Floats:
    """Where each trial crosses each axis, (N, axes) in [0, 1], or about _LANE where inactive.

    Trials that share a choice are fanned out a little, in the order in which they are given.
    """
    everything = (spec.space.encode([trial.config for trial in trials]) + 1) / 2
    order = [step.name for step in spec.space.steps]
    heights = everything[:, [order.index(step.name) for step in steps]]
    fan = np.linspace(-0.5, 0.5, len(trials))
    for column, step in enumerate(steps):
        if not isinstance(step, Float | Int):
            heights[:, column] += fan * min(0.5 / len(step.values), 0.12)
    return np.where(np.isnan(heights), _LANE + 0.04 * fan[:, None], heights)


def _ticks(step: Tunable) -> tuple[list[float], list[str]]:
    """Heights and labels of an axis: every choice, or both ends of a range and some round numbers between them."""
    if not isinstance(step, Float | Int):
        count = len(step.values)
        shown = range(0, count, -(-count // _MOST_TICKS))
        return [(i + 0.5) / count for i in shown], [plain(step.values[i], 12) for i in shown]
    locator = LogLocator(numticks=5) if step.log else MaxNLocator(4, integer=isinstance(step, Int))
    inner = np.array([v for v in locator.tick_values(step.low, step.high) if step.low < v < step.high])
    heights = [(float(a) + 1) / 2 for a in step.actions(inner)] if len(inner) else []
    clear = [(h, v) for h, v in zip(heights, inner, strict=True) if 0.1 < h < 0.9]
    return [0.0, *(h for h, _ in clear), 1.0], [_short(v) for v in (step.low, *(v for _, v in clear), step.high)]


def _objective_ticks(window: tuple[float, float], direction: Direction) -> tuple[list[float], list[str]]:
    """The better end is up."""
    low, high = window
    values = [v for v in MaxNLocator(5).tick_values(low, high) if low <= v <= high]
    shares = [(v - low) / (high - low) for v in values]
    return [s if direction == "maximize" else 1 - s for s in shares], [f"{v:.6g}".replace("-", "−") for v in values]


def _short(value: float) -> str:
    text = f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e5 else f"{value:.3g}"
    return text.replace("-", "−")


def _draw_axis(ax: Axes, position: int, heights: Sequence[float], labels: Sequence[str]) -> None:
    ax.plot([position, position], [0, 1], color=INK, linewidth=0.9, zorder=4)
    ax.scatter([position] * len(heights), heights, marker="_", s=30, color=INK, linewidths=0.9, zorder=4)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "boxstyle": "square,pad=0.12"}
    for height, label in zip(heights, labels, strict=True):
        ax.text(position - 0.06, height, label, ha="right", va="center", fontsize=7, color=INK, bbox=box, zorder=5)
