from __future__ import annotations

import pytest

from rlhpo_core.report.sensitivity import MIN_TRIALS, analyse, by_importance, importance
from tests.helpers.reported_studies import line_space, scored
from tests.helpers.studies import RICH_SPACE


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_of_an_additive_function_is_each_terms_share_of_the_variance(direction: str) -> None:
    importances = importance(*scored(line_space(4), lambda c: 100 + 2 * c["x0"] + c["x1"], direction=direction))
    assert [i.name for i in importances[:2]] == ["x0", "x1"]
    for i, share in zip(importances, [0.8, 0.2, 0.0, 0.0], strict=True):
        assert i.first == pytest.approx(share, abs=0.03)
        assert i.total == pytest.approx(share, abs=0.03)


def test_importance_tells_an_interaction_from_an_effect() -> None:
    # Zero mean in each factor: all variance lies in the product, none in x0 or x1 alone.
    importances = importance(*scored(line_space(3), lambda c: (c["x0"] - 0.5) * (c["x1"] - 0.5), count=120))
    assert {i.name for i in importances[:2]} == {"x0", "x1"}
    for i in importances[:2]:
        assert i.first < 0.1
        assert i.total > 0.9


def test_importance_reaches_through_conditions_and_choices() -> None:
    spec, history = scored(RICH_SPACE, lambda c: 3 * (c["booster"] == "dart") + c.get("rate_drop", 0), count=150)
    importances = {i.name: i for i in importance(spec, history)}
    # Var[3·D + D·r] with P(D) = 1/3 and r uniform: 2.722 from D, 0.028 from r given D.
    assert importances["booster"].total > 0.9
    assert importances["depth"].total < 0.03
    assert set(importances) == {step.name for step in RICH_SPACE.steps}


def test_importance_is_the_same_each_time_and_says_how_good_its_model_is() -> None:
    spec, history = scored(line_space(2), lambda c: c["x0"])
    sensitivity = analyse(spec, history)
    assert sensitivity is not None
    assert sensitivity == analyse(spec, history)
    assert sensitivity.r2 > 0.95


def test_importance_needs_enough_trials_that_differ() -> None:
    spec, history = scored(line_space(2), lambda c: c["x0"], count=MIN_TRIALS - 1)
    assert importance(spec, history) == []
    assert importance(*scored(line_space(2), lambda c: 1.0)) == []


def test_hyperparameters_are_in_the_order_of_their_importance() -> None:
    spec, history = scored(line_space(3), lambda c: c["x2"] + 0.1 * c["x0"])
    assert [step.name for step in by_importance(spec.space, analyse(spec, history))] == ["x2", "x0", "x1"]
    assert by_importance(spec.space, None) == list(spec.space.steps)
