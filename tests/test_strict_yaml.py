from __future__ import annotations

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.strict_yaml import parse_yaml, to_yaml


def test_what_is_written_is_read_back() -> None:
    shared = [1, 2]
    data = {"b": 1e-05, "a": "1e-5", "list": shared, "again": shared, "text": "größe: x", "none": None, "yes": True}
    text = to_yaml(data)
    assert parse_yaml(text) == data
    assert list(parse_yaml(text)) == list(data)
    assert "&" not in text, "no anchors"


@pytest.mark.parametrize(("text", "number"), [("1e-3", 1e-3), ("-2E+2", -200.0), (".5e1", 5.0), ("3e4", 3e4)])
def test_exponents_are_numbers_without_a_point(text: str, number: float) -> None:
    assert parse_yaml(f"x: {text}") == {"x": number}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 1, c: 2}", "line 2: the name 'c' is given twice"),
        ("a: [1", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constructor"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_what_is_wrong_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_yaml(text)


def test_a_merge_key_may_be_overridden() -> None:
    assert parse_yaml("base: &b {x: 1, y: 2}\nnew: {<<: *b, y: 3}")["new"] == {"x": 1, "y": 3}
