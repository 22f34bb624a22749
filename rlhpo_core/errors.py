"""The one exception that means "the user can mend this"; every entry point prints it without a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Something outside rlhpo is wrong (a study file, a table, a server). The message says what to do about it."""

    @property
    def passing(self) -> bool:
        """Whether the same call may succeed a little later; ``retries`` waits for that."""
        return False


class Outage(UserError):  # noqa: N818  (what happened, in the voice of the other signals)
    """Something outside rlhpo does not work just now: a server that is away or overloaded, a disk that is full."""

    @property
    def passing(self) -> bool:
        """True."""
        return True


def describe(error: ValidationError) -> str:
    """One line per problem, each starting with the dotted name of the field."""
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {message}" if field else message)
    return "\n".join(lines)
