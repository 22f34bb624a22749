from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhpo_core.trial import Value
from rlhpo_core.tuner.columns import from_columns, to_columns

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(st.booleans(), st.integers(), st.integers(0, 1), FLOATS, st.text(max_size=5))
#: Some columns of one type, some of several.
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"always": FLOATS}, optional={"count": st.integers(-(2**63), 2**63 - 1), "odd/name": VALUES, "any": VALUES}
    ),
    max_size=8,
)


@given(RECORDS)
def test_records_come_back_with_the_same_values_of_the_same_types(records: list[dict[str, Value]]) -> None:
    names, tensors = to_columns(records, ["never", "any"])
    found = from_columns(len(records), names, tensors)
    assert [{name: repr(value) for name, value in record.items()} for record in found] == [
        {name: repr(value) for name, value in record.items()} for record in records
    ]
    again, same = to_columns(found, ["never", "any"])
    assert again == names
    assert {name: tensor.tolist() for name, tensor in same.items()} == {n: t.tolist() for n, t in tensors.items()}


def test_what_is_equal_and_not_the_same_is_kept_apart() -> None:
    records: list[dict[str, Value]] = [{"x": True}, {"x": 1}, {"x": 1.0}, {"x": "1"}, {"x": True}]
    names, tensors = to_columns(records)
    assert tensors["0/codes"].tolist() == [0, 1, 2, 3, 0]
    assert [type(record["x"]) for record in from_columns(5, names, tensors)] == [bool, int, float, str, bool]


def test_names_come_in_the_order_that_is_asked_for() -> None:
    records: list[dict[str, Value]] = [{"b": 1, "c": 2}, {"a": 3, "b": 4, "c": 5}]
    assert to_columns(records)[0] == ["b", "c", "a"]
    names, tensors = to_columns(records, ["a", "b", "c", "d"])
    assert names == ["a", "b", "c"]
    assert [list(record) for record in from_columns(2, names, tensors)] == [["b", "c"], ["a", "b", "c"]]


def test_columns_that_do_not_fit_together_are_refused() -> None:
    names, tensors = to_columns([{"x": 1.0}, {"x": 2.0}])
    for count in (1, 3):
        with pytest.raises(ValueError, match="zip"):
            from_columns(count, names, tensors)
    with pytest.raises(KeyError):
        from_columns(2, ["x", "y"], tensors)
    with pytest.raises(IndexError):
        from_columns(2, names, {"0/rows": torch.tensor([0, 2]), **tensors})
