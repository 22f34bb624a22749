"""A study whose trials stop early, by a function that follows from its configuration alone."""

from __future__ import annotations

from typing import Any

import yaml


def study(rule: Any, trials: int = 18, function: str = "climb", **fields: Any) -> str:
    """The text of its file: rounds of four, without a prior."""
    text: str = yaml.safe_dump(
        {
            "name": "climbing",
            "evaluator": {"kind": "function", "function": f"tests.helpers.functions:{function}"},
            "objective": {"metric": "height", "direction": "maximize"},
            "space": {name: {"type": "float", "low": 0.0, "high": 1.0} for name in "xy"},
            "budget": {"trials": trials},
            "tuner": {"trials_per_round": 4},
            "stopping": rule,
            "execution": {"threads": 1},
            **fields,
        }
    )
    return text
