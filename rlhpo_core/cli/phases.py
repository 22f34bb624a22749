"""What a command does one after the other, and how long each of it takes: shown while it lasts, and summed up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

#: Seconds below which a phase is not worth a line of its own.
_SHORT = 0.5


@dataclass
class Phases:
    """The phases so far, with their seconds; one that occurs twice counts once."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, hint: str = "", quiet: bool = False) -> Iterator[None]:
        """While it lasts; on a terminal it is shown, elsewhere a line says afterwards how long it took.

        Args:
            hint: What else is to be known of it while it lasts.
            quiet: Whether something else shows what happens meanwhile.
        """
        started = time.monotonic()
        try:
            if quiet:
                yield
            else:
                with self.console.status(f"{name} {hint}".rstrip()):
                    yield
        finally:
            taken = time.monotonic() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + taken
            if not quiet and taken >= _SHORT and not self.console.is_terminal:
                self.console.print(f"{name}: {taken:.1f} s", markup=False)

    def summary(self) -> str:
        """``tuning 61 s, registering the winner 9 s``, with whatever took long enough to be seen."""
        return ", ".join(f"{name} {_time(taken)}" for name, taken in self.seconds.items() if taken >= _SHORT)


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
