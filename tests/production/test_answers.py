from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data.holdout import Holdout
from rlhpo_core.errors import UserError
from rlhpo_core.production.answers import Comparable, Model, ask, comparable

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


class Frequencies:
    """Gives each of its classes a probability, to all rows the same."""

    def __init__(self, **shares: float) -> None:
        self.shares = shares

    def predict(self, data: pd.DataFrame) -> pd.DataFrame:
        best = max(self.shares, key=lambda name: self.shares[name])
        shares = {f"probability_{name}": np.full(len(data), share) for name, share in self.shares.items()}
        return pd.DataFrame({"prediction": best, **shares})


def compared(classes: tuple[str, ...], **models: Model) -> Comparable:
    rows = Holdout(ROWS, np.arange(50.0) % len(classes), classes)
    return comparable(rows, ask({name: (model, 1) for name, model in models.items()}, rows))


def test_classes_that_all_know_change_nothing() -> None:
    both = compared(("a", "b"), old=Frequencies(a=0.2, b=0.5, c=0.3), new=Frequencies(a=0.4, b=0.6))
    assert (len(both.rows), both.rows.classes, both.unknown) == (50, ("a", "b"), ())
    assert both.answers["old"].output[0] == pytest.approx([0.2, 0.5]), "c is absent, not renamed"
    assert both.answers["old"].classes == ("a", "b", "c")


def test_a_new_class_is_left_out_with_its_rows() -> None:
    both = compared(("a", "b", "c"), old=Frequencies(a=0.3, c=0.7), new=Frequencies(a=0.2, b=0.5, c=0.3))
    assert both.unknown == ("b",)
    assert both.rows.classes == ("a", "c")
    assert len(both.rows) == len(both.rows.rows) == 33
    assert both.rows.target.tolist() == [0.0, 1.0] * 16 + [0.0]
    assert both.answers["old"].output[0] == pytest.approx([0.3, 0.7])
    assert both.answers["new"].output.shape == (33, 2)
    assert both.answers["new"].output[0] == pytest.approx([0.2, 0.3])


def test_classes_written_otherwise_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"otherwise than old knows it: 'NO' \(known: 'no'\), 'YES' \(known: 'yes'\)"):
        compared(("NO", "YES"), new=Frequencies(NO=0.5, YES=0.5), old=Frequencies(no=0.5, yes=0.5))


def test_with_fewer_than_two_common_classes_nothing_can_be_compared() -> None:
    with pytest.raises(UserError, match=r"'gut', 'schlecht' fewer than two .* \(old knows 'good', 'bad'; new knows"):
        compared(("gut", "schlecht"), old=Frequencies(good=0.5, bad=0.5), new=Frequencies(gut=0.5, schlecht=0.5))
    with pytest.raises(UserError, match="old knows no classes"):
        compared(("a", "b"), old=Counter())


def test_an_answer_of_another_kind_is_named() -> None:
    rows = Holdout(ROWS, np.zeros(50), classes=())
    with pytest.raises(UserError, match="the champion cannot answer the current data: ValueError"):
        ask({"the champion": (Frequencies(a=0.5, b=0.5), 10)}, rows)


def test_models_take_turns_and_numbers_are_taken_as_they_are() -> None:
    models = {"a": Counter(), "b": Counter()}
    answers = ask({name: (model, 1) for name, model in models.items()}, Holdout(ROWS, np.zeros(50), classes=()))
    assert models["a"].asked == models["b"].asked > 1
    assert answers["b"].output.tolist() == (2 * ROWS["age"]).tolist()
