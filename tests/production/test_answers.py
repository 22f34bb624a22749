from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data.holdout import Holdout
from rlhpo_core.errors import UserError
from rlhpo_core.production.answers import ask

ROWS = pd.DataFrame({"age": np.linspace(20, 60, 50)})


class Constant:
    """Knows one class, whatever it is asked."""

    def predict(self, data: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"prediction": 1, "probability_1": np.full(len(data), 0.75)})


class Picky:
    def predict(self, data: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"prediction": data["not there"]})


class Counter:
    """A regression model, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, data: pd.DataFrame) -> pd.DataFrame:
        self.asked += 1
        return pd.DataFrame({"prediction": data["age"] * 2})


def test_a_model_that_does_not_know_a_class_gives_it_nothing() -> None:
    rows = Holdout(ROWS, np.zeros(50), classes=(1, 2))
    answers = ask({"old": (Constant(), 10)}, rows)["old"]
    assert answers.output.shape == (50, 2)
    assert answers.output[0] == pytest.approx([0.75, 0.0])
    assert answers.size == 10
    assert 0 < answers.seconds_per_row < 1


def test_the_one_that_cannot_answer_is_named() -> None:
    rows = Holdout(ROWS, np.zeros(50), classes=(1, 2))
    with pytest.raises(UserError, match="the champion cannot answer the current data: KeyError: 'not there'"):
        ask({"the champion": (Picky(), 10)}, rows)


def test_models_take_turns_and_numbers_are_taken_as_they_are() -> None:
    models = {"a": Counter(), "b": Counter()}
    answers = ask({name: (model, 1) for name, model in models.items()}, Holdout(ROWS, np.zeros(50), classes=()))
    assert models["a"].asked == models["b"].asked > 1
    assert answers["b"].output.tolist() == (2 * ROWS["age"]).tolist()
