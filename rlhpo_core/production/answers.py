"""What loaded models answer to the gate's rows, and how fast."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd

from rlhpo_core.arrays import Floats
from rlhpo_core.data.holdout import Holdout, counted
from rlhpo_core.errors import UserError
from rlhpo_core.production.labels import renamed

#: How often each model is asked: three times, and more while that is quick. The fastest of three times of milliseconds
#: says more of a busy machine than of a model.
_LEAST_TURNS, _MOST_TURNS, _SECONDS = 3, 50, 2.0
#: Before the name of a class: a column of what a model answers.
_PROBABILITY = "probability_"
#: Classes that a reason names.
_LISTED = 8


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
    classes: tuple[str, ...] = ()
    """All that the model knows, in the holdout or not; empty for numbers."""


@dataclass(frozen=True)
class Comparable:
    """Rows whose classes all models know, and what the models answer to them."""

    rows: Holdout
    """N rows; their classes are those that all models know."""
    answers: Mapping[str, Answers]
    """(N,) numbers or (N, K) probabilities of each model, by name."""
    unknown: tuple[str, ...]
    """Classes that were left out, with their rows."""


def ask(models: Mapping[str, tuple[Model, int]], holdout: Holdout) -> dict[str, Answers]:
    """What each model answers to the rows, and how fast.

    The models take turns, and the fastest time of each counts: others on the machine make a model slower, never faster.

    Args:
        models: Name, as an error is to call it, to the model and its size in bytes.

    Raises: UserError, naming the model that cannot answer.
    """
    outputs: dict[str, Floats] = {}
    classes: dict[str, tuple[str, ...]] = {}
    seconds = dict.fromkeys(models, np.inf)
    began, turns = time.perf_counter(), 0
    while turns < _LEAST_TURNS or (turns < _MOST_TURNS and time.perf_counter() - began < _SECONDS):
        turns += 1
        for name, (model, _) in models.items():
            started = time.perf_counter()
            try:
                answered = model.predict(holdout.rows)
                seconds[name] = min(seconds[name], time.perf_counter() - started)
                outputs[name] = _output(answered, holdout)
            except Exception as error:
                # Whatever a served model raises: it cannot serve these rows.
                raise UserError(f"{name} cannot answer the current data: {type(error).__name__}: {error}") from error
            classes[name] = _classes(answered) if holdout.classes else ()
    rows = max(len(holdout), 1)
    return {
        name: Answers(outputs[name], seconds[name] / rows, size, classes[name]) for name, (_, size) in models.items()
    }


def comparable(holdout: Holdout, answers: Mapping[str, Answers]) -> Comparable:
    """What models can be compared by: the rows of classes that all of them know.

    A class that only the models know changes nothing.

    Args:
        answers: Of each model to these rows, by the name that an error is to call it.

    Raises: UserError if classes look like known ones that are written otherwise, or if fewer than two are known to all.
    """
    names = [str(label) for label in holdout.classes]
    for name, model in answers.items():
        if names and (changed := renamed(model.classes, names)):
            pairs = ", ".join(f"{label!r} (known: {former!r})" for label, former in changed.items())
            raise UserError(
                f"the label seems to be written otherwise than {name} knows it: {pairs}. Write it as before; if these "
                "are other classes, tune with --force and use `rlhpo promote`"
            )
    shared = [k for k, label in enumerate(names) if all(label in model.classes for model in answers.values())]
    if len(shared) == len(names):
        return Comparable(holdout, answers, ())
    unknown = tuple(label for k, label in enumerate(names) if k not in shared)
    if len(shared) < 2:
        know = "; ".join(f"{name} knows {_listed(model.classes)}" for name, model in answers.items())
        raise UserError(
            f"of the table's classes {_listed(names)} fewer than two are known to all who are compared ({know}); a "
            "person has to look at the label"
        )
    kept = np.isin(holdout.target, shared)
    rows = Holdout(
        rows=holdout.rows[kept].reset_index(drop=True),
        target=np.searchsorted(shared, holdout.target[kept]).astype(np.float64),
        classes=tuple(holdout.classes[k] for k in shared),
        weights=None if holdout.weights is None else holdout.weights[kept],
        groups=None if holdout.groups is None else counted(holdout.groups[kept]),
    )
    fewer = {name: replace(model, output=model.output[kept][:, shared]) for name, model in answers.items()}
    return Comparable(rows, fewer, unknown)


def left_out(unknown: Sequence[str]) -> str:
    """What a reason adds about classes that were left out; empty if none was."""
    return f"; left out, since they are new: rows of {_listed(unknown)}" if unknown else ""


def _listed(labels: Sequence[str]) -> str:
    """The first few, for a person to read."""
    if not labels:
        return "no classes"
    more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    return ", ".join(map(repr, labels[:_LISTED])) + more


def _classes(answered: pd.DataFrame) -> tuple[str, ...]:
    return tuple(str(name).removeprefix(_PROBABILITY) for name in answered if str(name).startswith(_PROBABILITY))


def _output(answered: pd.DataFrame, holdout: Holdout) -> Floats:
    """(N,) numbers, or probabilities (N, K) of the holdout's classes; 0 for a class that the model does not know."""
    if not holdout.classes:
        return answered["prediction"].to_numpy(dtype=np.float64)
    columns = [
        answered[f"{_PROBABILITY}{name}"].to_numpy(dtype=np.float64)
        if f"{_PROBABILITY}{name}" in answered
        else np.zeros(len(holdout))
        for name in holdout.classes
    ]
    # Where a model knows none of the classes all are equally unlikely.
    return np.column_stack(columns) + 1e-15
