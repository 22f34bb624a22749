"""A messy table is served as it was trained on: the registered model answers the file's own cells like the booster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from tests.helpers.served_models import expected_answers, save
from tests.helpers.tables import CONFIG, build

ROWS = 400


def messy() -> pd.DataFrame:
    """A column of each kind of trouble, as text, and a target that most of them tell something of."""
    rng = np.random.default_rng(4)
    worth, km = rng.integers(500, 30000, ROWS), rng.integers(1, 300, ROWS) * 500
    days, plan = rng.integers(0, 700, ROWS), rng.integers(0, 3, ROWS)
    spelt = [("plus", "plus ", "PLUS"), ("pro", "pro.", "pro"), ("basic", "basic", "Basic")]
    score = worth / 3000 - km / 50000 + days / 300 + plan + rng.normal(size=ROWS)
    return pd.DataFrame(
        {
            "price": [f"${value:,}" for value in worth],
            "odometer [km]": [f"{value:,}km" for value in km],
            "share": [f"{value % 97 / 2} %" if value % 11 else " " for value in km],
            "signed up": (pd.Timestamp("2023-01-31") + pd.to_timedelta(days, unit="D")).strftime("%d.%m.%Y"),
            "zip": [f"{value % 40 * 257:05d}" for value in worth],
            "version": [f"1.{value % 12}" if value % 12 != 1 else "1.10" for value in km // 500],
            "size": [f"{value % 50 + 1}M" if value % 3 else f"{value % 900 + 1}k" for value in worth],
            "plan": [spelt[kind][value % 3] for kind, value in zip(plan, worth, strict=True)],
            "online": np.where(days % 2, "True", "False"),
            "target": np.where(score > np.median(score), "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, pd.DataFrame]:
    """The file, the loaded model, and the answers of its booster to the table as it was encoded for training."""
    folder = tmp_path_factory.mktemp("messy")
    messy().to_csv(folder / "messy.csv", index=False)
    evaluator = build(folder / "messy.csv")
    refit = evaluator.refit(CONFIG)
    save(folder / "model", refit)
    evaluator.table.features.columns = evaluator._named(evaluator.table.features).columns
    expected = expected_answers(evaluator, refit, np.arange(ROWS))
    return folder / "messy.csv", mlflow.pyfunc.load_model(str(folder / "model")), expected


def test_every_column_is_what_it_means(tmp_path: Path) -> None:
    messy().to_csv(tmp_path / "messy.csv", index=False)
    table = build(tmp_path / "messy.csv").table
    kinds = {name: column.kind for name, column in table.schema.columns.items()}
    assert kinds == {
        "price": "number", "odometer [km]": "number", "share": "number", "signed up": "time", "zip": "category",
        "version": "category", "size": "number", "plan": "category", "online": "boolean",
    }  # fmt: skip
    assert table.categories["plan"] == ["basic", "plus", "pro"]
    assert table.features["size"].max() == pytest.approx(50e6)
    told = "\n".join(table.notes)
    for word in ("'price'", "'odometer [km]'", "'share'", "'signed up'", "'zip'", "'version'", "'size'", "'plan'"):
        assert f"column {word}: " in told
    assert "'online'" not in told


@pytest.mark.parametrize("dtype", [str, None])
def test_a_file_is_answered_as_it_was_trained_on(dtype: Any, served: Any) -> None:
    """Read as text, and as pandas reads it by itself, which makes numbers of zip codes."""
    path, model, expected = served
    if dtype is None:
        expected = expected.iloc[:40]
    rows = pd.read_csv(path, dtype=dtype, nrows=len(expected))
    if dtype is None:
        rows["version"] = pd.read_csv(path, dtype=str, nrows=len(expected))["version"]
    answered = model.predict(rows)
    pd.testing.assert_frame_equal(answered, expected, check_dtype=False, rtol=1e-5)
    records = model.predict(rows.to_dict("records"))
    pd.testing.assert_frame_equal(records, expected, check_dtype=False, rtol=1e-5)


def test_dates_may_come_as_dates(served: Any) -> None:
    path, model, expected = served
    rows = pd.read_csv(path, dtype=str)
    for dates in (
        pd.to_datetime(rows["signed up"], format="%d.%m.%Y"),
        pd.to_datetime(rows["signed up"], format="%d.%m.%Y", utc=True),
        pd.to_datetime(rows["signed up"], format="%d.%m.%Y").dt.strftime("%Y-%m-%d"),
    ):
        pd.testing.assert_frame_equal(
            model.predict(rows.assign(**{"signed up": dates})), expected, check_dtype=False, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("price", "€5", r"column 'price' was trained on numbers, and '€5' is none"),
        ("odometer [km]", "5 miles", r"column 'odometer \[km\]' was trained on numbers, and '5 miles' is none"),
        ("signed up", "yesterday", r"column 'signed up' was trained on times \(%d.%m.%Y\), and 'yesterday' is none"),
    ],
)
def test_what_would_score_wrong_is_refused(column: str, value: Any, reason: str, served: Any) -> None:
    path, model, _ = served
    rows = pd.read_csv(path, dtype=str, nrows=5).astype({column: object})
    rows[column] = [value] * 5
    with pytest.raises(MlflowException, match=reason):
        model.predict(rows)


def test_points_between_thousands_are_not_taken_for_decimals(tmp_path: Path) -> None:
    raw = messy()[["price", "plan", "target"]]
    raw["price"] = [value.removeprefix("$").replace(",", ".") + ",50" for value in raw["price"]]
    raw.to_csv(tmp_path / "euros.csv", index=False, sep=";")
    evaluator = build(tmp_path / "euros.csv")
    assert evaluator.table.features["price"].iloc[0] == float(messy()["price"][0].lstrip("$").replace(",", "")) + 0.5
    refit = evaluator.refit(CONFIG)
    save(tmp_path / "model", refit)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    rows = pd.read_csv(tmp_path / "euros.csv", sep=";")
    expected = expected_answers(evaluator, refit, np.arange(ROWS))
    pd.testing.assert_frame_equal(model.predict(rows), expected, check_dtype=False, rtol=1e-5)
    with pytest.raises(MlflowException, match="points between thousands"):
        model.predict(rows[:2].assign(price=[1.234, 12.5]))
