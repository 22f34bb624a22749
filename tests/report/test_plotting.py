from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.evaluators.protocol import Baseline
from rlhpo_core.report import plotting


@given(st.lists(st.floats(-1e308, 1e308), min_size=1, max_size=30), st.sampled_from(["maximize", "minimize"]))
def test_the_shown_range_is_finite_and_holds_the_better_half(values: list[float], direction: Any) -> None:
    low, high = plotting.shown_range(plotting.drawable(values), direction)
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
    ranked = sorted(np.clip(values, -1e300, 1e300), reverse=direction == "maximize")
    assert all(low <= value <= high for value in ranked[: (len(ranked) + 1) // 2])


@pytest.mark.parametrize(("value", "text"), [(0.987, "0.99"), (-0.256, "−0.26"), (-1.0, "−1.00"), (-3e9, "below −1")])
def test_how_an_r2_is_shown(value: float, text: str) -> None:
    assert plotting.formatted(value) == text


def test_a_name_is_one_line_of_plain_text() -> None:
    assert plotting.plain("a $x^2$\nb") == "a \\$x^2\\$ b"
    assert plotting.plain("y" * 200, 10) == "y" * 9 + "…"


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_levels_to_beat_are_on_the_axis_unless_they_are_far_behind(direction: Any) -> None:
    """A level that no trial reaches is what a reader must see; one that all have left far behind ruins no axis."""
    up = 1.0 if direction == "maximize" else -1.0

    def levels(constant: float, defaults: float) -> tuple[list[plotting.Level], tuple[float, float]]:
        baseline = Baseline(
            metric="rmse", constant=up * constant, answer="always the mean, 5,", defaults=up * defaults, library="Some"
        )
        ends = sorted((up * 1.0, up * 2.0))
        return plotting.levels_of(baseline, (ends[0], ends[1]), direction)

    (constant, defaults), (low, high) = levels(constant=-50.0, defaults=9.0)
    assert constant == plotting.Level(up * -50.0, f"always the mean, 5: {up * -50:g}, off the scale", shown=False)
    assert defaults == plotting.Level(up * 9.0, f"Some as it comes: {up * 9:g}", shown=True)
    assert low < up * 9.0 < high
    assert low <= min(up * 1.0, up * 2.0) < max(up * 1.0, up * 2.0) <= high
    assert high - low < 10
    (near, inside), (low, high) = levels(constant=0.5, defaults=1.5)
    assert near.shown
    assert inside.shown
    assert low < up * 0.5 < high
    assert plotting.levels_of(None, (1.0, 2.0), direction) == ([], (1.0, 2.0))
