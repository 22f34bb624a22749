from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import rlhpo_core
from rlhpo_core.evaluators.function import FunctionEvaluator
from rlhpo_core.evaluators.kinds import CLASSES, build_evaluator, evaluator_class
from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
from rlhpo_core.study.evaluator_specs import EvaluatorSpec
from rlhpo_core.study.spec import StudySpec
from tests.helpers.tables import EXAMPLES

FUNCTION = {"kind": "function", "function": "tests.helpers.functions:act"}


def spec(**fields: Any) -> StudySpec:
    space = {"max_depth": {"type": "int", "low": 1, "high": 9}}
    return StudySpec.model_validate({"name": "mine", "space": space, **fields})


def test_every_kind_of_the_study_file_has_a_class() -> None:
    union, _ = get_args(EvaluatorSpec)
    kinds = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(union)}
    assert kinds == set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_has_all_that_is_asked_of_it(kind: str) -> None:
    evaluator = evaluator_class(kind)
    assert evaluator.__module__.startswith(f"rlhpo_core.evaluators.{kind}")
    assert isinstance(evaluator.has_model, bool)
    assert all(name in vars(evaluator) for name in ("check_space", "data", "evaluate", "refit"))


def test_a_study_gets_the_evaluator_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    mine = spec(evaluator=FUNCTION, objective={"metric": "score", "direction": "maximize"})
    assert isinstance(build_evaluator(mine, threads=1), FunctionEvaluator)
    table = {"path": EXAMPLES / "car.csv", "target": "target"}
    assert isinstance(
        build_evaluator(spec(evaluator={"kind": "xgboost"}, objective="accuracy", data=table), threads=1),
        XGBoostEvaluator,
    )


def test_nothing_else_asks_for_a_kind_by_name() -> None:
    """Others ask the class what it can do; a new kind is then known everywhere."""
    core = Path(rlhpo_core.__file__).parent
    own = {core / "evaluators" / "kinds.py", core / "study" / "evaluator_specs.py"}
    asked = [
        f"{path.relative_to(core)}:{node.lineno}"
        for path in core.rglob("*.py")
        if path not in own
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare | ast.match_case | ast.Subscript)
        for value in ast.walk(node)
        if isinstance(value, ast.Constant) and value.value in CLASSES
    ]
    assert asked == []


def test_a_function_does_not_wait_for_xgboost() -> None:
    command = "import sys; from rlhpo_core.evaluators.kinds import evaluator_class; evaluator_class('function'); "
    command += "print(sorted({'xgboost', 'pandas', 'mlflow'} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"
