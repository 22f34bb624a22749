from __future__ import annotations

import pytest

from rlhpo_core.production.labels import canonical, renamed


@pytest.mark.parametrize(
    ("known", "current", "expected"),
    [
        (["no", "yes"], ["NO", "YES"], {"NO": "no", "YES": "yes"}),
        (["no", "yes"], ["NO", "yes"], {"NO": "no"}),
        (["<=50K", ">50K"], ["<=50K.", ">50K."], {"<=50K.": "<=50K", ">50K.": ">50K"}),
        (["<=50K", ">50K"], ["<= 50K", "> 50K"], {"<= 50K": "<=50K", "> 50K": ">50K"}),
        (["0", "1"], ["0.0", "1.0"], {"0.0": "0", "1.0": "1"}),
        (["1", "2", "3"], ["01", "02", "03"], {"01": "1", "02": "2", "03": "3"}),
        (["0", "1"], ["False", "True"], {"False": "0", "True": "1"}),
        (["False", "True"], ["n", "y"], {"n": "False", "y": "True"}),
        (["class_a", "class b"], ["Class A", "class-b"], {"Class A": "class_a", "class-b": "class b"}),
        (["non-smoker", "smoker"], ["'non–smoker'", "smoker"], {"'non–smoker'": "non-smoker"}),
        (["ａ", "b"], ["a", "b"], {"a": "ａ"}),
        # Both ways of writing in one table are no better.
        (["no", "yes"], ["NO", "no", "yes"], {"NO": "no"}),
    ],
)
def test_what_only_looks_different_is_found(known: list[str], current: list[str], expected: dict[str, str]) -> None:
    assert renamed(known, current) == expected
    assert renamed(current, current) == {}


@pytest.mark.parametrize(
    ("known", "current"),
    [
        (["a", "b", "c"], ["a", "b"]),  # absent this week
        (["a", "b"], ["a", "b", "c"]),  # truly new
        (["good", "bad"], ["gut", "schlecht"]),
        (["A", "B"], ["A", "A+", "A-", "B"]),
        (["C"], ["C", "C++", "C#"]),
        (["0", "1"], ["-1", "0", "1"]),
        (["1", "2"], ["1", "1.5", "2"]),
        (["10-20", "20-30"], ["10-20", "1020"]),
        (["<50", ">50"], ["<50", "=50", ">50"]),
        # Words for true and false mean it only where there are two classes.
        (["0", "1", "2"], ["0", "1", "2", "t"]),
        (["v1.5"], ["v1.5", "v15"]),
        # What the model has kept apart itself is its own affair.
        (["a", "A"], ["A"]),
        (["."], [".", "-"]),
    ],
)
def test_what_is_another_class_is_none_renamed(known: list[str], current: list[str]) -> None:
    assert renamed(known, current) == {}


@pytest.mark.parametrize(
    ("label", "form"),
    [
        ("1e2", "100"),
        ("-0.0", "0"),
        ("+1", "1"),
        ("1.50", "1.5"),
        ("1e3", "1000"),
        ("9" * 40, "9" * 40),
        ("10", "10"),
        ("nan", "nan"),
        ("", ""),
    ],
)
def test_numbers_have_one_form(label: str, form: str) -> None:
    assert canonical(label) == form
