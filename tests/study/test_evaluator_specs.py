from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from rlhpo_core.study.evaluator_specs import EvaluatorSpec, FunctionSpec, XGBoostSpec

READ = TypeAdapter(EvaluatorSpec)


def test_the_kind_tells_them_apart() -> None:
    assert READ.validate_python({"kind": "xgboost", "folds": 3}) == XGBoostSpec(kind="xgboost", folds=3)
    assert isinstance(READ.validate_python({"kind": "function", "function": "mine:train"}), FunctionSpec)
    with pytest.raises(ValidationError, match="'function'"):
        READ.validate_python({"kind": "forest"})
    with pytest.raises(ValidationError, match="folds"):
        READ.validate_python({"kind": "function", "function": "mine:train", "folds": 3})


def test_what_a_report_says_of_them() -> None:
    forest, mine = XGBoostSpec(kind="xgboost"), FunctionSpec(kind="function", function="mine:train")
    assert (forest.describe(), forest.step_name, forest.needs_table) == ("XGBoost", "boosting round", True)
    assert (mine.describe(), mine.step_name, mine.needs_table) == ("mine:train", "step", False)
