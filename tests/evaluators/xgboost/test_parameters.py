from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.xgboost.parameters import DEFAULTS, KNOWN, VOCABULARY, canonical
from rlhpo_core.priors.common_space import told_once
from rlhpo_core.space.search_space import SearchSpace, builtin_space, load_space
from tests.helpers.tables import EXAMPLES, build, quiet


def test_the_papers_space_is_known() -> None:
    VOCABULARY.check_space(SearchSpace.model_validate({"eta": {"type": "float", "low": 0.1, "high": 0.3}}), fixed=[])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"max_dept": {"type": "int", "low": 1, "high": 9}}, r"space\.max_dept: .*did you mean max_depth\?"),
        ({"hidden_units": {"type": "int", "low": 1, "high": 9}}, r"space\.hidden_units: .*known are n_estimators"),
        ({"subsample": {"type": "float", "low": 0.5, "high": 1.5}}, r"space\.subsample: 1\.5 is outside"),
        ({"max_depth": {"type": "float", "low": 1, "high": 9}}, r"space\.max_depth: .*use type int"),
        ({"gamma": {"type": "categorical", "choices": ["a", "b"]}}, r"space\.gamma: a is not a number"),
        ({"grow_policy": {"type": "categorical", "choices": ["depthwise", "up"]}}, r"'up' is not one of depthwise"),
        (
            {
                "eta": {"type": "float", "low": 0.1, "high": 0.3},
                "learning_rate": {"type": "float", "low": 0.1, "high": 0.3},
            },
            r"space\.learning_rate: this is another name of eta",
        ),
    ],
)
def test_a_space_that_xgboost_does_not_know_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VOCABULARY.check_space(SearchSpace.model_validate(space), fixed=[])


def test_a_parameter_both_set_and_tuned_is_refused() -> None:
    space = SearchSpace.model_validate({"max_depth": {"type": "int", "low": 1, "high": 9}})
    with pytest.raises(UserError, match=r"evaluator\.params sets max_depth as well"):
        VOCABULARY.check_space(space, fixed=["max_depth"])


def test_the_evaluator_asks_with_the_parameters_that_it_was_given() -> None:
    space = SearchSpace.model_validate({"max_depth": {"type": "int", "low": 1, "high": 9}})
    build(EXAMPLES / "car.csv").check_space(space)
    with pytest.raises(UserError, match=r"evaluator\.params sets max_depth as well"):
        build(EXAMPLES / "car.csv", evaluator={"params": {"max_depth": 3}}).check_space(space)


def test_each_parameter_has_a_default_that_it_may_have() -> None:
    assert DEFAULTS.keys() == KNOWN.keys()
    VOCABULARY.check_params(DEFAULTS)


def test_defaults_are_found_by_any_of_a_parameters_names() -> None:
    space = load_space("eta: {type: float, low: 0.01, high: 1.0}\nlambda: {type: float, low: 2.0, high: 9.0}")
    assert VOCABULARY.default_in(space) == {"eta": 0.3, "lambda": 2.0}


def test_the_defaults_are_the_librarys() -> None:
    """A booster says what it was trained with."""
    rows = xgb.DMatrix(np.arange(8.0)[:, None], np.arange(8.0))
    said = json.loads(xgb.train({}, rows, 1).save_config())["learner"]["gradient_booster"]
    told = {**said["tree_train_param"], **said["gbtree_train_param"]}
    known = {name: DEFAULTS[VOCABULARY.native(name)] for name in told if VOCABULARY.native(name) in DEFAULTS}
    assert {"max_depth", "learning_rate", "min_child_weight", "subsample", "reg_lambda", "max_bin"} <= known.keys()
    for name, value in known.items():
        assert told[name] == value or float(told[name]) == pytest.approx(value), name


TREES = {"n_estimators": 8, "max_depth": 3, "learning_rate": 0.3, "subsample": 1.0, "reg_lambda": 1.0, "reg_alpha": 0.1}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({**TREES, "booster": "dart", "rate_drop": 0.0, "skip_drop": 0.4}, {**TREES, "booster": "gbtree"}),
        ({**TREES, "booster": "dart", "rate_drop": 0.4, "skip_drop": 1.0}, {**TREES, "booster": "gbtree"}),
        ({**TREES, "booster": "gblinear", "subsample": 0.7}, {**TREES, "booster": "gblinear", "max_depth": 6}),
        ({**TREES, "booster": "dart", "rate_drop": 0.4, "skip_drop": 0.2}, None),
        ({**TREES, "booster": "gbtree"}, None),
    ],
)
def test_what_trains_the_same_model_is_one_configuration(config: dict[str, Any], told: dict[str, Any] | None) -> None:
    """By training it: scores are equal to the last bit only if the models are. No rows are drawn at random."""
    evaluator = build(EXAMPLES / "german_credit.csv", "log_loss")
    assert evaluator.canonical(config) == (told or config)
    score = evaluator.evaluate(config, quiet).value
    assert evaluator.evaluate(evaluator.canonical(config), quiet).value == score
    if config["booster"] == "dart" and told is None:
        assert evaluator.evaluate({**TREES, "booster": "gbtree"}, quiet).value != score


def test_a_space_without_it_keeps_what_it_has() -> None:
    space = builtin_space("xgboost-wide")
    dart = space.nearest({**DEFAULTS, "booster": "dart"})
    assert told_once([dart], space, canonical) == [space.nearest(DEFAULTS)]
    only = load_space("booster: {type: categorical, choices: [dart]}\nrate_drop: {type: float, low: 0.0, high: 1.0}")
    dart = {"booster": "dart", "rate_drop": 0.0}
    assert told_once([dart], only, canonical) == [dart]
