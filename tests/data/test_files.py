"""Files as people have them: forms of CSV, Parquet with whatever types, and folders of parts."""

from __future__ import annotations

import datetime
import gzip
import shutil
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhpo_core.data.files import read_file
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec

ROWS = 60


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "height": rng.normal(size=ROWS).round(4),
            "town": rng.choice(["Köln", "Århus", "Łódź"], ROWS),
            "target": rng.choice(["no", "yes"], ROWS),
        }
    )


def load(path: Path, **fields: object) -> Table:
    return load_table(DataSpec.model_validate({"path": path, "target": "target", **fields}), 0)


def refusal(path: Path, **fields: object) -> str:
    with pytest.raises(UserError) as caught:
        load(path, **fields)
    return str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_forms_of_csv_hold_the_same_table(separator: str, encoding: str, ending: str, tmp_path: Path) -> None:
    text = frame().to_csv(index=False, sep=separator)
    data = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "utf-16-be-bom" else text.encode(encoding)
    path = tmp_path / f"table.{ending}"
    path.write_bytes(gzip.compress(data) if ending == "csv.gz" else data)
    table = load(path)
    pd.testing.assert_frame_equal(table.features.astype({"town": str}), frame()[["height", "town"]])
    again = load_table(DataSpec(path=path, target="target"), 0, table.schema)
    assert (again.digest, again.schema) == (table.digest, table.schema)


def test_encodings_of_windows_are_recognised_or_declared(tmp_path: Path) -> None:
    table = frame().assign(town=["Köln", "Århus"] * (ROWS // 2))
    table.to_csv(tmp_path / "table.csv", index=False, encoding="cp1252")
    loaded = load(tmp_path / "table.csv")
    assert loaded.categories["town"] == ["Köln", "Århus"]
    assert "the file is read as Windows-1252 (data.encoding)" in loaded.notes
    table.to_csv(tmp_path / "table.csv", index=False, encoding="mac_roman")
    assert load(tmp_path / "table.csv", encoding="mac_roman").categories["town"] == ["Köln", "Århus"]
    assert "is no text in utf-8" in refusal(tmp_path / "table.csv", encoding="utf-8")
    assert "there is no encoding 'klingon'" in refusal(tmp_path / "table.csv", encoding="klingon")


def test_decimal_commas_are_recognised_and_other_commas_need_a_word(tmp_path: Path) -> None:
    table = frame().assign(km=[f"{1 + i % 9}.{i:03d}" for i in range(ROWS)])
    table.to_csv(tmp_path / "table.csv", index=False, sep=";", decimal=",")
    loaded = load(tmp_path / "table.csv")
    np.testing.assert_allclose(loaded.features["height"], frame()["height"])
    assert loaded.features["km"].tolist() == [1000.0 * (1 + i % 9) + i for i in range(ROWS)]
    assert "numbers have decimal commas (data.decimal)" in loaded.notes
    table.drop(columns="height").assign(km=table["km"].str.replace(".", ",")).to_csv(
        tmp_path / "table.csv", index=False, sep=";"
    )
    assert "'1,000' may be thousands or have decimals" in refusal(tmp_path / "table.csv")
    assert load(tmp_path / "table.csv", decimal=",").features["km"][0] == 1.0
    assert load(tmp_path / "table.csv", decimal=".").features["km"][0] == 1000.0


def test_a_line_of_excel_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    text = "sep=;\n" + frame().to_csv(index=False, sep=";").replace("\n", "\n\n", 3)
    (tmp_path / "table.csv").write_text(text)
    assert len(load(tmp_path / "table.csv")) == ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,a,target\n" + "1,2,3,no\n4,5,6,yes\n" * 20, "2 columns called 'a' (columns 1 and 3)"),
        ("a,b,target\n" + "1,2,no\n4,5,yes\n" * 20 + "7,8\n", "row 41 has 2 fields and the header 3: '7,8'"),
        ("", "is empty"),
    ],
)
def test_headers_and_rows_that_do_not_fit_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(text)
    assert message in refusal(tmp_path / "table.csv")


def test_a_nameless_column_that_counts_the_rows_is_not_used(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "table.csv")
    table = load(tmp_path / "table.csv")
    assert list(table.features) == ["height", "town"]
    assert any("counts the rows" in note for note in table.notes)


