"""What the pictures of a study share: colours, style, names shown literally, and axes that outliers do not ruin.

Colours are those of Okabe & Ito (2008) and the map cividis (Nuñez et al. 2018), which colour-blind readers can tell
apart.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlhpo_core.arrays import Bools, Floats
from rlhpo_core.evaluators.protocol import Baseline
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Direction, Trial, sign

INK, GREY, PALE = "#222222", "#8a8a8a", "#d9d9d9"
BLUE, VERMILION, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#9BCBEB"
#: From pale to dark, so that the better is the more visible on white.
SCALE = ListedColormap(colormaps["cividis_r"](np.linspace(0.12, 1.0, 256)), name="value")
#: Hyperparameters that one picture shows at most.
MAX_AXES = 16


def to_png(figure: Figure) -> bytes:
    """The figure drawn without a display and without matplotlib's global state."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def canvas(width: float, height: float) -> Figure:
    """An empty white figure of the given size in inches, with 150 dots per inch."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def to_outside_bar(figure: Figure, axes: Sequence[Axes], numbers: Sequence[int]) -> None:
    """Draw a colour bar of trial numbers, in ascending order, at the side of several panels."""
    shades = ScalarMappable(Normalize(numbers[0], max(numbers[-1], numbers[0] + 1)), SCALE)
    bar = figure.colorbar(shades, ax=list(axes), shrink=0.8, aspect=30, pad=0.01)
    bar.set_label("trial", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def style(ax: Axes, title: str, x: str, y: str, note: str = "", note_colour: str = GREY) -> None:
    """Give a plot its title and, below that, a note; labels of its axes and a light frame."""
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=20 if note else 6)
    place: dict[str, Any] = {"xycoords": "axes fraction", "xytext": (0, 7), "textcoords": "offset points"}
    ax.annotate(note, (0, 1), fontsize=8, color=note_colour, **place)
    ax.set_xlabel(x, fontsize=8.5, color=INK)
    ax.set_ylabel(y, fontsize=8.5, color=INK)
    ax.tick_params(labelsize=8, color=GREY, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.grid(color=PALE, linewidth=0.5)
    ax.set_axisbelow(True)


def plain(text: object, length: int = 24) -> str:
    """A name as matplotlib shows it literally (a dollar would start a formula), on one line and not too long."""
    line = " ".join(str(text).split())
    return (line if len(line) <= length else line[: length - 1] + "…").replace("$", r"\$")


def metric_name(spec: StudySpec) -> str:
    """The objective's name as matplotlib shows it literally."""
    return plain(spec.objective.metric, 32)


def metric_label(spec: StudySpec) -> str:
    """The objective's name, and which way is better."""
    return f"{metric_name(spec)} ({'higher' if spec.objective.direction == 'maximize' else 'lower'} is better)"


def shown_range(values: Floats, direction: Direction) -> tuple[float, float]:
    """The ends of an axis that shows values (N,), N ≥ 1, but for those that lie far on the bad side.

    Far is more than three interquartile ranges beyond the worse quartile. A margin of 5 % is added.
    """
    rewards = sign(direction) * values
    lower, upper = np.quantile(rewards, [0.25, 0.75])
    bulk = rewards[rewards >= lower - 3 * (upper - lower)] if upper > lower else rewards
    ends = sorted(sign(direction) * float(end) for end in (bulk.min(), bulk.max()))
    margin = 0.05 * (ends[1] - ends[0]) or 0.05 * abs(ends[0]) or 1.0
    return ends[0] - margin, ends[1] + margin


def lane_needed(trials: Sequence[Trial], window: tuple[float, float]) -> bool:
    """Whether there are trials that cannot be shown at their value, having none or lying outside of the window."""
    values = values_of(trials)
    return bool(np.isnan(values).any() or outside(values, window).any())


def lane_and_limits(window: tuple[float, float], up: bool, needed: bool) -> tuple[float, tuple[float, float]]:
    """Where to mark trials that cannot be shown at their value, on the bad side; and the limits of the axis."""
    low, high = window
    height = high - low
    wide, narrow = (0.1 if needed else 0.0) * height, 0.08 * height  # the good side has room for the annotation
    lane = low - 0.05 * height if up else high + 0.05 * height
    return lane, (low - wide, high + narrow) if up else (low - narrow, high + wide)


@dataclass(frozen=True)
class Level:
    """A score that trials have to beat, drawn as a line."""

    value: float
    name: str
    """With the score, for a legend."""
    shown: bool
    """Whether it lies within the axis."""


def levels_of(
    baseline: Baseline | None, window: tuple[float, float], direction: Direction
) -> tuple[list[Level], tuple[float, float]]:
    """What trials have to beat: the best answer that looks at no column, then the library's defaults.

    Args:
        baseline: ``None`` if it is not known: there are no levels then.
        window: The ends of the axis that shows the trials.

    Returns: The levels, and an axis that shows those of them that no trial reaches, or that are nearer to the trials
    than these are spread: one far on the bad side does not ruin it.
    """
    if baseline is None:
        return [], window
    low, high = window
    height, up = high - low, direction == "maximize"
    levels, named = [], ((baseline.answer, baseline.constant), (f"{baseline.library} as it comes", baseline.defaults))
    for name, value in named:
        shown = value >= low - height if up else value <= high + height
        text = f"{' '.join(name.rstrip(',').split())}: {value:.4g}{'' if shown else ', off the scale'}"
        levels.append(Level(value, text, shown))
    reached = [level.value for level in levels if level.shown]
    margin = 0.04 * height
    below = min([low, *(value - margin for value in reached)])
    return levels, (below, max([high, *(value + margin for value in reached)]))


def outside(values: Floats, window: tuple[float, float]) -> Bools:
    """Which of the values (N,) lie below or above the window; NaN does not."""
    return (values < window[0]) | (values > window[1])


def number_of(trial: Trial) -> int:
    """The trial's number as people see it, counted from 1."""
    return trial.proposal.number + 1


def drawable(values: Sequence[float | None]) -> Floats:
    """Values (N,), NaN for ``None``; within limits so wide that only the arithmetic of an axis meets them."""
    return np.clip([np.nan if value is None else value for value in values], -1e300, 1e300)


def values_of(trials: Sequence[Trial]) -> Floats:
    """Values (N,) to draw, NaN where there is none."""
    return drawable([trial.value for trial in trials])


def reached_by(trials: Sequence[Trial]) -> Floats:
    """Values (N,) to draw, for trials that were stopped early what they had reached; NaN where there is none."""
    return drawable([trial.value if trial.stop is None else trial.stop.value for trial in trials])


def formatted(value: float) -> str:
    """An R² or a correlation with two decimals. How far below −1 it lies does not matter: the model is of no use."""
    return "below −1" if value < -1 else f"{value:.2f}".replace("-", "−")
