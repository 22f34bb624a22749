"""The timeline picture: when each trial ran, how long it took, and how it ended."""

from __future__ import annotations

from matplotlib.figure import Figure

from rlhpo_core.report.plotting import BLUE, GREEN, PURPLE, VERMILION, canvas, style
from rlhpo_core.trial import History, Trial, TrialStatus

#: Colour and hatching, so that statuses differ without colour, too.
_LOOKS = {
    TrialStatus.COMPLETE: (BLUE, ""),
    TrialStatus.PRUNED: (GREEN, "//"),
    TrialStatus.FAILED: (VERMILION, "xx"),
    TrialStatus.INFEASIBLE: (PURPLE, ".."),
}
#: A pause longer than this share of the whole is cut short: an interrupted study should not be all white.
_PAUSE = 0.25


def timeline(history: History) -> Figure | None:
    """A bar for each trial, in lanes where trials ran at the same time. ``None`` if it is not known when they ran."""
    trials = sorted((trial for trial in history.trials if trial.started_at > 0), key=lambda trial: trial.started_at)
    if not trials:
        return None
    starts, cut = _without_pauses(trials)
    lanes = _lanes(starts, [trial.seconds for trial in trials])
    whole = max(s + t.seconds for s, t in zip(starts, trials, strict=True)) or 1.0
    scale, unit = _unit(whole)
    figure = canvas(9, 2.0 + 0.32 * min(max(lanes) + 1, 16))
    ax = figure.subplots()
    for status, (colour, hatch) in _LOOKS.items():
        rows = [i for i, trial in enumerate(trials) if trial.status is status]
        if rows:
            ax.barh(
                [lanes[i] for i in rows],
                # Trials that failed at once are to be seen, too.
                [max(trials[i].seconds, 0.006 * whole) / scale for i in rows],
                left=[starts[i] / scale for i in rows],
                height=0.8, color=colour, edgecolor="white", linewidth=0.5, hatch=hatch,
                label=f"{status} ({len(rows)})",
            )  # fmt: skip
    busy = sum(trial.seconds for trial in trials)
    ax.set_ylim(max(lanes) + 0.6, -0.6)
    named = range(0, max(lanes) + 1, -(-(max(lanes) + 1) // 16))
    ax.set_yticks(named, [str(lane + 1) for lane in named])
    note = f"{busy / whole:.1f} trials at a time on average"
    style(ax, f"{len(trials)} trials in {whole / scale:.3g} {unit}", unit, "side by side", note + cut)
    ax.grid(visible=False, axis="y")
    figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize=8)
    return figure


def _without_pauses(trials: list[Trial]) -> tuple[list[float], str]:
    """Seconds from the first start, long pauses taken out; and a note about these."""
    starts = [trial.started_at - trials[0].started_at for trial in trials]
    whole = max(start + trial.seconds for start, trial in zip(starts, trials, strict=True))
    shift, end, shifted, pauses = 0.0, 0.0, [], 0
    for start, trial in zip(starts, trials, strict=True):
        if start - end > _PAUSE * whole:
            shift += start - end
            pauses += 1
        shifted.append(start - shift)
        end = max(end, start + trial.seconds)
    return shifted, f"; {pauses} long pause{'s' if pauses > 1 else ''} left out" if pauses else ""


def _lanes(starts: list[float], seconds: list[float]) -> list[int]:
    """The first lane that is free when a trial starts."""
    ends: list[float] = []
    lanes = []
    for start, length in zip(starts, seconds, strict=True):
        free = [i for i, end in enumerate(ends) if end <= start + 1e-6]
        lane = free[0] if free else len(ends)
        if lane == len(ends):
            ends.append(0.0)
        ends[lane] = start + length
        lanes.append(lane)
    return lanes


def _unit(seconds: float) -> tuple[float, str]:
    return (1.0, "seconds") if seconds < 180 else (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")
