"""Tables: what is read, what is refused and how it is divided."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data.labelled import split
from rlhpo_core.data.schema import TableSchema
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec


def frame(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "height": rng.normal(size=rows),
            "colour": rng.choice(["red", "green", "blue"], rows),
            "target": rng.choice(["no", "yes"], rows),
        }
    )


def load(table: pd.DataFrame, folder: Path, **spec: object) -> Table:
    path = folder / "table.csv"
    table.to_csv(path, index=False)
    return load_table(DataSpec.model_validate({"path": path, "target": "target", **spec}), seed=0)


def refusal(table: pd.DataFrame, folder: Path, **spec: object) -> str:
    with pytest.raises(UserError) as caught:
        load(table, folder, **spec)
    return str(caught.value)


# -- reading ---------------------------------------------------------------------------------------------------------


def test_numbers_stay_numbers_and_text_becomes_categories_and_gaps_stay_gaps(tmp_path: Path) -> None:
    raw = frame()
    raw.loc[3, "height"] = np.nan
    raw.loc[4, "colour"] = None
    table = load(raw, tmp_path)
    assert table.features["height"].dtype == np.float64
    assert table.categories == {"colour": ["blue", "green", "red"]}
    assert np.isnan(table.features.loc[3, "height"])
    assert table.features["colour"].isna().tolist() == [row == 4 for row in range(60)]
    assert table.classes == ("no", "yes")
    assert [table.classes[int(code)] for code in table.target] == raw["target"].tolist()


def test_csv_and_parquet_of_the_same_content_are_the_same_table(tmp_path: Path) -> None:
    raw = frame()
    raw.to_parquet(tmp_path / "table.parquet")
    parquet = load_table(DataSpec(path=tmp_path / "table.parquet", target="target"), seed=0)
    csv = load(raw, tmp_path)
    assert csv.digest == parquet.digest
    pd.testing.assert_frame_equal(csv.features, parquet.features)


def test_npz_images_are_flattened_and_their_test_part_is_the_holdout(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        x_train=rng.integers(0, 255, (40, 4, 4), dtype=np.uint8),
        y_train=np.arange(40) % 2,
        x_test=rng.integers(0, 255, (10, 4, 4), dtype=np.uint8),
        y_test=np.arange(10) % 2,
    )
    spec = DataSpec(path=tmp_path / "images.npz")
    table = load_table(spec, seed=0)
    assert table.features.shape == (50, 16)
    assert split(table, spec, seed=0).holdout.tolist() == list(range(40, 50))


def test_digest_tells_contents_apart(tmp_path: Path) -> None:
    changed = frame()
    changed.loc[7, "height"] += 1e-9
    assert load(frame(), tmp_path).digest != load(changed, tmp_path).digest
    assert len(load(frame(), tmp_path).digest) <= 36


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (["a", "b"], "classification"),
        ([True, False], "classification"),
        ([1, 2, 3], "classification"),
        ([1.5, 2.25, 3.125], "regression"),
        (list(range(60)), "regression"),
    ],
)
def test_the_task_follows_from_the_target(target: list[object], task: str, tmp_path: Path) -> None:
    raw = frame().assign(target=[target[row % len(target)] for row in range(60)])
    assert load(raw, tmp_path).task == task


def test_few_grades_with_text_among_them_are_categories(tmp_path: Path) -> None:
    raw = frame().assign(doors=[("2", "3", "4", "5more")[row % 4] for row in range(60)])
    assert load(raw, tmp_path).categories["doors"] == ["2", "3", "4", "5more"]


def test_dropped_columns_are_not_used(tmp_path: Path) -> None:
    assert list(load(frame(), tmp_path, drop=["colour"]).features) == ["height"]


def test_a_draw_keeps_rare_classes(tmp_path: Path) -> None:
    raw = frame(2000)
    raw["target"] = ["rare"] * 4 + ["common"] * 1996
    table = load(raw, tmp_path, max_rows=100)
    assert 100 <= len(table) <= 103
    assert (table.target == table.classes.index("rare")).sum() == 3


# -- refusing --------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*absent\.csv"):
        load_table(DataSpec(path=tmp_path / "absent.csv", target="target"), seed=0)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "table.npz", "table.xlsx"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe\x80 not a table \x00"])
def test_empty_damaged_and_foreign_files_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="table"):
        load_table(DataSpec(path=tmp_path / name, target="target"), seed=0)


def test_a_header_without_rows_is_refused(tmp_path: Path) -> None:
    assert "has no rows" in refusal(frame().iloc[:0], tmp_path)


def test_a_misspelt_target_gets_a_suggestion(tmp_path: Path) -> None:
    message = refusal(frame(), tmp_path, target="tarset")
    assert "no column 'tarset'" in message
    assert "did you mean 'target'?" in message


def test_without_a_target_the_columns_are_listed(tmp_path: Path) -> None:
    assert "height, colour, target" in refusal(frame(), tmp_path, target=None)


def test_a_missing_value_in_the_target_is_located(tmp_path: Path) -> None:
    raw = frame()
    raw.loc[[4, 9], "target"] = None
    assert "missing in 2 of 60 rows (first in row 5)" in refusal(raw, tmp_path)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    assert "one class only (yes)" in refusal(frame().assign(target="yes"), tmp_path)


def test_a_class_too_rare_to_divide_is_named(tmp_path: Path) -> None:
    raw = frame()
    raw.loc[0, "target"] = "odd"
    table = load(raw, tmp_path)
    with pytest.raises(UserError, match="class 'odd' has 1 rows"):
        split(table, DataSpec(path=tmp_path, target="target"), seed=0)


def test_identifiers_as_classes_are_refused(tmp_path: Path) -> None:
    assert "60 classes in 60 rows" in refusal(frame().assign(target=[f"id{row}" for row in range(60)]), tmp_path)


def test_stray_text_among_numbers_is_located(tmp_path: Path) -> None:
    raw = frame()
    raw["height"] = raw["height"].astype(object)
    raw.loc[6, "height"] = "n.a. (broken)"
    message = refusal(raw, tmp_path)
    assert "'height' should hold numbers, but row 7 has 'n.a. (broken)' (1 of 60" in message


def test_names_are_not_categories(tmp_path: Path) -> None:
    message = refusal(frame(300).assign(name=[f"person {row}" for row in range(300)]), tmp_path)
    assert "'name' has 300 different texts" in message
    assert "data.drop" in message


def test_infinite_values_are_refused(tmp_path: Path) -> None:
    raw = frame()
    raw.loc[0, "height"] = np.inf
    assert "'height' holds infinite values" in refusal(raw, tmp_path)


def test_lists_are_refused(tmp_path: Path) -> None:
    frame().assign(tags=[["a", "b"]] * 60).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(UserError, match="column 'tags' holds values of type ndarray; turn them into numbers"):
        load_table(DataSpec(path=tmp_path / "table.parquet", target="target"), seed=0)


def test_text_cannot_be_regressed_on(tmp_path: Path) -> None:
    assert "is not a number" in refusal(frame(), tmp_path, task="regression")


def test_a_constant_cannot_be_regressed_on(tmp_path: Path) -> None:
    assert "1.5 in every row" in refusal(frame().assign(target=1.5), tmp_path, task="regression")


def test_a_table_of_a_target_alone_is_refused(tmp_path: Path) -> None:
    assert "no column to predict" in refusal(frame()[["target"]], tmp_path)


def test_npz_without_its_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "table.npz", inputs=np.zeros((3, 2)))
    with pytest.raises(UserError, match="lacks x_train, y_train; it has inputs"):
        load_table(DataSpec(path=tmp_path / "table.npz"), seed=0)


def test_npz_with_pickled_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "table.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    with pytest.raises(UserError, match="cannot read"):
        load_table(DataSpec(path=tmp_path / "table.npz"), seed=0)


@pytest.mark.parametrize(
    ("text", "row", "fields"),
    [
        ("a,b,target\n" + "1,2,no,\n" * 20, 1, 4),
        ("a,b,target\n" + "1,2,3,no\n" * 20, 1, 4),
        ("a,b,target\n" + "1,2,3,4,no\n" * 20, 1, 5),
        ("a,b,target\n" + "1,2,no\n" * 20 + "1,2,no,\n", 21, 4),
        ("a,b,target\n\n" + '1,"two\nlines",no\n' * 3 + "\n1,2,000,no\n" + "1,2,no\n" * 9, 4, 4),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_rows_longer_than_the_header_are_refused_with_the_first(
    text: str, row: int, fields: int, ending: str, tmp_path: Path
) -> None:
    """Values would slide to the left, under the names of other columns."""
    path = tmp_path / f"table.{ending}"
    path.write_bytes(gzip.compress(text.encode()) if ending == "csv.gz" else text.encode())
    with pytest.raises(UserError, match=rf"row {row} has {fields} fields and the header 3"):
        load_table(DataSpec(path=path, target="target"), 0)


def test_truth_values_with_gaps_stay_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"flag": [True, False] * 20, "target": ["yes", "no"] * 20})
    whole, gaps = tmp_path / "whole.csv", tmp_path / "gaps.csv"
    frame.to_csv(whole, index=False)
    frame.astype({"flag": object}).assign(flag=lambda f: f["flag"].where(f.index != 3, None)).to_csv(gaps, index=False)
    complete, with_gap = (load_table(DataSpec(path=p, target="target"), 0).features["flag"] for p in (whole, gaps))
    assert with_gap.isna().tolist() == [i == 3 for i in range(40)]
    kept = with_gap.dropna()
    assert kept.tolist() == complete[kept.index].tolist()


# -- by the schema of an earlier table ---------------------------------------------------------------------------------


def by_schema(schema: TableSchema, raw: pd.DataFrame, folder: Path, **spec: object) -> Table:
    path = folder / "later.csv"
    raw.to_csv(path, index=False)
    return load_table(DataSpec.model_validate({"path": path, "target": "target", **spec}), 0, schema)


def awkward(rows: int = 60) -> pd.DataFrame:
    """A column of each kind: with gaps, and with text that looks like numbers."""
    cycle = np.arange(rows)
    return frame(rows).assign(
        flag=pd.Series(cycle % 2 == 0, dtype=object).where(cycle % 5 != 0, None),
        code=np.array(["007", "8", "unknown"])[cycle % 3],
        note=None,
        count=cycle % 7,
    )


def test_the_first_table_is_the_same_when_read_by_its_schema(tmp_path: Path) -> None:
    for raw in (
        frame(),
        awkward(),
        awkward().assign(target=np.arange(60) // 2 % 3),
        awkward().assign(target=np.arange(60)),
    ):
        first = load(raw, tmp_path)
        again = by_schema(first.schema, raw, tmp_path)
        assert (again.digest, again.schema, again.changes) == (first.digest, first.schema, ())
        pd.testing.assert_frame_equal(again.features, first.features)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_text_that_is_all_digits_this_time_stays_text(ending: str, tmp_path: Path) -> None:
    first = load(awkward(), tmp_path)
    digits = awkward()[lambda table: table["code"] != "unknown"]
    path = tmp_path / f"later.{ending}"
    if ending == "csv":
        digits.to_csv(path, index=False)
    else:
        digits.astype({"code": int}).to_parquet(path)
    later = load_table(DataSpec(path=path, target="target"), 0, first.schema)
    assert later.features["code"].tolist() == digits["code"].tolist()
    assert later.changes == ()


def test_all_that_breaks_the_schema_is_named_with_rows(tmp_path: Path) -> None:
    first = load(awkward(), tmp_path)
    broken = awkward().rename(columns={"height": "heights"})
    broken["flag"] = broken["flag"].where(broken.index != 3, "perhaps")
    broken["count"] = broken["count"].astype(object).where(broken.index % 30 != 7, "many")
    with pytest.raises(UserError) as caught:
        by_schema(first.schema, broken, tmp_path)
    message = str(caught.value)
    assert "later.csv breaks the schema of the table that was tuned on first" in message
    assert "column 'height' is gone (is 'heights' another name for it?)" in message
    assert "column 'flag' should hold truth values, but row 4 of 60 has 'perhaps'" in message
    assert "column 'count' should hold numbers, but rows 8, 38 of 60 have 'many'" in message


def test_what_is_new_is_reported_with_rows_and_known_from_then_on(tmp_path: Path) -> None:
    first = load(awkward(), tmp_path)
    new = awkward().assign(region="north")
    new.loc[[4, 9], "colour"] = "violet"
    new.loc[20:24, "target"] = "maybe"
    later = by_schema(first.schema, new, tmp_path)
    assert [change.text for change in later.changes] == [
        "column 'colour' has new categories 'violet' in rows 5, 10",
        "column 'region' is new",
        "column 'target' has new classes 'maybe' in rows 21, 22, 23, 24, 25",
    ]
    assert later.schema.classes == ("maybe", "no", "yes")
    assert by_schema(later.schema, new, tmp_path).changes == ()
    # What is merely absent this time is not forgotten.
    assert by_schema(later.schema, new.iloc[26:], tmp_path).schema == later.schema


@pytest.mark.parametrize(
    ("first", "later", "classes"),
    [
        ([0, 1], [0.0, 1.0], (0, 1)),
        ([0, 1], ["0", "1", "unsure"], ("0", "1", "unsure")),
        (["0", "1", "unsure"], [0, 1], ("0", "1")),
        ([True, False], [1, 0], (False, True)),
        (list(range(12)), list(range(10)), tuple(range(10))),
    ],
)
def test_labels_are_spelt_as_they_first_were(
    first: list[object], later: list[object], classes: tuple[object, ...], tmp_path: Path
) -> None:
    def labelled(labels: list[object]) -> pd.DataFrame:
        return frame().assign(target=[labels[row % len(labels)] for row in range(60)])

    schema = load(labelled(first), tmp_path).schema
    path = tmp_path / "later.parquet"
    labelled(later).astype({"target": str} if "unsure" in later else {}).to_parquet(path)
    table = load_table(DataSpec(path=path, target="target"), 0, schema)
    assert table.classes == classes
    assert list(map(type, table.classes)) == list(map(type, classes))
    assert table.task == "classification"
    new = {"unsure"} & set(map(str, later)) - set(map(str, first))
    assert {value for change in table.changes for value in change.values} == new


def test_a_number_to_predict_stays_one_even_if_it_has_few_values(tmp_path: Path) -> None:
    schema = load(frame().assign(target=np.arange(60)), tmp_path).schema
    later = frame().assign(target=np.arange(60) % 5)
    assert by_schema(schema, later, tmp_path).task == "regression"
    later["target"] = later["target"].astype(object).where(later.index != 2, "none")
    with pytest.raises(UserError, match=r"the target 'target' is not a number \('none' in row 3\)"):
        by_schema(schema, later, tmp_path)


def test_a_column_that_is_dropped_since_is_not_missed(tmp_path: Path) -> None:
    schema = load(awkward(), tmp_path).schema
    later = by_schema(schema, awkward(), tmp_path, drop=["code"])
    assert "code" not in later.features
    assert "code" not in later.schema.columns
