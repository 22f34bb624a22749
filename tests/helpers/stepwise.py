"""The text of a small study on real data, for the steps of the pipeline: they get studies as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parents[2] / "examples" / "data" / "german_credit.csv"
SPACE = {
    "n_estimators": {"type": "int", "low": 2, "high": 20},
    "max_depth": {"type": "int", "low": 1, "high": 4},
    "learning_rate": {"type": "float", "low": 0.05, "high": 0.5, "log": True},
}


def study(trials: int = 7, **fields: Any) -> str:
    """Rounds of three; the second trial is made to fail."""
    text: str = yaml.safe_dump(
        {
            "name": "stepwise",
            "data": {"path": str(DATA), "target": "target", "max_rows": 200},
            "evaluator": {"kind": "xgboost"},
            "objective": "auc",
            "space": SPACE,
            "budget": {"trials": trials},
            "tuner": {"trials_per_round": 3},
            "execution": {"drill": [2], "threads": 1},
            "registry": {"model": "stepwise"},
            **fields,
        }
    )
    return text
