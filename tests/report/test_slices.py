from __future__ import annotations

from rlhpo_core.report.plotting import to_png
from rlhpo_core.report.sensitivity import analyse
from rlhpo_core.report.slices import slices
from rlhpo_core.space.search_space import SearchSpace
from tests.helpers.reported_studies import check_pngs, history_of, line_space, make_spec, scored


def test_a_hyperparameter_that_no_trial_has_leaves_an_empty_panel() -> None:
    space = {
        "kind": {"type": "categorical", "choices": ["a", "b"]},
        "rare": {"type": "float", "low": 1e-3, "high": 1, "log": True, "when": {"kind": "b"}},
        "x": {"type": "float", "low": 0, "high": 1},
    }
    spec = make_spec(SearchSpace.model_validate(space))
    history = history_of(spec, [{"value": float(i % 7)} for i in range(40)])
    without = tuple(trial for trial in history.trials if trial.proposal.config["kind"] == "a")
    assert len(without) >= 10
    figure = slices(spec, history.model_copy(update={"trials": without}), None)
    assert figure is not None
    panels = {ax.get_title("left"): ax for ax in figure.axes}
    assert f"inactive in {len(without)}" in [text.get_text() for text in panels["rare"].texts]
    check_pngs({"slices.png": to_png(figure)})


def test_the_most_important_hyperparameter_comes_first() -> None:
    spec, history = scored(line_space(3), lambda config: config["x2"] + 0.1 * config["x0"])
    figure = slices(spec, history, analyse(spec, history))
    assert figure is not None
    assert [ax.get_title("left") for ax in figure.axes][:2] == ["x2", "x0"]


def test_two_trials_are_too_few() -> None:
    spec = make_spec(line_space(1))
    assert slices(spec, history_of(spec, [{"value": 0.0}, {"value": 1.0}, {"status": "failed"}]), None) is None
