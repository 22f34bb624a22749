"""The slices picture: the score against each hyperparameter by itself, one small panel each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlhpo_core.arrays import Floats
from rlhpo_core.report.plotting import (
    GREY,
    MAX_AXES,
    SCALE,
    VERMILION,
    canvas,
    metric_name,
    number_of,
    plain,
    shown_range,
    style,
    to_outside_bar,
    values_of,
)
from rlhpo_core.report.sensitivity import Sensitivity, by_importance
from rlhpo_core.space.parameters import Float, Int, Tunable
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, Trial

_COLUMNS = 4


def slices(spec: StudySpec, history: History, sensitivity: Sensitivity | None) -> Figure | None:
    """Complete trials, the later the darker; the best is ringed. ``None`` below three.

    The most important hyperparameters come first, if that is known.
    """
    trials = [trial for trial in history.complete() if trial.value is not None]
    if len(trials) < 3:
        return None
    shown = by_importance(spec.space, sensitivity)[:MAX_AXES]
    rows = math.ceil(len(shown) / _COLUMNS)
    figure = canvas(max(2.7 * min(len(shown), _COLUMNS) + 0.9, 5.0), max(2.5 * rows + 0.5, 3.0))
    axes = list(figure.subplots(rows, min(len(shown), _COLUMNS), squeeze=False, sharey=True).flat)
    window = shown_range(values_of(trials), history.direction)
    for position, (ax, step) in enumerate(zip(axes, shown, strict=False)):
        _panel(ax, step, trials, history, window)
        style(ax, plain(step.name, 24), "", metric_name(spec) if position % _COLUMNS == 0 else "")
    for spare in axes[len(shown) :]:
        spare.set_visible(False)
    to_outside_bar(figure, axes[: len(shown)], [number_of(trial) for trial in trials])
    return figure


def _panel(ax: Axes, step: Tunable, trials: list[Trial], history: History, window: tuple[float, float]) -> None:
    active = [trial for trial in trials if step.name in trial.config]
    values = np.clip(values_of(active), *window)
    x = _positions(step, active)
    numbers = [number_of(trial) for trial in trials]
    look: dict[str, Any] = {
        "cmap": SCALE,
        "vmin": numbers[0],
        "vmax": numbers[-1],
        "edgecolors": "white",
        "linewidths": 0.4,
    }
    ax.scatter(x, values, c=[number_of(trial) for trial in active], s=22, **look)
    best = history.best()
    for place, value, trial in zip(x, values, active, strict=True):
        if best is not None and trial.trial_id == best.trial_id:
            ax.scatter([place], [value], s=85, facecolors="none", edgecolors=VERMILION, linewidths=1.6)
    ax.set_ylim(*window)
    if isinstance(step, Float | Int):
        if not active:
            ax.set_xlim(step.low, step.high)
        if step.log:
            ax.set_xscale("log")
        else:
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=isinstance(step, Int)))
    else:
        labels = [plain(value, 10) for value in step.values]
        ax.set_xticks(range(len(labels)), labels, rotation=30 if sum(map(len, labels)) > 18 else 0)
        ax.set_xlim(-0.5, len(labels) - 0.5)
    if len(active) < len(trials):
        ax.annotate(
            f"inactive in {len(trials) - len(active)}", (1, 1), xycoords="axes fraction", ha="right", fontsize=7,
            color=GREY,
        )  # fmt: skip


def _positions(step: Tunable, trials: list[Trial]) -> Floats:
    """Values of numbers; places of choices, fanned out a little so that trials do not hide each other."""
    if isinstance(step, Float | Int):
        return np.array([trial.config[step.name] for trial in trials], dtype=np.float64)
    fan = np.linspace(-0.18, 0.18, max(len(trials), 1))
    return np.array([step.code(trial.config[step.name]) for trial in trials]) + fan[: len(trials)]
