"""Wrong inputs, as the table in tools/wrong_inputs.py has them: exit code, and a message that says what to mend."""

from __future__ import annotations

import pytest

from tools import wrong_inputs
from tools.wrong_inputs import Row

ROWS = [row for rows in wrong_inputs.ROWS.values() for row in rows]
#: Words of libraries, which say nothing to whoever has written a study file.
FOREIGN = ("Traceback", "Input should be", "Extra inputs", "validation error", "Unable to extract", "pydantic")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_wrong_input_is_refused_with_words(row: Row) -> None:
    code, output = wrong_inputs.run(row)
    assert code == row.code, output
    assert row.says in output
    assert [word for word in FOREIGN if word in output] == []


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) >= 45
    assert len({row.what for row in ROWS}) == len(ROWS)


def test_all_that_is_wrong_is_said_at_once() -> None:
    row = next(row for row in ROWS if row.what == "three fields at once")
    _, output = wrong_inputs.run(row)
    assert "name: 7 is not text" in output
    assert "budget.trials: 'x' is not a whole number" in output
