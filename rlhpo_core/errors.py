"""The one exception that means "the user can mend this"; every entry point prints it without a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Something outside rlhpo is wrong (a study file, a table, a server). The message says what to do about it."""


def describe(error: ValidationError) -> str:
    """One line per problem, each starting with the dotted name of the field."""
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {message}" if field else message)
    return "\n".join(lines)