def test_damaged_gz_files_say_so(tmp_path: Path) -> None:
    data = gzip.compress(frame().to_csv(index=False).encode())
    path = tmp_path / "table.csv.gz"
    for damaged in (data[: len(data) // 2], data[:40] + b"\0" * 40 + data[80:], data[:-8] + b"\1" * 8, b"no gzip"):
        path.write_bytes(damaged)
        assert "it is damaged or cut off" in refusal(path)


def test_types_of_parquet(tmp_path: Path) -> None:
    count = np.arange(ROWS)
    days = pd.date_range("2024-01-01", periods=ROWS, freq="36h")
    typed = frame().assign(
        money=[Decimal(f"{i}.25") if i % 7 else None for i in range(ROWS)],
        wait=pd.to_timedelta(count * 90, unit="s"),
        whole=pd.array([None if i == 3 else i * 3 % 17 for i in range(ROWS)], dtype="Int64"),
        flag=pd.array([None if i == 3 else bool(i % 2) for i in range(ROWS)], dtype="boolean"),
        when=days,
        zoned=days.tz_localize("Europe/Berlin"),
        day=[stamp.date() for stamp in days],
        clock=[datetime.time(i % 24, 30) for i in range(ROWS)],
        plan=pd.Categorical(["a", "b", None] * (ROWS // 3)),
    )
    typed.to_parquet(tmp_path / "table.parquet")
    table = load(tmp_path / "table.parquet")
    kinds = {name: column.kind for name, column in table.schema.columns.items()}
    assert kinds == {
        "height": "number", "town": "category", "money": "number", "wait": "number", "whole": "number",
        "flag": "boolean", "when": "time", "zoned": "time", "day": "time", "clock": "time", "plan": "category",
    }  # fmt: skip
    assert table.features["money"].isna().sum() == 9
    assert table.features["wait"][2] == 180
    assert table.features["when"][2] == 3
    assert table.features["day"][2] == 3
    assert table.features["zoned"][2] - table.features["zoned"][0] == 3
    again = load_table(DataSpec(path=tmp_path / "table.parquet", target="target"), 0, table.schema)
    assert (again.digest, again.schema) == (table.digest, table.schema)


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, b"bytes"])
def test_values_that_are_no_cells_are_refused(value: object, tmp_path: Path) -> None:
    frame().assign(tags=[value] * ROWS).to_parquet(tmp_path / "table.parquet")
    assert "column 'tags' holds values of type" in refusal(tmp_path / "table.parquet")


def test_indices_with_names_are_columns(tmp_path: Path) -> None:
    hours = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    for index, names in (
        (pd.Index(hours, name="ts"), ["ts"]),
        (pd.Index([f"k{i % 7}" for i in range(ROWS)], name="key"), ["key"]),
        (pd.Index([0] * ROWS), []),
        (pd.MultiIndex.from_arrays([np.arange(ROWS) % 5, hours], names=["shop", "ts"]), ["shop", "ts"]),
    ):
        frame().set_index(index).to_parquet(tmp_path / "table.parquet")
        assert list(load(tmp_path / "table.parquet").features) == [*names, "height", "town"]


def test_names_that_are_no_text_and_collisions(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    frame().rename(columns={"height": 7}).to_parquet(path)
    assert "7" in load(path).features
    assert list(load(path, drop=[7]).features) == ["town"]
    twice = pa.Table.from_pandas(frame(), preserve_index=False)
    pq.write_table(twice.append_column("town", twice["town"]), path)
    assert "2 columns called 'town'" in refusal(path)


def parts(folder: Path) -> Path:
    """As Spark writes a table, with a blank in its path, in parts by day."""
    place = folder / "my tables" / "customers.parquet"
    table = frame().assign(day=["2024-05-01"] * 30 + ["2024-05-02"] * 30)
    table.to_parquet(place, partition_cols=["day"])
    (place / "_SUCCESS").touch()
    return place


def test_a_folder_of_parts_is_one_table(tmp_path: Path) -> None:
    place = parts(tmp_path)
    table = load(place)
    assert len(table) == ROWS
    assert table.schema.columns["day"].kind == "time"
    # As one file, as a pipeline passes it on.
    packed = Path(shutil.make_archive(str(tmp_path / "customers.parquet"), "zip", place))
    assert load(packed).digest == table.digest
    (tmp_path / "empty").mkdir()
    assert "is a folder without Parquet files" in refusal(tmp_path / "empty")


def test_values_that_read_as_text_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("code,target\n" + "007,no\n011,yes\n" * 20)
    assert read_file(DataSpec(path=tmp_path / "table.csv")).frame["code"].tolist()[:2] == ["007", "011"]
