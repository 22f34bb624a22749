"""The landscape picture: the score over the two hyperparameters that matter most, as contours and as ranks."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlhpo_core.arrays import Floats
from rlhpo_core.report.plotting import (
    GREY,
    SCALE,
    VERMILION,
    canvas,
    metric_name,
    number_of,
    plain,
    shown_range,
    style,
    values_of,
)
from rlhpo_core.report.sensitivity import Sensitivity, by_importance
from rlhpo_core.space.parameters import Float, Int
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, Trial

_LEVELS = 9
#: With fewer trials in the plane there are no contours.
_LEAST = 8


def landscape(spec: StudySpec, history: History, sensitivity: Sensitivity | None) -> Figure | None:
    """Two panels over the two most important numbers: contours between the trials' scores, and the trials' ranks.

    Contours are interpolated between the trials and say nothing beyond them. The best trial is ringed. ``None`` without
    an importance, with fewer than two numbers, or with fewer than eight trials that have both.
    """
    numbers = [step for step in by_importance(spec.space, sensitivity) if isinstance(step, Float | Int)][:2]
    if sensitivity is None or len(numbers) < 2:
        return None
    x_step, y_step = numbers
    trials = [trial for trial in history.complete() if {x_step.name, y_step.name} <= trial.config.keys()]
    if len(trials) < _LEAST:
        return None
    x, y = (_positions(step, trials) for step in numbers)
    values = np.clip(values_of(trials), *shown_range(values_of(trials), history.direction))
    figure = canvas(9.5, 4.2)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    ranks = _ranks(history, trials)
    # Dark is good in both panels, as in the other pictures.
    good = values if history.direction == "maximize" else -values
    _contours(left, _scaled(x_step, x), _scaled(y_step, y), x, y, good)
    best = history.best()
    look: dict[str, Any] = {
        "s": 26,
        "clip_on": False,
        "zorder": 3,
        "edgecolors": "white",
        "linewidths": 0.5,
        "cmap": SCALE,
    }
    left.scatter(x, y, c=good, **look)
    points = right.scatter(x, y, c=-ranks, **look)
    for ax in (left, right):
        for place_x, place_y, trial in zip(x, y, trials, strict=True):
            if best is not None and trial.trial_id == best.trial_id:
                ax.scatter([place_x], [place_y], s=95, facecolors="none", edgecolors=VERMILION, linewidths=1.6)
                ax.annotate(
                    f"trial {number_of(trial)}", (place_x, place_y), xytext=(7, 5), textcoords="offset points",
                    fontsize=8, color=VERMILION,
                )  # fmt: skip
        for step, set_scale, set_limits in (
            (x_step, ax.set_xscale, ax.set_xlim),
            (y_step, ax.set_yscale, ax.set_ylim),
        ):
            if step.log:
                set_scale("log")
            set_limits(step.low, step.high)
    names = plain(x_step.name), plain(y_step.name)
    found = "" if best is None else ", ".join(_at(step, best) for step in numbers if step.name in best.config)
    title = f"Best {metric_name(spec)} at {found}" if found else f"{metric_name(spec)} over what matters most"
    style(left, title, names[0], names[1], "contours between trials only")
    style(right, "Ranks of the trials", names[0], "", f"1 is the best of {len(trials)}")
    bar = figure.colorbar(points, ax=right, shrink=0.8, aspect=30, pad=0.02)
    shown = [-1.0, -float(len(trials))]
    bar.set_ticks(shown, labels=["1", str(len(trials))])
    bar.ax.tick_params(labelsize=8)
    return figure


def _contours(ax: Axes, u: Floats, v: Floats, x: Floats, y: Floats, values: Floats) -> None:
    """Filled contours over points (N,), by the triangles between them; none if they lie on one line."""
    from matplotlib.tri import Triangulation

    if np.ptp(values) == 0:
        return
    # Two trials at one place, or all on one line: there is nothing to interpolate over.
    with suppress(ValueError, RuntimeError):
        mesh = Triangulation(x, y, Triangulation(u, v).triangles)
        ax.tricontourf(mesh, values, levels=_LEVELS, cmap=SCALE, alpha=0.45)
        ax.tricontour(mesh, values, levels=_LEVELS, colors=GREY, linewidths=0.4)


def _at(step: Float | Int, trial: Trial) -> str:
    value = trial.config[step.name]
    return f"{plain(step.name, 16)} {value:.3g}" if isinstance(value, int | float) else ""


def _positions(step: Float | Int, trials: list[Trial]) -> Floats:
    return np.array([trial.config[step.name] for trial in trials], dtype=np.float64)


def _scaled(step: Float | Int, values: Floats) -> Floats:
    return (step.actions(values) + 1) / 2


def _ranks(history: History, trials: list[Trial]) -> Floats:
    """1 for the best; of equals, the earliest first, as everywhere."""
    order = {trial.trial_id: rank for rank, trial in enumerate(history.ranked(), start=1)}
    kept = sorted(order[trial.trial_id] for trial in trials)
    return np.array([kept.index(order[trial.trial_id]) + 1 for trial in trials], dtype=np.float64)
