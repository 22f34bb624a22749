"""The example tables, and XGBoost evaluators on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
from rlhpo_core.study.spec import StudySpec

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
#: Of trees, and of a linear booster.
CONFIG = {"max_depth": 4, "learning_rate": 0.2, "n_estimators": 40, "subsample": 0.8}
LINEAR = {"booster": "gblinear", "n_estimators": 30, "learning_rate": 0.5, "reg_alpha": 0.001, "reg_lambda": 0.001}


def quiet(step: int, value: float) -> None:
    """A reporter that nobody listens to."""


def build(path: Path, metric: str = "accuracy", **fields: Any) -> XGBoostEvaluator:
    """An evaluator of a table whose target is called so; ``fields`` are the study's."""
    evaluator = {"kind": "xgboost", **fields.pop("evaluator", {})}
    spec = StudySpec.model_validate(
        {
            "name": "test",
            "data": {"path": path, "target": "target", **fields.pop("data", {})},
            "evaluator": evaluator,
            "objective": metric,
            "space": "xgboost-paper",
            **fields,
        }
    )
    built = build_evaluator(spec, threads=1)
    assert isinstance(built, XGBoostEvaluator)
    return built
