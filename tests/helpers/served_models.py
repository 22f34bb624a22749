"""Winners saved as MLflow saves them, and what their boosters answer without the serving script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xgboost as xgb
from mlflow.models import Model
from numpy.typing import NDArray

from rlhpo_core.evaluators.protocol import Refit
from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
from rlhpo_core.production.registration import save_model
from tests.helpers.tables import EXAMPLES


def credit_with_grades() -> pd.DataFrame:
    """The credits with a column of truth values, and one of text that is mostly digits."""
    credit = pd.read_csv(EXAMPLES / "german_credit.csv")
    grade = pd.Series(np.arange(len(credit)) % 4 + 2).astype(str).replace("5", "5more")
    return credit.assign(young=credit["age"] < 30, grade=grade)


def save(path: Path, refit: Refit) -> None:
    """The model's folder, as it is registered."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, refit, Model())


def expected_answers(evaluator: XGBoostEvaluator, refit: Refit, rows: NDArray[np.int64]) -> pd.DataFrame:
    """What the booster says of rows of the table as they were encoded for training."""
    booster = xgb.Booster(model_file=bytearray(refit.files["model.ubj"]))
    output = booster.predict(xgb.DMatrix(evaluator.table.features.iloc[rows], enable_categorical=True))
    classes = evaluator.table.classes
    shares = (output if output.ndim == 2 else np.column_stack([1 - output, output])).astype(np.float64)
    frame = pd.DataFrame(shares, columns=[f"probability_{name}" for name in classes])
    frame.insert(0, "prediction", [classes[i] for i in shares.argmax(1)])
    return frame
