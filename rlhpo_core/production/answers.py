"""What loaded models answer to the gate's rows, and how fast."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from rlhpo_core.arrays import Floats
from rlhpo_core.data.holdout import Holdout
from rlhpo_core.errors import UserError

_REPEATS = 3


class Model(Protocol):
    """A served model: raw rows in, ``prediction`` and, for classes, ``probability_…`` out."""

    def predict(self, data: pd.DataFrame) -> pd.DataFrame:
        """One row of answers for each row of ``data``, in their order."""
        ...


@dataclass(frozen=True)
class Answers:
    """What a model answers to the gate's rows."""

    output: Floats
    """(N,) numbers, or probabilities (N, K)."""
    seconds_per_row: float
    size: int
    """Bytes."""


def ask(models: Mapping[str, tuple[Model, int]], holdout: Holdout) -> dict[str, Answers]:
    """What each model answers to the rows, and how fast.

    The models take turns, and the fastest time of each counts: others on the machine make a model slower, never faster.

    Args:
        models: Name, as an error is to call it, to the model and its size in bytes.

    Raises: UserError, naming the model that cannot answer.
    """
    outputs: dict[str, Floats] = {}
    seconds = dict.fromkeys(models, np.inf)
    for _ in range(_REPEATS):
        for name, (model, _) in models.items():
            started = time.perf_counter()
            try:
                answered = model.predict(holdout.rows)
            except Exception as error:
                # Whatever a served model raises: it cannot serve these rows.
                raise UserError(f"{name} cannot answer the current data: {type(error).__name__}: {error}") from error
            seconds[name] = min(seconds[name], time.perf_counter() - started)
            outputs[name] = _output(answered, holdout)
    rows = max(len(holdout), 1)
    return {name: Answers(outputs[name], seconds[name] / rows, size) for name, (_, size) in models.items()}


def _output(answered: pd.DataFrame, holdout: Holdout) -> Floats:
    """(N,) numbers, or probabilities (N, K) of the holdout's classes; 0 for a class that the model does not know."""
    if not holdout.classes:
        return answered["prediction"].to_numpy(dtype=np.float64)
    columns = [
        answered[f"probability_{name}"].to_numpy(dtype=np.float64)
        if f"probability_{name}" in answered
        else np.zeros(len(holdout))
        for name in holdout.classes
    ]
    # Where a model knows none of the classes all are equally unlikely.
    return np.column_stack(columns) + 1e-15
