from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data.holdout import from_bytes, row_keys, slices, to_bytes, unseen
from rlhpo_core.data.labelled import split
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import DataSpec

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"


def table(path: Path, frame: pd.DataFrame) -> Table:
    frame.to_csv(path, index=False)
    return load_table(DataSpec(path=path, target="target"), seed=0)


def test_rows_are_known_again_in_another_table(tmp_path: Path) -> None:
    frame = pd.read_csv(EXAMPLES / "german_credit.csv")
    whole = table(tmp_path / "whole.csv", frame)
    # Another order of rows and columns, other categories, a gap that turns whole numbers into others.
    part = frame.iloc[500:][[*frame.columns[::-1]]].sample(frac=1, random_state=0).rename(columns={})
    part = pd.concat([part, part.iloc[:1].assign(age=np.nan, purpose="A99")])
    some = table(tmp_path / "some.csv", part)
    keys, known = row_keys(some, np.arange(len(some))), row_keys(whole, np.arange(len(whole)))
    assert np.isin(keys, known).sum() == 500
    assert not np.isin(keys[-1], known)
    assert len(np.unique(known)) == len(frame)
    assert np.array_equal(np.unique(known), from_bytes(to_bytes(known)))


def test_no_row_that_a_training_run_has_seen_is_among_the_fresh(tmp_path: Path) -> None:
    frame = pd.read_csv(EXAMPLES / "winequality_white.csv")  # a fifth of its rows are there twice
    whole = table(tmp_path / "wine.csv", frame)
    parts = split(whole, DataSpec(path=tmp_path / "wine.csv", target="target"), seed=0)
    seen = row_keys(whole, np.concatenate([parts.train, parts.validation]))
    fresh = unseen(whole, parts.holdout, [seen])
    assert 0 < len(fresh) < len(parts.holdout)
    trained = pd.concat([frame.iloc[parts.train], frame.iloc[parts.validation]])
    rows = fresh.rows.assign(target=[fresh.classes[int(code)] for code in fresh.target])
    assert len(rows.merge(trained.drop_duplicates().astype("float64"), on=list(frame.columns))) == 0


def test_slices_are_the_values_of_a_column_or_quarters_of_its_range(tmp_path: Path) -> None:
    whole = table(tmp_path / "credit.csv", pd.read_csv(EXAMPLES / "german_credit.csv").assign(
        housing=lambda frame: frame["housing"].where(frame.index % 10 > 0)
    ))  # fmt: skip
    rows = unseen(whole, np.arange(1000), [])
    masks = slices(rows, ["housing", "duration"])
    housing = [name for name in masks if name.startswith("housing")]
    assert sorted(housing) == ["housing missing", "housing=A151", "housing=A152", "housing=A153"]
    assert sum(int(masks[name].sum()) for name in housing) == 1000
    quarters = [name for name in masks if name.startswith("duration")]
    assert len(quarters) == 4
    assert sum(int(masks[name].sum()) for name in quarters) == 1000
    with pytest.raises(UserError, match="no column 'colour'"):
        slices(rows, ["colour"])


def test_fresh_rows_keep_their_groups_and_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    customer = rng.integers(40, size=300)
    frame = pd.DataFrame(
        {"customer": [f"c{k}" for k in customer], "x": rng.normal(size=300), "worth": 1.0 + customer}
    ).assign(target=rng.choice(["no", "yes"], 300))
    frame.to_csv(tmp_path / "orders.csv", index=False)
    fields = {"target": "target", "split": {"by": "group", "column": "customer"}, "weight": "worth"}
    spec = DataSpec.model_validate({"path": tmp_path / "orders.csv", **fields})
    whole = load_table(spec, seed=0)
    held = split(whole, spec, seed=0).holdout
    fresh = unseen(whole, held, [row_keys(whole, held[:5])])
    assert len(fresh) == len(held) - 5
    assert fresh.weights is not None
    assert fresh.groups is not None
    assert np.array_equal(fresh.weights, 1.0 + customer[held[5:]])
    pairs = {*zip(fresh.groups, customer[held[5:]], strict=True)}
    assert len(pairs) == fresh.groups.max() + 1 == len(np.unique(customer[held[5:]]))
    plain = table(tmp_path / "plain.csv", frame)
    assert unseen(plain, held, []).groups is None
    assert unseen(plain, held, []).weights is None
