"""Clocks that stand still until a test moves them."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Seconds, as ``time.time`` gives them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float, noticed: Callable[[], bool], patience: float = 5.0) -> bool:
        """Move, and wait until another thread has noticed it; whether it did within ``patience`` real seconds."""
        self.now += seconds
        deadline = time.monotonic() + patience
        while not (seen := noticed()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return seen
