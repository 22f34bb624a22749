"""When a recurring run starts: cron as Kubeflow Pipelines reads it, with six fields, seconds first.

KFP's scheduler (robfig/cron 1) also takes five fields, as second, minute, hour, day and month: what everywhere else
means "at 02:30" then starts a run every hour. KFP's server checks nothing, so it is checked here.
"""

from __future__ import annotations

import calendar

from rlhpo_core.errors import UserError

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
#: Name, lowest and highest value, other words for values.
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_SHORTHANDS = {
    "@hourly": "0 0 * * * *",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@weekly": "0 0 0 * * 0",
    "@monthly": "0 0 0 1 * *",
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
}
_FORM = "second minute hour day-of-month month day-of-week, such as '0 30 2 * * 1-5' for 02:30 on working days"
_ANY = ("*", "?")


def checked_cron(text: str) -> str:
    """The expression with single spaces between its fields.

    Raises: UserError if it is not six fields, has a value out of range, never comes due, or comes due more than once a
    minute. Where the meaning can be guessed, the message has the corrected expression.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise UserError(f"the schedule {text!r} has {len(fields)} fields, not six: {_FORM}{_suggestion(fields)}")
    try:
        values = [_values(field, *form) for field, form in zip(fields, _FIELDS, strict=True)]
    except ValueError as error:
        raise UserError(f"the schedule {text!r}: {error}\nThe fields are {_FORM}") from error
    if len(values[0]) > 1:
        raise UserError(
            f"the schedule {text!r} starts {len(values[0])} runs a minute; the first field is the second: "
            f"did you mean {' '.join(['0', *fields[1:]])!r}?"
        )
    if fields[5] in _ANY and all(day > _longest(month) for month in values[4] for day in values[3]):
        raise UserError(f"the schedule {text!r} never comes due: no such month has a day {min(values[3])}")
    return " ".join(fields)


def _suggestion(fields: list[str]) -> str:
    if len(fields) == 1 and fields[0].lower() in _SHORTHANDS:
        return f"\nDid you mean {_SHORTHANDS[fields[0].lower()]!r}?"
    if len(fields) != len(_FIELDS) - 1:
        return ""
    try:
        return f"\nDid you mean {checked_cron(' '.join(['0', *fields]))!r}? The seconds come first"
    except UserError:
        return ""


def _values(text: str, name: str, low: int, high: int, words: dict[str, int]) -> set[int]:
    """The values that a field stands for: a list of numbers, ranges and steps. Raises: ValueError."""
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, name, {}) if slash else 1
        if step < 1:
            raise ValueError(f"the step in {part!r} ({name}) must be at least 1")
        if span in _ANY:
            first, last = low, high
        else:
            first_text, dash, last_text = span.partition("-")
            first = _number(first_text, name, words)
            last = _number(last_text, name, words) if dash else (high if slash else first)
        if not low <= first <= last <= high:
            raise ValueError(f"{part!r} is not a {name} from {low} to {high}")
        values.update(range(first, last + 1, step))
    return values


def _number(text: str, name: str, words: dict[str, int]) -> int:
    if text.lower() in words:
        return words[text.lower()]
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a {name}")
    return int(text)


def _longest(month: int) -> int:
    return 29 if month == 2 else calendar.monthrange(2000, month)[1]
