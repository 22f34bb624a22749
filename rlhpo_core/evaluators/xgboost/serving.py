"""The winner as an MLflow model (models from code): raw rows in, prediction and probabilities out.

Logged beside the model's files and run where it is served, so it imports nothing of rlhpo.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import xgboost as xgb
from mlflow.pyfunc import PythonModel, PythonModelContext


class XGBoostTableModel(PythonModel):  # type: ignore[misc]
    """Encodes raw rows as they were encoded in training. A category that training never saw counts as missing."""

    def load_context(self, context: PythonModelContext) -> None:
        self.table: dict[str, Any] = json.loads(Path(context.artifacts["table.json"]).read_text(encoding="utf-8"))
        self.booster = xgb.Booster(model_file=context.artifacts["model.ubj"])
        made = json.loads(self.booster.save_config())["learner"]["gradient_booster"]["name"]
        self.linear = made == "gblinear"

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        columns = {}
        for name, booster_name in zip(self.table["columns"], self.table["booster_columns"], strict=True):
            values, categories = model_input[name], self.table["categories"].get(name)
            if categories is None:
                columns[booster_name] = pd.to_numeric(values).astype("float64")
            else:
                text = values.map(str, na_action="ignore")
                columns[booster_name] = text.where(text.isin(categories)).astype(pd.CategoricalDtype(categories))
        frame = pd.DataFrame(columns)
        if self.linear:  # It takes no categories: a column of 0 and 1 for each.
            frame = pd.get_dummies(frame, dtype="float64")
            frame = frame.set_axis([str(i) for i in range(frame.shape[1])], axis=1)
        output = self.booster.predict(xgb.DMatrix(frame, enable_categorical=True))
        return answer(output, self.table["classes"])


def answer(output: Any, classes: Sequence[Any]) -> pd.DataFrame:
    """The prediction and, for classes, the probability of each; output as the booster gives it, (N,) or (N, K)."""
    if not classes:
        return pd.DataFrame({"prediction": output.astype(np.float64)})
    shares = (output if output.ndim == 2 else np.column_stack([1 - output, output])).astype(np.float64)
    frame = pd.DataFrame({f"probability_{name}": shares[:, i] for i, name in enumerate(classes)})
    frame.insert(0, "prediction", [classes[i] for i in shares.argmax(1)])
    return frame


mlflow.models.set_model(XGBoostTableModel())
