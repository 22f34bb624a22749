"""The winner as MLflow serves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.helpers.tables import CONFIG, EXAMPLES, LINEAR, build


def serve(folder: Path, files: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The winner behind the script that MLflow would run."""
    from mlflow.pyfunc import PythonModelContext

    from rlhpo_core.evaluators.xgboost.serving import XGBoostTableModel

    for name, content in files.items():
        (folder / name).write_bytes(content)
    context = PythonModelContext({name: str(folder / name) for name in files}, None)
    model = XGBoostTableModel()
    model.load_context(context)
    return lambda rows: model.predict(context, rows)


def test_missing_values_and_unseen_categories_are_served(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "german_credit.csv")
    raw.loc[::7, "duration"] = np.nan
    raw.loc[::5, "purpose"] = None
    raw.to_csv(tmp_path / "gaps.csv", index=False)
    refit = build(tmp_path / "gaps.csv").refit(CONFIG)
    rows = refit.input_example.copy()
    rows.loc[0, "purpose"] = "a purpose never seen"
    served = serve(tmp_path, refit.files)(rows)
    assert served["prediction"].isin([1, 2]).all()
    np.testing.assert_allclose(served[["probability_1", "probability_2"]].sum(axis=1), 1, atol=1e-6)
    again = serve(tmp_path, refit.files)(refit.input_example)
    pd.testing.assert_frame_equal(again, refit.output_example, check_exact=False, rtol=1e-5)


def test_a_linear_booster_is_served_with_categories_and_gaps(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "german_credit.csv")
    raw.loc[::7, "duration"] = np.nan
    raw.to_csv(tmp_path / "gaps.csv", index=False)
    refit = build(tmp_path / "gaps.csv").refit(LINEAR)
    served = serve(tmp_path, refit.files)(refit.input_example)
    pd.testing.assert_frame_equal(served, refit.output_example, check_exact=False, rtol=1e-5)


def test_awkward_column_names_are_no_hindrance(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "car.csv").rename(
        columns={"doors": "doors [n]", "persons": "persons<n>", "safety": "doors (n]"}
    )
    raw.to_csv(tmp_path / "table.csv", index=False)
    refit = build(tmp_path / "table.csv").refit(CONFIG)
    assert "doors [n]" in refit.input_example
    served = serve(tmp_path, refit.files)(refit.input_example)
    pd.testing.assert_frame_equal(served, refit.output_example, check_exact=False, rtol=1e-5)
