"""What text in a table's first reading is taken for, and what is refused because two readings would differ."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data.columns import IdentifierError, infer, read
from rlhpo_core.data.recognition import ColumnError
from rlhpo_core.study.spec import ColumnSpec


def column(*cells: str | None, rows: int = 60) -> pd.Series:
    """Text as a first reading of a CSV file has it, again and again."""
    return pd.Series([cells[i % len(cells)] for i in range(rows)], dtype="str")


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("$2,900", "$500", None), [2900, 500, None]),
        (("125,000km", "5,000km"), [125000, 5000]),
        (("1.234,50 €", "12,00 €"), [1234.5, 12]),
        (("1 234", "12\u00a0345"), [1234, 12345]),
        (("1'234.5", "12.5"), [1234.5, 12.5]),
        (("12,34,567", "1,00,000"), [1234567, 100000]),
        (("45%", "7.5 %", " "), [45, 7.5, None]),
        (("12k", "900"), [12000, 900]),
        (("19M", "201k"), [19e6, 201e3]),
        (("$1.5M", "$200k"), [1.5e6, 2e5]),
        (("5 km", "300 m"), [5000, 300]),
        (("1.5 kg", "250 g"), [1500, 250]),
        (("5 km", "7"), [5, 7]),
        (("5 doors", "3 doors"), [5, 3]),
        (("-$5", "$-7", "+$1"), [-5, -7, 1]),
        (("3,5", "12,25"), [3.5, 12.25]),
        (("1,234,567", "1,234"), [1234567, 1234]),
        (("1.234.567", "1.234"), [1234567, 1234]),
        (("7", " 8 ", ""), [7, 8, None]),
        (("1e3", "2.5"), [1000, 2.5]),
    ],
)
def test_signs_and_units_are_numbers(cells: tuple[str, ...], values: list[float | None]) -> None:
    encoded, schema = infer("x", column(*cells))
    assert schema.kind == "number"
    assert [None if np.isnan(value) else value for value in encoded[: len(cells)]] == pytest.approx(values)
    again, known, change = read("x", column(*cells), schema)
    assert (known, change) == (schema, None)
    pd.testing.assert_series_equal(again, encoded)


@pytest.mark.parametrize(
    ("cells", "days", "format_"),
    [
        (("2024-05-01", "2024-05-03", None), [0, 2, None], "ISO8601"),
        (("2024-05-01T06:00:00Z", "2024-05-01T12:00:00+03:00"), [0.25, 0.375], "ISO8601"),
        (("31.12.2023", "01.01.2024"), [0, 1], "%d.%m.%Y"),
        (("12/31/2023", "01/01/2024"), [0, 1], "%m/%d/%Y"),
        (("31/12/2023 06:00", "01/01/2024 18:00"), [0.25, 1.75], "%d/%m/%Y %H:%M"),
        (("5 Mar 2024", "7 Apr 2024"), [0, 33], "%d %b %Y"),
        (("14:30", "06:00"), [14.5 / 24, 0.25], "%H:%M"),
    ],
)
def test_dates_are_days(cells: tuple[str, ...], days: list[float | None], format_: str) -> None:
    encoded, schema = infer("x", column(*cells))
    assert schema.kind == "time"
    assert schema.time is not None
    assert schema.time.format == format_
    assert [None if np.isnan(day) else day for day in encoded[: len(cells)]] == pytest.approx(days)
    assert "is read as a time" in schema.note
    pd.testing.assert_series_equal(read("x", column(*cells), schema)[0], encoded)


@pytest.mark.parametrize(
    ("cells", "categories"),
    [
        (("01234", "99999"), ("01234", "99999")),
        (("00", "07", "23"), ("00", "07", "23")),
        (("1.9", "1.10", "1.11"), ("1.10", "1.11", "1.9")),
        (("1.2.3", "1.2.4"), ("1.2.3", "1.2.4")),
        (("Yes", "Yes", "yes ", "YES.", "No"), ("No", "Yes")),
        ((" a", "b", "  "), ("a", "b")),
        (("2", "3", "4", "5more"), ("2", "3", "4", "5more")),
        (("1st", "2nd", "3rd"), ("1st", "2nd", "3rd")),
        (("3A", "3B", "4A"), ("3A", "3B", "4A")),
        (("A12", "A13"), ("A12", "A13")),
        (("10-20", "20-30"), ("10-20", "20-30")),
        (("inf. sup", "left"), ("inf. sup", "left")),
    ],
)
def test_codes_versions_and_spellings_are_categories(cells: tuple[str, ...], categories: tuple[str, ...]) -> None:
    encoded, schema = infer("x", column(*cells))
    assert (schema.kind, schema.categories) == ("category", categories)
    pd.testing.assert_series_equal(read("x", column(*cells), schema)[0], encoded)
    if any(cell.strip() not in categories and cell.strip() for cell in cells):
        assert "other spellings are read as one" in schema.note


@pytest.mark.parametrize("cells", [("7", "7.5"), ("2.50", "12.25"), ("0.5", "1"), ("1.50", "2"), ("20240101", "7")])
def test_plain_numbers_need_no_word(cells: tuple[str, ...]) -> None:
    schema = infer("x", column(*cells))[1]
    assert (schema.kind, schema.number, schema.note) == ("number", None, "")


def test_digits_in_a_file_that_knows_text_are_codes() -> None:
    assert infer("x", column("10115", "80331"), typed=True)[1].categories == ("10115", "80331")
    assert infer("x", column("10115", "80331"))[1].kind == "number"
    dictionary = pd.Series(pd.Categorical(["7", "8"] * 30))
    assert infer("x", dictionary)[1].categories == ("7", "8")


@pytest.mark.parametrize(
    ("cells", "decimal", "message"),
    [
        (("03/04/2024", "05/06/2024"), ".", r"'03/04/2024' may be a date by %d/%m/%Y or by %m/%d/%Y"),
        (("1,234", "2,500"), None, r"'1,234' may be thousands or have decimals"),
        (("$5", "€7"), ".", r"numbers in different units, '\$5' in row 1, '€7' in row 2; bring them to one unit"),
        (("5%", "0.05"), ".", r"numbers in different units, '0.05' in row 2, '5%' in row 1"),
        (("5 kg", "7 km"), ".", r"numbers in different units, '5 kg' in row 1, '7 km' in row 2"),
    ],
)
def test_two_readings_are_refused_with_the_fix(cells: tuple[str, ...], decimal: str | None, message: str) -> None:
    with pytest.raises(ColumnError, match=message):
        infer("x", column(*cells), decimal=decimal)


@pytest.mark.parametrize("value", ["{}", "${},000", "{} km", "2024-01-{:02d}"])
def test_stray_text_is_refused_with_its_row(value: str) -> None:
    cells = [value.format(i % 28 + 1) for i in range(60)]
    cells[17] = "sensor off"
    with pytest.raises(ColumnError, match="row 18 has 'sensor off' \\(1 of 60"):
        infer("x", column(*cells))


def test_a_declared_kind_holds_whatever_values_look_like() -> None:
    digits = column("10115", "80331")
    assert infer("x", digits, ColumnSpec(kind="category"))[1].kind == "category"
    assert infer("x", pd.Series([10115, 80331] * 30), ColumnSpec(kind="category"))[1].categories == ("10115", "80331")
    dates = column("03/04/2024", "05/06/2024")
    encoded, schema = infer("x", dates, ColumnSpec(kind="time", format="%m/%d/%Y"))
    assert schema.kind == "time"
    assert encoded[:2].tolist() == [0, 63]
    commas = infer("x", column("1,234", "2,500"), ColumnSpec(kind="number", decimal=","))[0]
    assert commas[:2].tolist() == [1.234, 2.5]
    exact = infer("x", column("a", "A"), ColumnSpec(kind="category", exact=True))[1]
    assert exact.categories == ("A", "a")
    ids = infer("x", column(*(f"id{i}" for i in range(300)), rows=300), ColumnSpec(kind="category"))[1]
    assert len(ids.categories) == 300
    with pytest.raises(ColumnError, match="should hold numbers, but row"):
        infer("x", column("5", *["6"] * 20, "many", rows=22), ColumnSpec(kind="number"))
    with pytest.raises(ColumnError, match="should hold times"):
        infer("x", column("soon", "later"), ColumnSpec(kind="time"))


def test_identifiers_are_refused_with_the_fix() -> None:
    with pytest.raises(
        IdentifierError, match=r"leave it out with data.drop, or declare `data.columns: \{x: category\}`"
    ):
        infer("x", column(*(f"{i:04d}-ABC" for i in range(300)), rows=300))


def test_values_beyond_float32_are_refused_with_their_row() -> None:
    with pytest.raises(ColumnError, match=r"'x' holds 1e\+39 in row 3, which is beyond 3.4e\+38"):
        infer("x", pd.Series([1.0, 2.0, 1e39] + [1.0] * 20))
