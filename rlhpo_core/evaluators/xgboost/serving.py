"""The winner as an MLflow model (models from code): raw rows in, prediction and probabilities out.

Logged with the model's files and run where it is served, so it imports nothing of rlhpo. What turns cells into numbers
is the module that training has used (``data.conversions``): the model carries a copy of it.
"""

import json
import numbers
import types
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import xgboost as xgb
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

_SCALARS = (str, bool, np.bool_, numbers.Real, Decimal)


class XGBoostTableModel(PythonModel):  # type: ignore[misc]
    """Encodes raw rows as they were encoded in training. A category that training never saw counts as missing."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the booster (``model.ubj``) and what it needs to know of its table (``table.json``)."""
        self.table: dict[str, Any] = json.loads(Path(context.artifacts["table.json"]).read_text(encoding="utf-8"))
        self.booster = xgb.Booster(model_file=context.artifacts["model.ubj"])
        self.conversions = _module(context.artifacts["conversions.py"])
        made = json.loads(self.booster.save_config())["learner"]["gradient_booster"]["name"]
        self.linear = made == "gblinear"

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers to raw rows.

        Args:
            context: Not used; ``load_context`` has read all files.
            model_input: The table's columns by name, in any order and of any dtype, as a frame, a list of records or a
                dict of lists. Other columns are passed over; NaN, None or NA where a value is missing.
            params: Not used; MLflow passes it.

        Returns: As ``answer``, with the index of a frame that was given.

        Raises: MlflowException, naming the column, if one is not there or holds what cannot be what it was trained on.
        """
        rows = _rows(model_input, self.table["columns"])
        names = zip(self.table["columns"], self.table["booster_columns"], strict=True)
        frame = pd.DataFrame(
            {
                called: encoded(self.conversions, name, rows[name], self.table["described"][name])
                for name, called in names
            }
        )
        if self.linear:  # It takes no categories: a column of 0 and 1 for each.
            frame = pd.get_dummies(frame, dtype="float64")
            frame = frame.set_axis([str(i) for i in range(frame.shape[1])], axis=1)
        output = self.booster.predict(xgb.DMatrix(frame, enable_categorical=True))
        if not self.table["classes"]:
            unit = self.table["unit"]
            output = output.astype(np.float64) * unit["scale"] + unit["centre"]
        return answer(output, self.table["classes"]).set_axis(rows.index, axis=0)


def answer(output: Any, classes: Sequence[Any]) -> pd.DataFrame:
    """The prediction and, for classes, the probability of each.

    Args:
        output: (N,) numbers, or probabilities of the second class, or (N, K) probabilities.
        classes: Empty for regression.

    Returns: N rows with ``prediction`` and, for each class, ``probability_CLASS``.
    """
    if not classes:
        return pd.DataFrame({"prediction": output.astype(np.float64)})
    shares = (output if output.ndim == 2 else np.column_stack([1 - output, output])).astype(np.float64)
    frame = pd.DataFrame({f"probability_{name}": shares[:, i] for i, name in enumerate(classes)})
    frame.insert(0, "prediction", [classes[i] for i in shares.argmax(1)])
    return frame


def encoded(conversions: Any, name: str, values: pd.Series, described: Mapping[str, Any]) -> pd.Series:
    """A column as it was encoded in training.

    Args:
        conversions: The module of that name.
        described: What training knew of the column (``ColumnSchema`` as JSON).

    Raises: MlflowException, naming the column, at values that cannot be what it was trained on.
    """
    kind = described["kind"]
    if kind == "empty":  # Blank throughout in training: whatever it holds now tells the booster nothing.
        return pd.Series(np.nan, index=values.index)
    if kind == "category":
        return categories_of(conversions, name, values, described["categories"], described["exact"])
    if kind == "boolean":
        trained, (parsed, wrong) = "truth values", conversions.truths_of(values)
    elif kind == "time":
        trained, time = f"times ({described['time']['format']})", described["time"]
        parsed, wrong = conversions.times_of(values, time["format"], time["origin"])
    else:
        trained, (parsed, wrong) = "numbers", conversions.numbers_of(values, described["number"])
    if wrong.any():
        raise _refused(name, f"was trained on {trained}, and {values[wrong].iloc[0]!r} is none")
    with np.errstate(invalid="ignore"):
        if (np.abs(parsed) > conversions.LARGEST).any():
            raise _refused(
                name, "holds infinite values, or larger ones than training could; leave them blank if missing"
            )
    if _misread(values, described.get("number")):
        raise _refused(
            name, "was trained on text with points between thousands; send its values as text, as they stood"
        )
    return pd.Series(parsed, index=values.index)


def _misread(values: pd.Series, written: Mapping[str, Any] | None) -> bool:
    """Whether a reader has made 1.234 of a text that stands for 1234."""
    if written is None or written["thousands"] != "." or not pd.api.types.is_float_dtype(values.dtype):
        return False
    numbers = values.dropna().to_numpy(dtype=np.float64)
    fractions = numbers[numbers % 1 != 0]
    return bool(
        len(fractions) and (np.abs(numbers) < 1000).all() and (np.round(fractions * 1000) == fractions * 1000).all()
    )


def categories_of(
    conversions: Any, name: str, values: pd.Series, categories: Sequence[str], exact: bool = False
) -> pd.Series:
    """A column of text, with the categories of training, by other spellings too; other text counts as missing.

    Where each text of a batch is a number its reader has made numbers of it: 7 stands for ``7``, or for ``007``.

    Raises: MlflowException, naming the column, if numbers or truth values come that no category or more than one looks
    like, and at values that are neither text, numbers nor truth values.
    """
    cells = _cells(name, values)
    if len(cells) and (cells == name).all() and name not in categories:
        # What MLflow's check makes of two columns of the same name.
        raise _refused(name, "holds nothing but its own name; is it there twice?")
    by_value: dict[Decimal, list[str]] = {}
    for category in categories:
        if (value := _decimal(category)) is not None:
            by_value.setdefault(value, []).append(category)

    def category_of(cell: Any) -> str | None:
        if cell is None or isinstance(cell, str):
            return cell
        truth = isinstance(cell, bool | np.bool_)
        alike = [str(cell)] if truth else by_value.get(Decimal(str(cell)), [])
        if len(alike) > 1:
            raise _refused(name, f"was trained on text, and {cell!r} may be {' or '.join(alike)}; send it as text")
        if str(cell) not in categories if truth else not by_value:
            raise _refused(name, f"was trained on text such as {categories[0]!r}, and {cell!r} is of another kind")
        return alike[0] if alike else None

    text = pd.Series([category_of(cell) for cell in cells], index=values.index, dtype=object)
    known: pd.Series = conversions.respelt(text, categories, exact)
    return known.where(known.isin(categories), None).astype(pd.CategoricalDtype(list(categories)))


def _rows(model_input: Any, names: Sequence[str]) -> pd.DataFrame:
    """The columns of training.

    Raises: MlflowException, naming a column that is not there, or there twice.
    """
    frame = pd.DataFrame(model_input)
    for name in names:
        count = int((frame.columns == name).sum())
        if count != 1:
            raise _refused(name, "is not there" if count == 0 else f"is there {count} times")
    frame = frame[list(names)]
    if len(frame) == 1 and all(isinstance(cell, list) for cell in frame.iloc[0]):
        # What MLflow's check makes of a dict of lists that hold nothing but text.
        return pd.DataFrame({name: frame[name].iloc[0] for name in names})
    return frame


def _cells(name: str, values: pd.Series) -> pd.Series:
    """The values as Python objects, None where missing."""
    cells = values.astype(object)
    cells = cells.where(cells.notna(), None)
    for cell in cells:
        if cell is not None and not isinstance(cell, _SCALARS):
            raise _refused(name, f"holds a {type(cell).__name__}, {cell!r}; numbers, text and truth values are taken")
    return cells


def _module(path: str) -> Any:
    """A module of its own for each model: another one that is loaded here may carry another version of it.

    Nothing is written beside it: a model's folder may be read-only.
    """
    module = types.ModuleType("rlhpo_conversions")
    exec(compile(Path(path).read_bytes(), path, "exec"), module.__dict__)
    return module


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _refused(name: str, reason: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(f"column {name!r} {reason}")


mlflow.models.set_model(XGBoostTableModel())
