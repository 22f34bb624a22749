from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from rlhpo_core.study.evaluator_specs import CNNSpec, EvaluatorSpec, FunctionSpec, XGBoostSpec

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
    assert (forest.describe(), forest.step_name, forest.reads) == ("XGBoost", "boosting round", "table")
    assert (mine.describe(), mine.step_name, mine.reads) == ("mine:train", "step", None)
    network = CNNSpec(kind="cnn")
    assert (network.describe(), network.step_name, network.reads) == ("a convolutional network", "epoch", "images")
