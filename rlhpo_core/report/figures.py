"""Pictures of a study as PNG, for MLflow and the HTML report. Functions from data to bytes; no global state.

Trials are counted from 1. Values far on the bad side do not ruin an axis: they are marked at its edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import spearmanr

from rlhpo_core.arrays import Floats
from rlhpo_core.evaluators.protocol import Baseline
from rlhpo_core.report import sensitivity as sobol
from rlhpo_core.report.landscape import landscape
from rlhpo_core.report.parallel_coordinates import parallel_coordinates
from rlhpo_core.report.plotting import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MAX_AXES,
    PURPLE,
    SCALE,
    SKY,
    VERMILION,
    canvas,
    drawable,
    formatted,
    lane_and_limits,
    lane_needed,
    levels_of,
    metric_label,
    metric_name,
    number_of,
    outside,
    plain,
    reached_by,
    shown_range,
    style,
    to_png,
    values_of,
)
from rlhpo_core.report.sensitivity import Sensitivity
from rlhpo_core.report.slices import slices
from rlhpo_core.report.timeline import timeline
from rlhpo_core.stopping.saved import Saved
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, RoundSummary, Trial, TrialStatus, sign

#: How to read each picture, in the order in which they are best read.
CAPTIONS = {
    "progress.png": "Each point is a trial, the line is the best so far. A line that has been flat for long, with "
    "points close below it, says that more trials will bring little. A diamond is a trial that was stopped early, at "
    "what it had reached. Broken lines are what trials have to beat: the library's defaults, and the best answer that "
    "looks at no column.",
    "importance.png": "How much of the objective's variance over the search space each hyperparameter explains, alone "
    "(dark) and with its interactions (light). Leave out or fix what has next to none.",
    "parallel_coordinates.png": "One line per trial, through its hyperparameters to its score. Where the dark lines "
    "meet, good values lie; if they meet at the end of an axis, widen its range.",
    "slices.png": "The score against each hyperparameter by itself; later trials are darker, the best is ringed. A "
    "slope up to the edge says that the range should be widened there; a level cloud, that the value hardly matters.",
    "landscape.png": "The score over the two hyperparameters that matter most. Lines join equal scores; they are drawn "
    "between trials only. Beside it the same trials by rank, which no outlier bends.",
    "predicted_vs_real.png": "What the reward model expected before each trial, against what was measured. The closer "
    "to the diagonal, the more the model can be relied on to choose trials.",
    "learning.png": "The method itself, round by round: how well its model predicts, how far that moved the policy, "
    "and how widely the policy still explores (entropy).",
    "curves.png": "The score while trials were running. Curves that still rise at their end ask for longer training. "
    "A diamond is where a trial was stopped early; those above the others' curves were stopped too soon.",
    "timeline.png": "When each trial ran, how long, and how it ended. White between bars is time in which a worker "
    "waited.",
}

#: Below this R² the model behind the importances explains less than half of what it has not seen.
POOR_R2 = 0.5


def figures(
    spec: StudySpec,
    history: History,
    summaries: Sequence[RoundSummary],
    sensitivity: Sensitivity | None = None,
    baseline: Baseline | None = None,
) -> dict[str, bytes]:
    """Name to PNG of the pictures that make sense for these trials, in the order of CAPTIONS; none without trials.

    Args:
        summaries: of the rounds so far, in their order
        sensitivity: as from ``analyse``, which is called if it is not given
        baseline: what trials have to beat, if it is known
    """
    if not history.trials:
        return {}
    sensitivity = sensitivity or sobol.analyse(spec, history)
    drawn = {
        "progress.png": _progress(spec, history, baseline),
        "importance.png": _importance(spec, sensitivity),
        "parallel_coordinates.png": parallel_coordinates(spec, history, sensitivity),
        "slices.png": slices(spec, history, sensitivity),
        "landscape.png": landscape(spec, history, sensitivity),
        "predicted_vs_real.png": _predicted_vs_real(spec, history),
        "learning.png": _learning(spec, summaries),
        "curves.png": _curves(spec, history),
        "timeline.png": timeline(history),
    }
    return {name: to_png(figure) for name, figure in drawn.items() if figure is not None}


#: Marker, colour and whether it is filled, of a trial's status.
_MARKS = {
    TrialStatus.COMPLETE: ("o", BLUE, True),
    TrialStatus.PRUNED: ("D", GREEN, False),
    TrialStatus.FAILED: ("x", VERMILION, True),
    TrialStatus.INFEASIBLE: ("s", PURPLE, False),
}


def _legend_below(ax: Axes) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=4, frameon=False, fontsize=8, borderaxespad=0)


# -- progress --------------------------------------------------------------------------------------------------------


def _progress(spec: StudySpec, history: History, baseline: Baseline | None = None) -> Figure:
    figure = canvas(9, 4.2)
    ax = figure.subplots()
    best, trials, up = history.best(), history.trials, history.direction == "maximize"
    values = values_of(trials)
    measured = values[~np.isnan(values)]
    window = shown_range(measured, history.direction) if len(measured) else (0.0, 1.0)
    levels, window = levels_of(baseline if len(measured) else None, window, history.direction)
    lane, limits = lane_and_limits(window, up, lane_needed(trials, window))
    for status in TrialStatus:
        _draw_trials(ax, status, [trial for trial in trials if trial.status is status], window, lane, up)
    numbers = [number_of(trial) for trial in trials]
    line = drawable(history.best_so_far())
    line[outside(line, window)] = np.nan
    if best is not None and best.value is not None:
        ax.step(numbers, line, where="post", color=INK, linewidth=1.3, label="best so far", zorder=1)
        (height,) = values_of([best])
        ax.scatter([number_of(best)], [height], s=130, facecolors="none", edgecolors=VERMILION, linewidths=1.8)
        late = number_of(best) > (numbers[0] + numbers[-1]) / 2
        ax.annotate(
            f"{best.value:.5g}, trial {number_of(best)}",
            (number_of(best), float(height)),
            xytext=(-9 if late else 9, 9 if up else -9),
            textcoords="offset points",
            ha="right" if late else "left",
            va="bottom" if up else "top",
            fontsize=8.5,
            color=VERMILION,
        )
    else:
        ax.set_yticks([])
    for level, dashes in zip(levels, ("--", ":"), strict=False):
        x, y = ([0, 1], [level.value] * 2) if level.shown else ([], [])
        across = ax.get_yaxis_transform()
        ax.plot(x, y, dashes, color=GREY, linewidth=1.2, label=plain(level.name, 60), zorder=0, transform=across)
    margin = 0.02 * (numbers[-1] - numbers[0]) or 0.5
    ax.set_xlim(numbers[0] - margin, numbers[-1] + margin)
    ax.set_ylim(*limits)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    style(ax, _progress_title(spec, history), "trial", metric_label(spec))
    _legend_below(ax)
    return figure


def _draw_trials(
    ax: Axes, status: TrialStatus, trials: Sequence[Trial], window: tuple[float, float], lane: float, up: bool
) -> None:
    """Trials of one status at their values; in the lane if they have none or lie outside the window."""
    if not trials:
        return
    marker, colour, filled = _MARKS[status]
    hollow: dict[str, Any] = {"facecolors": "none", "edgecolors": colour, "linewidths": 1}
    look: dict[str, Any] = {"c": colour, "linewidths": 1, "alpha": 0.8} if filled else hollow
    x, y = np.array([number_of(trial) for trial in trials]), reached_by(trials)
    off = outside(y, window)
    if not off.all():
        label = f"{status} ({int((~off).sum())})"
        ax.scatter(x[~off], np.where(np.isnan(y), lane, y)[~off], s=22, marker=marker, label=label, **look)
    if off.any():
        label = f"{status}, off the scale ({int(off.sum())})"
        ax.scatter(x[off], np.full(int(off.sum()), lane), s=26, marker="v" if up else "^", label=label, **hollow)


def _progress_title(spec: StudySpec, history: History) -> str:
    best, count = history.best(), len(history)
    if best is None or best.value is None:
        return f"None of {count} trials has succeeded" if count > 1 else "The one trial did not succeed"
    if count == 1:
        return f"The one trial has a {metric_name(spec)} of {best.value:.5g}"
    since = sum(trial.proposal.number > best.proposal.number for trial in history.trials)
    tail = "found in the last trial" if since == 0 else f"no improvement in the {since} trials since"
    return f"Best {metric_name(spec)} of {count} trials is {best.value:.5g}; {tail}"


# -- importance ------------------------------------------------------------------------------------------------------


def _importance(spec: StudySpec, sensitivity: Sensitivity | None) -> Figure | None:
    if sensitivity is None:
        return None
    shown = sensitivity.importances[:MAX_AXES][::-1]
    figure = canvas(8, 1.8 + 0.3 * len(shown))
    ax = figure.subplots()
    rows = range(len(shown))
    ax.barh(rows, [i.total for i in shown], height=0.7, color=SKY, label="with interactions (total index)")
    ax.barh(rows, [i.first for i in shown], height=0.35, color=BLUE, label="alone (first-order index)")
    totals, spread = [i.total for i in shown], [i.total_std for i in shown]
    look: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 1, "capsize": 2.5}
    ax.errorbar(totals, rows, xerr=spread, label="± one standard deviation over resampled trials", **look)
    for row, importance in zip(rows, shown, strict=True):
        right = max(importance.first, importance.total + importance.total_std) + 0.01
        ax.text(right, row, f"{importance.total:.2f}", va="center", fontsize=8, color=INK)
    ax.set_yticks(rows, [plain(i.name) for i in shown])
    ax.set_xlim(0, 1.1 * max(max(i.first, i.total + i.total_std) for i in shown) + 0.03)
    count = len(sensitivity.importances)
    few = f" (the {len(shown)} largest of {count})" if len(shown) < count else ""
    r2 = formatted(sensitivity.r2)
    note = f"Sobol indices, by a model of {sensitivity.trials} trials with R² {r2} on left-out ones"
    poor = sensitivity.r2 < POOR_R2
    style(
        ax,
        f"{plain(shown[-1].name)} matters most for {metric_name(spec)}" + (", as far as one can tell" if poor else ""),
        f"share of the variance of {metric_name(spec)} over the search space{few}",
        "",
        f"{note}: a POOR model, a hint at most" if poor else note,
        VERMILION if poor else GREY,
    )
    ax.grid(visible=False, axis="y")
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    return figure


# -- the reward model and the method ---------------------------------------------------------------------------------


def _predicted_vs_real(spec: StudySpec, history: History) -> Figure | None:
    """In the objective's units. In R², outliers on the bad side count as the edge of the picture."""
    trials = [trial for trial in history.trials if trial.value is not None and trial.proposal.predicted is not None]
    if len(trials) < 3:
        return None
    measured, numbers = values_of(trials), np.array([number_of(trial) for trial in trials])
    predicted = sign(history.direction) * drawable([trial.proposal.predicted for trial in trials])
    std = np.array([trial.proposal.predicted_std or 0.0 for trial in trials])
    window = shown_range(measured, history.direction)
    # Beyond the window is a margin, in the middle of which lies what is off the scale.
    margin = 0.06 * (window[1] - window[0])
    limits = (window[0] - margin, window[1] + margin)
    off = outside(measured, window) | outside(predicted, window)
    x, y = (np.clip(a, window[0] - margin / 2, window[1] + margin / 2) for a in (measured, predicted))
    figure = canvas(6.8, 5.8)
    ax = figure.subplots()
    ax.plot(window, window, color=GREY, linewidth=1, linestyle="--", zorder=1)
    spread = np.minimum(std[~off], 2 * (limits[1] - limits[0]))
    ax.errorbar(x[~off], y[~off], yerr=spread, fmt="none", ecolor=GREY, alpha=0.35, elinewidth=1, zorder=0)
    look: dict[str, Any] = {"cmap": SCALE, "vmin": numbers[0], "vmax": numbers[-1], "linewidths": 0.5}
    points = ax.scatter(x[~off], y[~off], c=numbers[~off], s=28, edgecolors="white", **look)
    ax.scatter(x[off], y[off], c=numbers[off], s=26, marker="D", edgecolors=VERMILION, **look)
    ax.set_xlim(*limits)
    ax.set_ylim(*limits)
    ax.set_box_aspect(1)
    bar = figure.colorbar(points, ax=ax, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label("trial", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    note = f"{len(trials)} trials" + (f", {int(off.sum())} of them off the scale (diamonds)" if off.any() else "")
    title = _prediction_title(np.clip(measured, *window), predicted)
    style(ax, title, f"measured {metric_name(spec)}", f"predicted {metric_name(spec)} ± one standard deviation", note)
    return figure


def _prediction_title(measured: Floats, predicted: Floats) -> str:
    if np.ptp(measured) == 0 or np.ptp(predicted) == 0:
        return "Predictions before each trial cannot be judged: all are equal"
    # In units of the spread, so that a prediction far off does not overflow when it is squared.
    error = np.clip((predicted - measured) / float(measured.std()), -1e6, 1e6)
    r2, rank = formatted(1 - float(np.mean(error**2))), formatted(float(spearmanr(measured, predicted).statistic))
    return f"Predicted before each trial: R² {r2}, rank correlation {rank}"


def _learning(spec: StudySpec, summaries: Sequence[RoundSummary]) -> Figure | None:
    """A panel for each thing of which there is something to show over at least two rounds."""
    rounds = np.array([summary.round + 1 for summary in summaries])

    def series(field: str) -> Floats:
        return drawable([getattr(summary, field) for summary in summaries])

    moved = series("kl")
    panels = {
        _model_panel: np.column_stack([series("model_r2"), series("model_rank_correlation")]),
        _entropy_panel: series("entropy"),
        _kl_panel: moved,
        _updates_panel: np.where(np.isnan(moved), np.nan, series("imagined_updates")),
    }
    drawn = [(draw, values) for draw, values in panels.items() if np.isfinite(values).any()]
    if len(rounds) < 2 or not drawn:
        return None
    rows = -(-len(drawn) // 2)
    figure = canvas(9 if len(drawn) > 1 else 5.5, 3 * rows + 0.2)
    axes = list(figure.subplots(rows, min(len(drawn), 2), squeeze=False).flat)
    for ax, (draw, values) in zip(axes, drawn, strict=False):
        draw(ax, spec, rounds, values)
        ax.set_xlim(rounds[0] - 0.7, rounds[-1] + 0.7)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for spare in axes[len(drawn) :]:
        spare.set_visible(False)
    return figure


_LINE: dict[str, Any] = {"linewidth": 1.4, "markersize": 4}


def _model_panel(ax: Axes, spec: StudySpec, rounds: Floats, values: Floats) -> None:
    shown = np.clip(values, -1, 1)
    ax.plot(rounds, shown[:, 0], color=BLUE, marker="o", label="R²", **_LINE)
    ax.plot(rounds, shown[:, 1], color=VERMILION, marker="s", label="rank correlation", **_LINE)
    gate = spec.tuner.model.min_r2
    if gate is not None:
        ax.axhline(gate, color=GREY, linewidth=0.9, linestyle="--", label=f"least R² to steer by ({gate:g})")
    ax.set_ylim(-1.05, 1.05)
    ax.legend(loc="lower right", frameon=False, fontsize=7.5)
    last = formatted(values[np.isfinite(values[:, 0]), 0][-1])
    style(ax, f"Reward model on held-out trials: R² {last} at last", "round", "R² and correlation, from −1 up")


def _entropy_panel(ax: Axes, spec: StudySpec, rounds: Floats, values: Floats) -> None:
    ax.plot(rounds, values, color=GREEN, marker="o", **_LINE)
    known = values[np.isfinite(values)]
    change = known[-1] - known[0]
    word = "narrowed" if change < -0.01 else "widened" if change > 0.01 else "stayed as wide as it was"
    style(ax, f"The policy {word}", "round", "entropy (nats per step)")


def _kl_panel(ax: Axes, spec: StudySpec, rounds: Floats, values: Floats) -> None:
    delta = spec.tuner.model.delta
    ax.plot(rounds, values, color=PURPLE, marker="o", **_LINE)
    ax.axhline(delta, color=GREY, linewidth=0.9, linestyle="--", label=f"delta, the end of a phase ({delta:g})")
    ax.set_ylim(bottom=0, top=1.3 * max(delta, float(np.nanmax(values))))
    ax.legend(loc="upper right", frameon=False, fontsize=7.5)
    ran = int(np.isfinite(values).sum())
    style(ax, f"The model phase ran in {ran} of {len(rounds)} rounds", "round", "policy moved by KL (nats per step)")


def _updates_panel(ax: Axes, spec: StudySpec, rounds: Floats, values: Floats) -> None:
    ax.bar(rounds, np.nan_to_num(values), color=SKY, width=0.7)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    style(ax, f"{int(np.nansum(values))} policy updates on imagined trials", "round", "imagined updates")


# -- learning curves -------------------------------------------------------------------------------------------------


def _curves(spec: StudySpec, history: History) -> Figure | None:
    curves = {trial.trial_id: np.clip(trial.curve, -1e300, 1e300) for trial in history.trials if trial.curve}
    if not curves:
        return None
    trials = [trial for trial in history.trials if trial.trial_id in curves]
    steps, values = np.concatenate(list(curves.values())).T
    figure = canvas(8, 4.2)
    ax = figure.subplots()
    alpha = float(np.clip(20 / len(trials), 0.2, 0.7))
    for status, (marker, colour, _) in _MARKS.items():
        group = [curves[trial.trial_id] for trial in trials if trial.status is status]
        if group:
            shown = GREY if status is TrialStatus.COMPLETE else colour
            stopped = status is TrialStatus.PRUNED
            ax.add_collection(LineCollection(group, colors=shown, linewidths=0.9, alpha=alpha))
            ends = np.array([curve[-1] for curve in group])
            label = f"{'stopped early' if stopped else status} ({len(group)})"
            size, height = (24, 3) if stopped else (9, 2)
            ax.scatter(
                ends[:, 0], ends[:, 1], s=size, marker=marker, color=shown, linewidths=0.8, label=label, zorder=height
            )
    best = history.best()
    if best is not None and best.trial_id in curves:
        curve = curves[best.trial_id]
        ax.plot(*curve.T, color=BLUE, linewidth=2, marker="o", markevery=[-1], markersize=4, zorder=3)
        ax.annotate(
            f"trial {number_of(best)}, best",
            (float(curve[-1, 0]), float(curve[-1, 1])),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=BLUE,
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "boxstyle": "square,pad=0.1"},
            zorder=4,
        )
    width = float(np.ptp(steps)) or 1.0
    ax.set_xlim(steps.min() - 0.02 * width, steps.max() + 0.16 * width)
    ax.set_ylim(*shown_range(values, history.direction))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    which = f"{len(trials)} trials" if len(trials) > 1 else "one trial"
    title = f"The {metric_name(spec)} of {which} while running"
    saved = Saved.of(history)
    note = "" if saved is None else saved.described()
    style(ax, title, spec.evaluator.step_name, metric_label(spec), note)
    _legend_below(ax)
    return figure
