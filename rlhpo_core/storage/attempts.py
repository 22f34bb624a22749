"""Which trials are being trained, so that one that takes its pod down with it is not trained for ever.

Each attempt leaves a mark, ``attempts/<trial id>/<number>.json``, before it trains, renews it meanwhile, and removes it
when it ends in an orderly way: with a result, with an error, or by SIGTERM. So a mark that nobody renews is a death.
Whether the mark is renewed decides, and not to which run it belongs: a pod that lost its node may live on and train the
same trial as the one in its place, and so may the pods of two runs; their marks are no deaths. Attempts with another
memory limit do not count, since they may have died of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydantic import ValidationError

from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.retries import patiently
from rlhpo_core.storage.object_store import Store

#: Seconds until an attempt that says nothing is taken for dead; it is renewed four times as often. Clocks of different
#: machines are taken to agree within half of that.
EXPIRY = 60.0
#: Deaths after which a trial is not trained again.
MOST_DEATHS = 2
_FOLDER = "attempts/"


class Attempt(Frozen):
    """A mark."""

    began: float
    """Unix time, as ``expires``."""
    expires: float
    memory: str
    """The limit under which it trains, as ``cluster.trial_memory`` has it."""


@contextmanager
def marked(store: Store, trial_id: str, memory: str) -> Iterator[None]:
    """While a trial is trained: whoever comes later sees whether this process has died of it.

    Args:
        memory: As ``Attempt`` has it.

    Raises: UserError if the store fails before the mark is there; later faults of the store are put up with.
    """
    began, number = time.time(), 1 + max(map(_number, store.keys(_folder(trial_id))), default=0)
    mark, key = Attempt(began=began, expires=began + EXPIRY, memory=memory), _key(trial_id, number)
    # SIGTERM may come as soon as the mark is there.
    try:
        while not store.create(key, mark.model_dump_json().encode()):
            number += 1
            key = _key(trial_id, number)
        with _renewed(store, key, mark):
            yield
    finally:
        with suppress(UserError), patiently(0):
            store.delete(key)


def died_of(store: Store, trial_id: str, memory: str) -> bool:
    """Whether a trial has taken so many processes down that it is not to be trained again.

    If that depends on attempts that may live, it is waited, for ``EXPIRY`` at most, until they have shown whether they
    do.

    Args:
        memory: As ``Attempt`` has it: only attempts under this limit count.

    Raises: UserError if the store fails.
    """
    marks = _marks(store, trial_id, memory)
    if len(marks) < MOST_DEATHS:
        return False
    time.sleep(max(0.0, max(mark.expires for mark in marks) - time.time()))
    now = time.time()
    return sum(mark.expires <= now for mark in _marks(store, trial_id, memory)) >= MOST_DEATHS


@contextmanager
def _renewed(store: Store, key: str, mark: Attempt) -> Iterator[None]:
    done = threading.Event()

    def renew() -> None:
        while not done.wait(EXPIRY / 4):
            # A store that is away is perhaps there again at the next turn.
            with suppress(UserError):
                renewed = mark.model_copy(update={"expires": time.time() + EXPIRY})
                store.write(key, renewed.model_dump_json().encode())

    thread = threading.Thread(target=renew, name=f"renews {key}", daemon=True)
    try:
        thread.start()
        yield
    finally:
        done.set()
        # A thread that SIGTERM has met as it started finds the end at its first look.
        if thread.is_alive():
            thread.join()


def _marks(store: Store, trial_id: str, memory: str) -> list[Attempt]:
    """Those under that limit; what is no mark, or was just removed, is left out."""
    found = []
    for key in store.keys(_folder(trial_id)):
        with suppress(ValidationError):
            found.append(Attempt.model_validate_json(store.read(key) or b""))
    return [mark for mark in found if mark.memory == memory]


def _folder(trial_id: str) -> str:
    return f"{_FOLDER}{trial_id}/"


def _key(trial_id: str, number: int) -> str:
    return f"{_folder(trial_id)}{number:04d}.json"


def _number(key: str) -> int:
    """0 for what is no mark."""
    name = key.rsplit("/", 1)[1].removesuffix(".json")
    return int(name) if name.isdecimal() else 0
