"""Waiting out faults that pass: a server that is away, a full disk, a name that is not resolved just now.

Whoever talks to the world wraps the call in ``wait_out``. Whoever knows what is at stake says how long to wait, with
``patiently``; without that nothing waits, since a person at a command line wants to know at once. What waiting cannot
mend, such as a bucket that does not exist, is raised at once in any case.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from rlhpo_core.errors import UserError

T = TypeVar("T")

#: Seconds to wait in all, unless ``RLHPO_PATIENCE`` says otherwise.
PATIENCE = 600.0
#: The same where a person waits, but what was done so far would be lost.
BRIEFLY = 30.0
#: Seconds to wait at most between two attempts.
_LONGEST = 30.0


def _patience() -> float:
    text = os.environ.get("RLHPO_PATIENCE", "")
    try:
        seconds = float(text or PATIENCE)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"RLHPO_PATIENCE is {text!r}; set it to a number of seconds, such as {PATIENCE:g}")
    return seconds


def _say(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a fault to pass, and how."""

    seconds: float
    """In all, counted from the first attempt; 0 to make one attempt only."""
    give_up: Callable[[], bool] = lambda: False
    """Asked while waiting; true ends it."""
    tell: Callable[[str], None] = _say
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


_NONE = Patience(0.0)
#: What holds in this thread.
current: ContextVar[Patience] = ContextVar("patience", default=_NONE)


@contextmanager
def patiently(seconds: float | None = None, give_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """A context, also as a decorator, in which ``wait_out`` waits in this thread.

    Args:
        seconds: In all; if left out, ten minutes or ``RLHPO_PATIENCE``. With 0, nothing waits.
        give_up: As ``Patience`` has it.

    Raises: UserError if ``RLHPO_PATIENCE`` is not a number of seconds.
    """
    token = current.set(replace(current.get(), seconds=_patience() if seconds is None else seconds, give_up=give_up))
    try:
        yield
    finally:
        current.reset(token)


def wait_out(what: str, action: Callable[[], T], first: float = 1.0) -> T:
    """What ``action`` returns; while it meets a fault that passes, it is tried again, as ``patiently`` has it.

    The waits double from ``first`` to half a minute, with up to a second at random, so that many processes do not come
    back at once. Each is told in one line.

    Args:
        what: What is to be done, for a person to read: "write trials/x.json to s3://…".
        action: May be repeated although it was carried out and only its answer was lost.
        first: Seconds of the first wait.

    Raises: the fault of the last attempt once the patience is at an end; at once, whatever does not pass.
    """
    patience = current.get()
    started = patience.clock()

    def exhausted(state: RetryCallState) -> bool:
        return patience.give_up() or patience.clock() - started + state.upcoming_sleep > patience.seconds

    def tell(state: RetryCallState) -> None:
        fault = state.outcome.exception() if state.outcome is not None else None
        reason = " ".join(str(fault).split())
        patience.tell(f"cannot {what}: {reason[:300]} Trying again in {state.upcoming_sleep:.0f} s.")

    def pause(seconds: float) -> None:
        until = patience.clock() + seconds
        while not patience.give_up() and (left := until - patience.clock()) > 0:
            patience.sleep(min(left, 1.0))

    attempts = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, UserError) and error.passing),
        wait=wait_exponential_jitter(multiplier=first, max=_LONGEST, jitter=1.0),
        stop=exhausted,
        before_sleep=tell,
        sleep=pause,
        reraise=True,
    )
    return attempts(action)
