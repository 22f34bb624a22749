from __future__ import annotations

import numpy as np
import pytest

from rlhpo_core.report import landscape as module
from rlhpo_core.report.landscape import landscape
from rlhpo_core.report.plotting import to_png
from rlhpo_core.report.sensitivity import Importance, Sensitivity, analyse
from rlhpo_core.space.search_space import SearchSpace
from tests.helpers.reported_studies import check_pngs, history_of, line_space, make_spec, scored


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_two_that_matter_most_are_its_axes(direction: str) -> None:
    spec, history = scored(line_space(3), lambda c: 4 * c["x2"] + 2 * c["x0"] + 0.1 * c["x1"], 30, direction)
    figure = landscape(spec, history, analyse(spec, history))
    assert figure is not None
    left, right = figure.axes[:2]
    assert (left.get_xlabel(), left.get_ylabel()) == ("x2", "x0")
    assert left.get_xlim() == right.get_xlim() == (0, 1)
    check_pngs({"landscape.png": to_png(figure)})


def test_ranks_put_the_earliest_of_equals_first() -> None:
    spec = make_spec(line_space(2))
    history = history_of(spec, [{"value": value} for value in (1.0, 3.0, 2.0, 3.0)])
    assert module._ranks(history, list(history.complete())).tolist() == [4, 1, 3, 2]


def test_where_there_is_no_plane_there_is_no_picture() -> None:
    known = Sensitivity((Importance("a", 1, 1), Importance("b", 0, 0)), 0.9, 20)
    choices = {"a": {"type": "float", "low": 0, "high": 1}, "b": {"type": "categorical", "choices": ["x", "y"]}}
    spec = make_spec(SearchSpace.model_validate(choices))
    assert landscape(spec, history_of(spec, [{"value": 1.0}] * 20), known) is None
    spec, known = make_spec(line_space(2)), Sensitivity((Importance("x0", 1, 1), Importance("x1", 0, 0)), 0.9, 20)
    assert landscape(spec, history_of(spec, [{"value": float(i)} for i in range(20)]), None) is None
    assert landscape(spec, history_of(spec, [{"value": 1.0}] * 3), known) is None


def test_trials_on_one_line_have_ranks_and_no_contours() -> None:
    space = {"x0": {"type": "float", "low": 0, "high": 1}, "x1": {"type": "int", "low": 1, "high": 9, "step": 4}}
    spec = make_spec(SearchSpace.model_validate(space))
    history = history_of(spec, [{"value": float(i)} for i in range(12)])
    same = tuple(
        trial.model_copy(update={"proposal": trial.proposal.model_copy(update={"config": {"x0": 0.1 * i, "x1": 5}})})
        for i, trial in enumerate(history.trials)
    )
    known = Sensitivity((Importance("x0", 1, 1), Importance("x1", 0, 0)), 0.9, 12)
    figure = landscape(spec, history.model_copy(update={"trials": same}), known)
    assert figure is not None
    assert np.isfinite(figure.axes[0].get_xlim()).all()
    to_png(figure)
