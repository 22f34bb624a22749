from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.function import ALLOWED_MODULES, FunctionEvaluator
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import StudySpec


def evaluator(function: str, **options: Any) -> FunctionEvaluator:
    spec = StudySpec.model_validate(
        {
            "name": "mine",
            "evaluator": {"kind": "function", "function": function, "options": options},
            "objective": {"metric": "score", "direction": "maximize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        }
    )
    return FunctionEvaluator(spec, threads=1)


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED_MODULES, "something_else, tests")


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Writes a module and gives its name, which is allowed."""

    def write(source: str) -> str:
        name = re.sub(r"\W", "_", f"user_{request.node.name}")
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv(ALLOWED_MODULES, name)
        return name

    return write


def test_it_calls_the_function_with_config_reporter_and_options() -> None:
    reports: list[tuple[int, float]] = []
    result = evaluator("tests.helpers.functions:act").evaluate({"act": "score", "x": 0.5}, lambda *r: reports.append(r))
    assert reports == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert result.value == 1.0
    assert result.metrics["doubled"] == 2.0
    adding = evaluator("tests.helpers.functions:with_options", weights=[1.0, 2.0], offset=10)
    assert adding.evaluate({"x": 3.0}, print).value == 16.0


def test_a_function_that_changes_its_arguments_does_not_change_the_next_trial() -> None:
    config = {"act": "score", "x": 0.5}
    acting = evaluator("tests.helpers.functions:act")
    assert acting.evaluate(config, lambda *_: None).value == acting.evaluate(config, lambda *_: None).value
    assert config == {"act": "score", "x": 0.5}
    adding = evaluator("tests.helpers.functions:with_options", weights=[1.0])
    assert [adding.evaluate({"x": 3.0}, print).value for _ in range(3)] == [4.0, 4.0, 4.0]


@pytest.mark.parametrize(
    ("returned", "value"),
    [("0.5", 0.5), ("1", 1.0), ("np.float32(0.5)", 0.5), ("np.int64(2)", 2.0), ("{'score': np.float64(3)}", 3.0)],
)
def test_numbers_of_any_make_are_scores(user_module: Any, returned: str, value: float) -> None:
    name = user_module(f"import numpy as np\ndef f(config, report): return {returned}")
    result = evaluator(f"{name}:f").evaluate({}, print)
    assert type(result.value) is float
    assert result.value == value


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ("None", TypeError, "the result is of type NoneType; return a number, or a mapping .* 'score' in it"),
        ("True", TypeError, "type bool"),
        ("'0.5'", TypeError, "type str"),
        ("{'score': None}", TypeError, "the metric 'score' is of type NoneType"),
        ("{'score': 1, 'other': 'x'}", TypeError, "the metric 'other' is of type str"),
        ("{'acc': 1, 'loss': 2}", ValueError, "returned acc, loss, but not 'score', the objective"),
        ("{}", ValueError, "returned nothing, but not 'score'"),
    ],
)
def test_what_is_no_score_fails_the_trial_with_a_reason(
    user_module: Any, returned: str, error: type[Exception], message: str
) -> None:
    name = user_module(f"def f(config, report): return {returned}")
    with pytest.raises(error, match=message):
        evaluator(f"{name}:f").evaluate({}, print)


@pytest.mark.parametrize("allowed", ["", "other", "test", "tests.helpers.functions.deeper", "tests.function"])
def test_a_module_that_is_not_allowed_is_not_imported(
    monkeypatch: pytest.MonkeyPatch, user_module: Any, tmp_path: Path, allowed: str
) -> None:
    name = user_module(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\ndef f(c, r): return 1")
    monkeypatch.setenv(ALLOWED_MODULES, allowed)
    with pytest.raises(UserError, match=f"may not be imported.*environment variable {ALLOWED_MODULES}=.*{name}"):
        evaluator(f"{name}:f")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UserError, match="may not be imported"):
        evaluator("tests.helpers.functions:act")


@pytest.mark.parametrize("allowed", ["tests", "a,tests.helpers.functions", " tests ,b"])
def test_packages_and_modules_can_be_allowed(monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    monkeypatch.setenv(ALLOWED_MODULES, allowed)
    assert evaluator("tests.helpers.functions:act").evaluate({"act": "score", "x": 1.0}, lambda *_: None).value == 2.0


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("tests.no_such_module:f", {}, "cannot import tests.no_such_module: No module named .*has to be installed"),
        ("tests..functions:act", {}, "cannot import"),
        (
            "tests.helpers.functions:no_such_function",
            {},
            r"tests.helpers.functions \(.*functions.py\) has no 'no_such_function'",
        ),
        ("tests.helpers.functions:not_a_function", {}, "is of type int, which cannot be called"),
        ("tests.helpers.functions:with_options", {}, "cannot be called .* missing a required argument: 'weights'"),
        ("tests.helpers.functions:with_options", {"weights": [], "of": 1}, "unexpected keyword argument 'of'"),
        ("tests.helpers.functions:with_options", {"weights": [], "config": 1}, "multiple values for argument 'config'"),
    ],
)
def test_an_unusable_function_is_told_before_any_trial(function: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluator(function, **options)


def test_a_module_that_cannot_import_what_it_needs_says_so(user_module: Any) -> None:
    name = user_module("import a_library_nobody_has")
    with pytest.raises(UserError, match=f"cannot import {name}: No module named 'a_library_nobody_has'"):
        evaluator(f"{name}:f")


def test_a_module_with_a_syntax_error_says_so(user_module: Any) -> None:
    name = user_module("def f(config report): return 1")
    with pytest.raises(UserError, match=rf"cannot import {name}: invalid syntax.*line 1"):
        evaluator(f"{name}:f")


def test_any_space_will_do_and_there_is_no_model() -> None:
    mine = evaluator("tests.helpers.functions:act")
    mine.check_space(SearchSpace.model_validate({"y": {"type": "bool"}}))
    assert not mine.has_model
    assert mine.refit({"x": 0.5}) is None
    assert mine.data() is None


def test_its_defaults_are_those_of_the_study_file_in_the_space() -> None:
    def study(**defaults: Any) -> StudySpec:
        return StudySpec.model_validate(
            {
                "name": "mine",
                "evaluator": {"kind": "function", "function": f"{__name__}:score", "defaults": defaults},
                "objective": {"metric": "score", "direction": "maximize"},
                "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}, "y": {"type": "int", "low": 1, "high": 9}},
            }
        )

    assert FunctionEvaluator.defaults(study(x=0.25)) == {"x": 0.25, "y": 5}
    assert FunctionEvaluator.defaults(study(x=7.0, y=2)) == {"x": 1.0, "y": 2}
    wrong = study(x=0.25, z=3)
    with pytest.raises(UserError, match=r"evaluator\.defaults\.z: the space lacks it"):
        FunctionEvaluator(wrong, threads=1).check_space(wrong.space)


def score(config: dict[str, Any], report: Any) -> float:
    return float(config["x"])
