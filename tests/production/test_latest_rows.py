"""A retuning of a table with dates holds out the latest rows, and says so to the study that it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.production.registered_model import RegisteredModel
from rlhpo_core.production.retuning import check, tuned_spec
from rlhpo_core.study.spec import SplitSpec, StudySpec


def study(folder: Path, days: Any, **data: Any) -> StudySpec:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"day": days, "fee": rng.normal(size=len(days)), "churn": rng.choice(["no", "yes"], len(days))}
    )
    table.to_csv(folder / "table.csv", index=False)
    return StudySpec.model_validate(
        {
            "name": "churn",
            "data": {"path": folder / "table.csv", "target": "churn", **data},
            "evaluator": {"kind": "xgboost"},
            "objective": "accuracy",
            "space": "xgboost-paper",
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
            "registry": {"model": "churn"},
        }
    )


@pytest.mark.parametrize(
    ("data", "split"),
    [
        ({}, SplitSpec(by="time", column="day")),
        ({"split": {"by": "group", "column": "day"}}, None),
        ({"drop": ["day"]}, None),
        ({"columns": {"day": "category"}}, None),
    ],
)
def test_one_column_of_dates_divides_the_rows(data: Any, split: SplitSpec | None, tmp_path: Path) -> None:
    days = (pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(300) * 7 % 100, unit="D")).strftime("%Y-%m-%d")
    spec = study(tmp_path, days, **data)
    findings = check(spec, RegisteredModel.of_study(spec, tmp_path))
    assert findings.split == split
    tuned = tuned_spec(spec, findings)
    assert tuned.data is not None
    assert tuned.data.split == (split or spec.data.split)  # type: ignore[union-attr]
    if split is None:
        return
    evaluator = build_evaluator(tuned, 1)
    described = evaluator.data()
    assert described is not None
    assert described.digest == findings.digest
    assert described.rows["holdout"] == 60
    parts, dates = evaluator.split, evaluator.table.features["day"]  # type: ignore[attr-defined]
    assert dates[parts.validation].max() < dates[parts.holdout].min()


def test_times_of_the_day_do_not(tmp_path: Path) -> None:
    spec = study(tmp_path, [f"{i % 24:02d}:{i % 60:02d}" for i in range(300)])
    assert check(spec, RegisteredModel.of_study(spec, tmp_path)).split is None
