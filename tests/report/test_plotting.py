from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
