"""The base of all records: frozen, and refusing fields that they do not know."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A record that nobody changes; unknown fields are refused, so that a mistyped one is not passed over."""

    model_config = ConfigDict(frozen=True, extra="forbid")
