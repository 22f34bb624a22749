"""How rows of any kind are divided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.data.labelled import folds, split
from rlhpo_core.data.schema import ColumnSchema, TableSchema
from rlhpo_core.data.table import Table
from rlhpo_core.study.spec import DataSpec


def table_of(counts: list[int]) -> Table:
    target = np.repeat(np.arange(len(counts)), counts).astype(np.float64)
    target = np.random.default_rng(0).permutation(target)
    features = pd.DataFrame({"x": np.arange(len(target))})
    classes = tuple(range(len(counts)))
    schema = TableSchema(task="classification", classes=classes, columns={"x": ColumnSchema(kind="number")})
    return Table(
        features=features, target=target, task="classification", classes=classes, target_name="y", given_holdout=0,
        digest="0" * 32, schema=schema,
    )  # fmt: skip


@given(
    counts=st.lists(st.integers(3, 60), min_size=2, max_size=6),
    validation=st.floats(0.05, 0.45),
    holdout=st.floats(0.05, 0.45),
    seed=st.integers(0, 2**31),
)
def test_every_row_is_in_one_part_and_every_class_in_every_part(
    counts: list[int], validation: float, holdout: float, seed: int
) -> None:
    table = table_of(counts)
    spec = DataSpec(path=Path("x.csv"), validation=validation, holdout=holdout)
    parts = split(table, spec, seed)
    rows = np.concatenate([parts.train, parts.validation, parts.holdout])
    assert sorted(rows.tolist()) == list(range(len(table)))
    for part in (parts.train, parts.validation, parts.holdout):
        assert set(table.target[part]) == set(range(len(counts)))
    again = split(table, spec, seed)
    np.testing.assert_array_equal(parts.holdout, again.holdout)


def test_parts_have_their_sizes_and_depend_on_the_seed() -> None:
    table = table_of([700, 300])
    spec = DataSpec(path=Path("x.csv"), validation=0.1, holdout=0.3)
    parts = split(table, spec, 0)
    assert (len(parts.train), len(parts.validation), len(parts.holdout)) == (600, 100, 300)
    assert (table.target[parts.validation] == 0).sum() == 70
    assert split(table, spec, 1).holdout.tolist() != parts.holdout.tolist()


@given(counts=st.lists(st.integers(3, 40), min_size=2, max_size=5), count=st.integers(2, 5), seed=st.integers(0, 2**31))
def test_folds_cover_the_rows_once_and_are_equally_large(counts: list[int], count: int, seed: int) -> None:
    table = table_of(counts)
    rows = np.flatnonzero(np.arange(len(table)) % 7 != 0)
    divided = folds(table, rows, count, seed)
    assert sorted(np.concatenate([validation for _, validation in divided]).tolist()) == rows.tolist()
    sizes = [len(validation) for _, validation in divided]
    assert max(sizes) - min(sizes) <= 1
    for training, validation in divided:
        assert not set(training) & set(validation)
