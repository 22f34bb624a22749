"""Numbers in steps, and choices that are lists or nothing: through actions, features, files and a function.

ray-project/ray#13517, hyperopt/hyperopt#566 and microsoft/nni#2468 tell of steps; scikit-optimize/scikit-optimize#653,
rodrigo-arenas/Sklearn-genetic-opt#102 and wandb/wandb#1533 of choices.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.function import FunctionEvaluator
from rlhpo_core.space.parameters import Float, Int
from rlhpo_core.space.search_space import SearchSpace, load_space
from rlhpo_core.study.spec import StudySpec, dump_study, parse_study
from rlhpo_core.tracking import content
from rlhpo_core.trial import Proposal, Trial, TrialStatus, shown
from rlhpo_core.tuner import algorithm, state_file
from rlhpo_core.tuner.state import initial_state

SPACE = """
batch: {type: int, low: 32, high: 512, step: 32}
dropout: {type: float, low: 0.0, high: 0.5, step: 0.1}
hidden: {type: categorical, choices: [[64], [64, 64], [128, 64, 32]]}
features: {type: categorical, choices: [null, sqrt, log2]}
depth: {type: int, low: 1, high: 8, when: {hidden: [[64], [64, 64]]}}
"""


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=2))
def test_every_action_comes_to_a_step(actions: list[float]) -> None:
    batch = Int(name="batch", low=32, high=512, step=32)
    dropout = Float(name="dropout", low=0.0, high=0.5, step=0.1)
    for parameter, action in zip((batch, dropout), actions, strict=True):
        (code,) = parameter.codes(np.array([action]))
        assert parameter.code(parameter.value(code)) == code
        assert parameter.low <= code <= parameter.high
        steps = (code - parameter.low) / float(parameter.step or 0)
        assert steps == pytest.approx(round(steps), abs=1e-9)


def test_both_ends_and_all_steps_are_reached() -> None:
    dropout = Float(name="dropout", low=0.0, high=0.5, step=0.1)
    reached = {dropout.value(code) for code in dropout.codes(np.linspace(-1, 1, 999))}
    assert reached == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    batch = Int(name="batch", low=32, high=512, step=32)
    assert {batch.value(code) for code in batch.codes(np.linspace(-1, 1, 999))} == set(range(32, 513, 32))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("a: {type: int, low: 1, high: 10, step: 4}", "do not meet high .*write for example high: 9"),
        ("a: {type: float, low: 0, high: 1, step: 0.3}", "write for example high: 0.9"),
        ("a: {type: int, low: 1, high: 3, step: 9}", "do not meet high"),
        ("a: {type: int, low: 1, high: 9, step: 0}", "must be at least 1"),
        ("a: {type: float, low: 0, high: 1, step: -0.1}", "must be above 0"),
        ("a: {type: float, low: 0.1, high: 0.9, step: 0.1, log: true}", "do not go together"),
        ("a: {type: categorical, choices: [[1], [1]]}", "given twice"),
        ("a: {type: categorical, choices: [{b: 1}]}", "a value is text, a number"),
        ("a: {type: categorical, choices: [2024-01-01]}", "of type date"),
    ],
)
def test_what_cannot_be_is_refused(space: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_space(space)


def test_a_value_between_two_steps_is_none() -> None:
    with pytest.raises(ValueError, match="not reached from 32 in steps of 32"):
        load_space(SPACE).steps[0].code(40)


def study(**fields: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "choices",
            "evaluator": {"kind": "function", "function": "tests.space.test_steps_and_choices:train"},
            "objective": {"metric": "score", "direction": "maximize"},
            "space": load_space(SPACE).model_dump(),
            **fields,
        }
    )


def train(config: dict[str, Any], report: Any) -> float:
    """Looks at what it is given."""
    assert isinstance(config["hidden"], list)
    assert config["features"] in (None, "sqrt", "log2")
    assert config["batch"] % 32 == 0
    assert ("depth" in config) == (len(config["hidden"]) < 3)
    return float(len(config["hidden"]))


def test_a_study_of_them_runs_is_kept_and_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    spec = study()
    assert parse_study(dump_study(spec), "x") == spec
    assert hash(spec.space) == hash(SearchSpace.model_validate(json.loads(json.dumps(spec.space.model_dump()))))
    function = FunctionEvaluator(spec, threads=1)
    state = initial_state("id", 0, spec.space, "maximize", spec.tuner)
    for _ in range(3):
        done = []
        for proposal in algorithm.propose(state):
            again = Proposal.model_validate_json(proposal.model_dump_json())
            assert again == proposal, "as a file keeps it"
            value = function.evaluate(again.config, lambda step, value: None).value
            trial = Trial(proposal=again, status=TrialStatus.COMPLETE, value=value)
            assert content.config_of(content.trial_params(trial), spec.space) == trial.config, "as MLflow keeps it"
            done.append(trial)
        state = algorithm.update_policy(algorithm.fit_reward_model(algorithm.observe(state, done)))
        kept = state_file.from_bytes(state_file.to_bytes(state))
        assert kept.history == state.history, "as the state keeps it"
    seen = {trial.config["hidden"] for trial in state.history.trials}
    assert seen <= {(64,), (64, 64), (128, 64, 32)}


def test_values_as_people_read_them() -> None:
    assert [shown(value) for value in ((64, 64), None, "sqrt", 0.5, True)] == [
        "[64, 64]",
        "null",
        "sqrt",
        "0.5",
        "True",
    ]
