"""Rows divided by time and in groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.data.labelled import folds, split
from rlhpo_core.data.splits import Dividing, in_folds, in_parts
from rlhpo_core.data.table import load_table
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec
from tests.helpers.tables import build

ROWS = 300


def visits(path: Path) -> Path:
    rng = np.random.default_rng(0)
    days = rng.permutation(ROWS) % 100
    table = pd.DataFrame(
        {
            "date": (pd.Timestamp("2024-01-20") + pd.to_timedelta(days, unit="D")).strftime("%d.%m.%Y"),
            "customer": [f"c{i % 60}" for i in range(ROWS)],
            "spent": rng.normal(size=ROWS),
            "counts": rng.integers(1, 4, ROWS),
            "target": rng.choice(["no", "yes"], ROWS),
        }
    )
    table.to_csv(path, index=False)
    return path


@given(
    st.lists(st.integers(0, 12), min_size=20, max_size=80).filter(lambda values: len(set(values)) > 5),
    st.sampled_from(["time", "group"]),
    st.integers(0, 9),
)
def test_values_stay_together_and_every_row_is_in_one_part(values: list[int], by: str, seed: int) -> None:
    dividing = Dividing(by, "x", np.array(values, dtype=float))  # type: ignore[arg-type]
    held, validation, train = in_parts(dividing, (0.2, 0.2), seed)
    assert sorted(np.concatenate([held, validation, train]).tolist()) == list(range(len(values)))
    kept = [set(dividing.values[rows]) for rows in (held, validation, train)]
    assert all(kept)
    assert len(set.union(*kept)) == sum(map(len, kept))
    if by == "time":
        assert max(kept[2]) < min(kept[1]) <= max(kept[1]) < min(kept[0])
    for training, scored in in_folds(dividing, np.arange(len(values)), 3, seed):
        if by == "time" and len(training) and len(scored):
            assert max(dividing.values[training]) < min(dividing.values[scored])
        assert not set(dividing.values[training]) & set(dividing.values[scored])


def test_by_time_the_holdout_has_the_latest_rows(tmp_path: Path) -> None:
    spec = DataSpec.model_validate(
        {"path": visits(tmp_path / "v.csv"), "target": "target", "split": {"by": "time", "column": "date"}}
    )
    data = load_table(spec, 0)
    parts = split(data, spec, 0)
    days = data.features["date"]
    assert days[parts.train].max() < days[parts.validation].min()
    assert days[parts.validation].max() < days[parts.holdout].min()
    assert len(parts.holdout) == pytest.approx(60, abs=6)
    for training, scored in folds(data, np.sort(np.concatenate([parts.train, parts.validation])), 4, 0):
        assert days[training].max() < days[scored].min()


def test_groups_stay_together_and_are_no_feature_unless_declared(tmp_path: Path) -> None:
    fields = {"path": visits(tmp_path / "v.csv"), "target": "target", "split": {"by": "group", "column": "customer"}}
    spec = DataSpec.model_validate(fields)
    data = load_table(spec, 0)
    assert list(data.features) == ["date", "spent", "counts"]
    parts = split(data, spec, 0)
    customer = np.arange(ROWS) % 60
    assert not set(customer[parts.train]) & set(customer[parts.holdout])
    assert not set(customer[parts.train]) & set(customer[parts.validation])
    again = load_table(spec, 0, data.schema)
    assert again.digest == data.digest
    assert split(again, spec, 0).holdout.tolist() == parts.holdout.tolist()
    declared = DataSpec.model_validate({**fields, "columns": {"customer": "category"}})
    assert "customer" in load_table(declared, 0).features
    other = DataSpec.model_validate({**fields, "split": None, "drop": ["customer"]})
    assert load_table(other, 0).digest != data.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": {"by": "time", "column": "spend"}}, "did you mean 'spent'"),
        ({"split": {"by": "time", "column": "customer"}}, "column 'customer' holds no times, but 'c0'"),
        ({"weight": "spent"}, r"column 'spent' is -?[0-9.]+ in row \d+; weights are above 0"),
    ],
)
def test_what_cannot_divide_or_weigh_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    spec = DataSpec.model_validate({"path": visits(tmp_path / "v.csv"), "target": "target", **change})
    with pytest.raises(UserError, match=message):
        load_table(spec, 0)


def test_a_class_that_comes_late_is_said_before_the_first_trial(tmp_path: Path) -> None:
    path = visits(tmp_path / "v.csv")
    table = pd.read_csv(path)
    late = pd.to_datetime(table["date"], format="%d.%m.%Y") > "2024-04-20"
    table.assign(target=table["target"].where(~late, "new")).to_csv(path, index=False)
    with pytest.raises(UserError, match="class 'new' would be scored and has no rows to train on"):
        build(path, data={"split": {"by": "time", "column": "date"}})


def test_a_class_rarer_than_folds_is_said_before_the_first_trial(tmp_path: Path) -> None:
    path = visits(tmp_path / "v.csv")
    table = pd.read_csv(path)
    table.loc[:4, "target"] = "rare"
    table.to_csv(path, index=False)
    with pytest.raises(UserError, match="class 'rare' has 4 rows outside the holdout, fewer than 5 folds"):
        build(path, evaluator={"folds": 5})
    assert np.isfinite(build(path, evaluator={"folds": 4}, metric="auc").baseline().defaults)


def test_weights_count_in_training_and_in_scores(tmp_path: Path) -> None:
    """A row of weight three is worth three rows."""
    path = visits(tmp_path / "v.csv")
    plain, weighted = (build(path, data={"weight": name}) for name in (None, "counts"))
    assert "counts" not in weighted.table.features
    assert plain.table.digest != weighted.table.digest
    config = {"max_depth": 3, "n_estimators": 20}
    values = [each.evaluate(config, lambda step, value: None).value for each in (plain, weighted)]
    assert values[0] != values[1]
    table = pd.read_csv(path)
    rows = weighted.split.validation
    wrong = weighted.table.target[rows] != 1
    weights = table["counts"].to_numpy()[rows]
    always = np.average(~wrong, weights=weights)
    assert max(always, 1 - always) == pytest.approx(weighted.baseline().constant)
