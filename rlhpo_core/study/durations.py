"""Durations as people write them: ``90s``, ``15m``, ``2h``, ``1h30m``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _parse_duration(value: object) -> object:
    """``90s``, ``15m``, ``2h``, ``1h30m``; plain numbers are seconds."""
    if isinstance(value, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", value)
        if parts and "".join(number + unit for number, unit in parts) == "".join(value.split()):
            try:
                return sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
            except OverflowError as error:
                raise ValueError(f"{value!r} is longer than can be counted; leave the limit out") from error
        raise ValueError(f"{value!r} is not a duration; write for example 90s, 15m, 2h or 1h30m")
    return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than 0 seconds")
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration),
    AfterValidator(_positive),
    PlainSerializer(timedelta.total_seconds),
    WithJsonSchema({"type": ["string", "number"], "examples": ["90s", "15m", "2h", "1h30m"]}),
]
"""Longer than nothing; kept as seconds in JSON."""
