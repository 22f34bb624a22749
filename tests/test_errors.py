from __future__ import annotations

import pytest
from pydantic import Field, ValidationError, field_validator

from rlhpo_core.errors import describe
from rlhpo_core.frozen import Frozen


class Inner(Frozen):
    count: int = Field(ge=1)

    @field_validator("count")
    @classmethod
    def _even(cls, count: int) -> int:
        if count % 2:
            raise ValueError(f"{count} is odd")
        return count


class Outer(Frozen):
    inner: list[Inner]
    name: str = ""


def test_one_line_per_problem_with_the_path_of_the_field() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": [{"count": 2}, {"count": 3}, {"count": 0}], "nmae": "x"})
    lines = describe(caught.value).splitlines()
    assert lines[0] == "inner.1.count: 3 is odd"
    assert lines[1] == "inner.2.count: must be at least 1, and not 0"
    assert lines[2] == "nmae: there is no such field"
    assert describe(caught.value, Outer).splitlines()[2] == "nmae: there is no such field; did you mean 'name'?"


def test_a_record_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer(inner=[]).name = "other"  # type: ignore[misc]
