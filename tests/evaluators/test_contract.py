"""Every kind of evaluator does what all of them have to."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest

from rlhpo_core.evaluators.kinds import CLASSES
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.testing.evaluators import EvaluatorContract
from rlhpo_core.trial import Config
from tests.helpers.pictures import SMALL, as_npz, study
from tests.helpers.tables import CONFIG, EXAMPLES


class TestXGBoost(EvaluatorContract):
    config: ClassVar[Config] = CONFIG
    other: ClassVar[Config | None] = {**CONFIG, "max_depth": 1}

    def spec(self, folder: Path) -> StudySpec:
        pd.read_csv(EXAMPLES / "german_credit.csv").to_csv(folder / "credit.csv", index=False)
        return StudySpec.model_validate(
            {
                "name": "credit",
                "data": {"path": folder / "credit.csv", "target": "target"},
                "evaluator": {"kind": "xgboost", "report_every": 10},
                "objective": "auc",
                "space": "xgboost-paper",
            }
        )


@pytest.mark.usefixtures("only_these_settings")
class TestFunction(EvaluatorContract):
    config: ClassVar[Config] = {"x": 0.3}
    other: ClassVar[Config | None] = {"x": 0.4}
    any_space = True

    def spec(self, folder: Path) -> StudySpec:
        return StudySpec.model_validate(
            {
                "name": "mine",
                "evaluator": {"kind": "function", "function": "tests.helpers.functions:stairs"},
                "objective": {"metric": "score", "direction": "maximize"},
                "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            }
        )


class TestCNN(EvaluatorContract):
    config: ClassVar[Config] = SMALL
    other: ClassVar[Config | None] = {**SMALL, "learning_rate": 0.001}
    infeasible: ClassVar[Config | None] = {**SMALL, "conv1_stride": 5, "pool1_kernel": 5}
    goes_on = True

    def spec(self, folder: Path) -> StudySpec:
        return study(as_npz(folder / "corners.npz"), epochs=3, metric="log_loss", evaluator={"padding": "none"})


def test_all_kinds_are_here() -> None:
    contracts = {"xgboost": TestXGBoost, "function": TestFunction, "cnn": TestCNN}
    assert set(contracts) == set(CLASSES)
