"""What has to be the same when a study is run again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlhpo_core.trial import Trial


def comparable(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """Everything but identities and times."""
    changing = {"proposal": {"trial_id"}, "started_at": True, "seconds": True}
    return [trial.model_dump(exclude=changing) for trial in trials]
