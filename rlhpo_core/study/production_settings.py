"""How models in production are retuned, judged and reported: plain settings of the study file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlhpo_core.frozen import Frozen

#: What an alert can tell of.
Alert = Literal[
    "promoted", "kept", "skipped", "failed", "budget_spent", "keeps_in_row", "rolled_back", "schedule_paused"
]


class GateSpec(Frozen):
    """When a challenger takes the champion's place. Both answer the same rows, which neither was trained on."""

    margin: Annotated[float, Field(ge=0)] | None = None
    """By how much, in the objective's units, it must be better. If not given: 0.01 for scores of which 1 is the best,
    1 % of the champion's for errors, which is more than another seed usually makes."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """How sure that must be; 1 − confidence is the error rate."""
    min_rows: Annotated[int, Field(ge=20)] = 200
    """With fewer rows to judge by, nothing is decided and the champion stays."""
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 2000
    """Of the bootstrap."""
    latency_ratio: Annotated[float, Field(gt=0)] | None = 3.0
    """At most so many times the champion's time per row."""
    size_ratio: Annotated[float, Field(gt=0)] | None = 10.0
    """At most so many times the champion's size."""
    log_loss_increase: Annotated[float, Field(ge=0)] | None = 0.1
    """For classes: the log-loss may grow by at most this share of the champion's."""
    slices: tuple[str, ...] = ()
    """Columns by whose values, or quarters of the range for numbers, the rows are sliced."""
    slice_drop: Annotated[float, Field(ge=0)] = 0.0
    """No slice may be surely worse by more than this, in the objective's units."""
    slice_rows: Annotated[int, Field(ge=10)] = 50
    """Smaller slices are passed over."""


class RetuneSpec(Frozen):
    """When a scheduled retuning has something to do."""

    when: Literal["changed", "drifted"] = "changed"
    """``changed``: at any new data; ``drifted``: only if its distribution or its columns have changed, too."""
    psi: Annotated[float, Field(gt=0)] = 0.2
    """A column has drifted if its population stability index is at least this …"""
    p_value: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """… and a two-sample test, corrected for the number of columns, is below this."""


class AlertsSpec(Frozen):
    """A webhook that alerts about retunings are sent to."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s/\"']+[^\s\"']*$")] | None = None
    """Its address, beginning with http:// or https://; no alerts if neither this nor ``url_env`` is set."""
    url_env: str | None = None
    """Environment variable that holds the address instead, if the address is itself a secret."""
    secret_env: str = "RLHPO_ALERT_SECRET"
    """Environment variable that holds the key of the signature; without it alerts are not signed."""
    events: tuple[Alert, ...] = ("promoted", "failed", "keeps_in_row", "rolled_back", "schedule_paused")
    """Which alerts are sent."""
    keeps: Annotated[int, Field(ge=1)] = 3
    """``keeps_in_row`` is sent each time when the champion was kept so many times in a row."""
