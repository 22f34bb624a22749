"""What Ctrl-C and SIGTERM do while a study is tuned and concluded."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

#: Seconds that the trials and the tuner are given to end after a second Ctrl-C or SIGTERM. Kubernetes gives a pod 30.
_GRACE = 4.0


class Interrupts:
    """Hears them, from when it is entered until it is left.

    Once: no further trial is started, and the study is concluded. Twice, or SIGTERM: trials at hand are given up, and
    run again later; what is not done ``_GRACE`` seconds later, and whatever follows the tuning, is broken off by a
    KeyboardInterrupt. That costs nothing but the report: a study may be killed at any moment.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.count = 0
        self._cancel: Callable[[], None] | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.disarm()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def heeded(self, cancel: Callable[[], None]) -> Iterator[None]:
        """While trials run: the first interruption is looked up in ``count``, the second calls ``cancel``."""
        self._cancel = cancel
        try:
            yield
        finally:
            self._cancel = None

    def check(self) -> None:
        """Raises: KeyboardInterrupt if all is to be left as it is."""
        if self.count > 1:
            raise KeyboardInterrupt

    def disarm(self) -> None:
        """The end is near enough: let it come by itself."""
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.count = max(self.count + 1, 2 if number == signal.SIGTERM else 1)
        if self.count == 1:
            self.warn(
                "Finishing the trials at hand; press Ctrl-C again to give them up."
                if self._cancel is not None
                else "Concluding the study; press Ctrl-C again to leave that to `rlhpo resume`."
            )
        elif self.count == 2 and self._cancel is not None:
            self._cancel()
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._hear)
            signal.setitimer(signal.ITIMER_REAL, _GRACE)
        else:
            raise KeyboardInterrupt
