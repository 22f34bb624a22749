"""The tests for evaluators that come with rlhpo find what is wrong with one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import ClassVar

import pytest

from rlhpo_core.evaluators.function import FunctionEvaluator
from rlhpo_core.evaluators.protocol import NO_CHECKPOINT, Checkpoint, Evaluation, Evaluator, Reporter, StopTrial
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.testing.evaluators import EvaluatorContract
from rlhpo_core.trial import Config

pytestmark = pytest.mark.usefixtures("only_these_settings")


class Moody(FunctionEvaluator):
    """Remembers earlier trials, and lets them change its scores."""

    trials = 0

    def evaluate(self, config: Config, report: Reporter, checkpoint: Checkpoint = NO_CHECKPOINT) -> Evaluation:
        self.trials += 1
        found = super().evaluate(config, report)
        return Evaluation(found.value + self.trials, found.metrics)


class Deaf(FunctionEvaluator):
    """Goes on when it is told to stop."""

    def evaluate(self, config: Config, report: Reporter, checkpoint: Checkpoint = NO_CHECKPOINT) -> Evaluation:
        def unheard(step: int, value: float) -> None:
            with contextlib.suppress(StopTrial):
                report(step, value)

        return super().evaluate(config, unheard)


class Careless(FunctionEvaluator):
    """Changes what it was given, and trains what cannot be."""

    def evaluate(self, config: Config, report: Reporter, checkpoint: Checkpoint = NO_CHECKPOINT) -> Evaluation:
        found = super().evaluate(config, report)
        config["seen"] = True
        return found


class Forgetful(FunctionEvaluator):
    """Takes whatever a checkpoint holds for its own result."""

    def evaluate(self, config: Config, report: Reporter, checkpoint: Checkpoint = NO_CHECKPOINT) -> Evaluation:
        if checkpoint.read() is not None:
            return Evaluation(0.0)
        checkpoint.write(b"something")
        return super().evaluate(config, report)


class Contract(EvaluatorContract):
    config: ClassVar[Config] = {"x": 0.3}
    infeasible: ClassVar[Config | None] = {"x": 0.9}

    def __init__(self, kind: type[Evaluator]) -> None:
        self._kind = kind

    def spec(self, folder: Path) -> StudySpec:
        return StudySpec.model_validate(
            {
                "name": "mine",
                "evaluator": {"kind": "function", "function": "tests.helpers.functions:stairs"},
                "objective": {"metric": "score", "direction": "maximize"},
                "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            }
        )

    def built(self, folder: Path) -> Evaluator:
        return self._kind(self.spec(folder), 1)


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Moody, "test_the_same_configuration_scores_the_same"),
        (Moody, "test_it_stops_when_it_is_told"),
        (Deaf, "test_it_stops_when_it_is_told"),
        (Careless, "test_the_configuration_is_left_as_it_was"),
        (Careless, "test_what_is_infeasible_costs_nothing"),
        (Careless, "test_wrong_hyperparameters_are_refused"),
        (Forgetful, "test_a_trial_that_was_killed_comes_to_the_same_end"),
        (Forgetful, "test_a_checkpoint_that_does_not_fit_is_passed_over"),
    ],
)
def test_what_is_wrong_is_found(kind: type[Evaluator], test: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        getattr(Contract(kind), test)(tmp_path)
