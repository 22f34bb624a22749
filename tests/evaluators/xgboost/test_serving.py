"""The winner as MLflow serves it."""

from __future__ import annotations

import ast
import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from rlhpo_core.data import conversions
from rlhpo_core.data.schema import ColumnSchema, Kind
from rlhpo_core.evaluators.protocol import Refit
from rlhpo_core.evaluators.xgboost import serving
from rlhpo_core.evaluators.xgboost.serving import categories_of, encoded
from tests.helpers.input_forms import answers, compare, read_again
from tests.helpers.served_models import credit_with_grades, expected_answers, save
from tests.helpers.tables import CONFIG, EXAMPLES, LINEAR, build


def serve(folder: Path, refit: Refit) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The winner behind the script that MLflow would run."""
    from mlflow.pyfunc import PythonModelContext

    from rlhpo_core.evaluators.xgboost.serving import XGBoostTableModel

    files = {**refit.files, **{module.name: module.read_bytes() for module in refit.modules}}
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
    served = serve(tmp_path, refit)(rows)
    assert served["prediction"].isin([1, 2]).all()
    np.testing.assert_allclose(served[["probability_1", "probability_2"]].sum(axis=1), 1, atol=1e-6)
    again = serve(tmp_path, refit)(refit.input_example)
    pd.testing.assert_frame_equal(again, refit.output_example, check_exact=False, rtol=1e-5)


def test_a_linear_booster_is_served_with_categories_and_gaps(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "german_credit.csv")
    raw.loc[::7, "duration"] = np.nan
    raw.to_csv(tmp_path / "gaps.csv", index=False)
    refit = build(tmp_path / "gaps.csv").refit(LINEAR)
    served = serve(tmp_path, refit)(refit.input_example)
    pd.testing.assert_frame_equal(served, refit.output_example, check_exact=False, rtol=1e-5)


def test_awkward_column_names_are_no_hindrance(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "car.csv").rename(
        columns={"doors": "doors [n]", "persons": "persons<n>", "safety": "doors (n]"}
    )
    raw.to_csv(tmp_path / "table.csv", index=False)
    refit = build(tmp_path / "table.csv").refit(CONFIG)
    assert "doors [n]" in refit.input_example
    served = serve(tmp_path, refit)(refit.input_example)
    pd.testing.assert_frame_equal(served, refit.output_example, check_exact=False, rtol=1e-5)


# -- what callers send -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def credit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Refit, pd.DataFrame, pd.DataFrame]:
    """A saved model, its refit, ten raw rows, and the answers that the booster itself gives to them."""
    folder = tmp_path_factory.mktemp("credit")
    credit_with_grades().to_csv(folder / "credit.csv", index=False)
    evaluator = build(folder / "credit.csv")
    refit = evaluator.refit(CONFIG)
    save(folder / "model", refit)
    raw = pd.read_csv(folder / "credit.csv").iloc[:10].drop(columns="target")
    return folder / "model", refit, raw, expected_answers(evaluator, refit, np.arange(10))


@pytest.fixture(scope="module")
def model(credit: tuple[Path, Refit, pd.DataFrame, pd.DataFrame]) -> Any:
    return mlflow.pyfunc.load_model(str(credit[0]))


def test_ten_forms_of_the_same_rows_are_answered_alike(credit: Any, model: Any) -> None:
    _, _, rows, expected = credit
    answered = answers(model, rows)
    assert len(answered) == 11
    compare(answered, rows, expected)


def test_the_answers_keep_the_index_of_the_rows(credit: Any, model: Any) -> None:
    rows = credit[2].set_axis([7, 7, *range(8)], axis=0)
    assert model.predict(rows).index.tolist() == [7, 7, *range(8)]


def test_the_table_itself_is_answered_as_its_reader_gives_it(model: Any) -> None:
    table = read_again(credit_with_grades())
    assert (model.predict(table)["prediction"] == table["target"]).mean() > 0.75


def test_one_record_no_rows_and_text_only_tables(credit: Any, model: Any, tmp_path: Path) -> None:
    rows, expected = credit[2], credit[3]
    one = model.predict(rows.iloc[0].to_dict())
    pd.testing.assert_frame_equal(one, expected[:1], check_dtype=False, rtol=1e-5)
    assert len(model.predict(rows[:0])) == 0
    cars = pd.read_csv(EXAMPLES / "car.csv", dtype=str)
    evaluator = build(EXAMPLES / "car.csv")
    refit = evaluator.refit(CONFIG)
    save(tmp_path / "model", refit)
    answered = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(cars[:9].to_dict("list"))
    expected = expected_answers(evaluator, refit, np.arange(9))
    pd.testing.assert_frame_equal(answered, expected, check_dtype=False, rtol=1e-5)


def test_unseen_categories_and_gaps_of_any_kind_count_as_missing(credit: Any, model: Any) -> None:
    rows = credit[2].astype({"purpose": object, "duration": object})
    frames = []
    for purpose, duration in ((None, None), (np.nan, np.nan), (pd.NA, pd.NA), ("never seen", "")):
        rows["purpose"], rows["duration"] = purpose, duration
        frames.append(model.predict(rows))
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("duration", "a year", "column 'duration' was trained on numbers, and 'a year' is none"),
        ("duration", "1,200", "column 'duration' was trained on numbers, and '1,200' is none"),
        ("duration", float("inf"), "column 'duration' holds infinite values"),
        (
            "duration",
            datetime.datetime(2026, 1, 1),
            "column 'duration' was trained on numbers, and Timestamp",
        ),
        ("purpose", 3, "column 'purpose' was trained on text such as .*, and 3 is of another kind"),
        ("purpose", True, "column 'purpose' was trained on text such as .*, and True is of another kind"),
        ("purpose", {"is": "car"}, "column 'purpose' holds a dict"),
    ],
)
def test_what_would_score_wrong_is_refused_by_column(
    column: str, value: Any, reason: str, credit: Any, model: Any
) -> None:
    rows = credit[2].astype({column: object})
    rows[column] = [value] * len(rows)
    with pytest.raises(MlflowException, match=reason):
        model.predict(rows)


def test_columns_that_are_missing_or_there_twice_are_refused_by_name(credit: Any, model: Any, tmp_path: Path) -> None:
    rows = credit[2]
    with pytest.raises(MlflowException, match=r"missing inputs .*'purpose'"):
        model.predict(rows.drop(columns="purpose"))
    # Two rows: of more MLflow says itself that something is there twice.
    twice = pd.concat([rows, rows[["purpose"]]], axis=1)[:2]
    for predict in (model.predict, serve(tmp_path, credit[1])):
        with pytest.raises(MlflowException, match=r"column 'purpose' .*there (twice|2 times)"):
            predict(twice)
    with pytest.raises(MlflowException, match="column 'purpose' is not there"):
        serve(tmp_path, credit[1])(rows.drop(columns="purpose"))


def test_numbers_stand_for_the_one_text_that_looks_like_them() -> None:
    known = ["007", "2", "5more"]
    assert categories_of(conversions, "grade", pd.Series([7, 2, 9]), known).tolist()[:2] == ["007", "2"]
    assert categories_of(conversions, "grade", pd.Series([2.0, np.nan]), known).tolist()[0] == "2"
    assert categories_of(conversions, "grade", pd.Series(["7", "2.0"]), known).isna().all(), "text is taken at its word"
    assert categories_of(conversions, "open", pd.Series([True]), ["False", "True", "unknown"]).tolist() == ["True"]
    with pytest.raises(MlflowException, match=r"column 'version' was trained on text, and 1\.1 may be 1\.1 or 1\.10"):
        categories_of(conversions, "version", pd.Series([1.1]), ["1.1", "1.10", "2.0"])


def as_kind(kind: Kind, column: pd.Series) -> pd.Series:
    return encoded(conversions, "flag", column, ColumnSchema(kind=kind).model_dump(mode="json"))


def test_truth_values_are_zero_and_one() -> None:
    for column in (pd.Series([True, None]), pd.Series([True, None], dtype="boolean"), pd.Series([1, None])):
        assert as_kind("number", column).tolist()[0] == 1.0
        assert as_kind("number", column).isna().tolist() == [False, True]


def test_truth_values_are_taken_as_such_or_as_the_words_for_them() -> None:
    forms = ([True, None, False], [1, None, 0], ["TRUE", " ", "false"], ["1", None, "0.0"], [1.0, np.nan, 0.0])
    for form in (*map(pd.Series, forms), pd.Series([True, None, False], dtype="bool[pyarrow]")):
        np.testing.assert_array_equal(as_kind("boolean", form).to_numpy(), [1, np.nan, 0])
    for wrong in (["yes"], [2], [0.5], [[True]]):
        with pytest.raises(MlflowException, match=r"column 'flag' was trained on truth values, and .* is none"):
            as_kind("boolean", pd.Series(wrong))


def test_a_column_that_was_blank_in_training_may_hold_anything(tmp_path: Path) -> None:
    raw = pd.read_csv(EXAMPLES / "german_credit.csv").assign(note=None)
    raw.to_csv(tmp_path / "blank.csv", index=False)
    refit = build(tmp_path / "blank.csv").refit(CONFIG)
    served = serve(tmp_path, refit)(refit.input_example.assign(note="paid"))
    pd.testing.assert_frame_equal(served, refit.output_example, check_exact=False, rtol=1e-5)


def test_what_is_served_imports_nothing_of_rlhpo() -> None:
    for module in (serving, conversions):
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        packages = {name.split(".")[0] for name in imported}
        assert packages - sys.stdlib_module_names <= {"mlflow", "numpy", "pandas", "xgboost"}
