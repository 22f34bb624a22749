"""A lock in an object store: one holder at a time, for a limited time, with a number that grows.

Each holding is an object ``lock/<number>``, made by a conditional write, so of several that want it at once one gets
it. A holder that dies holds nothing once its time is over. One that lives renews it, and one that was stopped for too
long finds itself overtaken when it checks. Clocks of different machines are taken to agree within a few seconds; expiry
is minutes.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.storage.object_store import Store

_PREFIX = "lock/"
#: Of holdings; what else lies beside them is somebody's note.
_KEY = re.compile(r"lock/\d{10}")
#: Latest holdings that are kept; older objects are removed.
_KEPT = 20


class Holding(Frozen):
    """What the store holds of one holding of the lock."""

    holder: str
    expires: float
    """Unix time; 0 once it was given back."""


class LostLock(UserError):  # noqa: N818  (what happened, in the voice of the other signals)
    """The time was over, and someone else may hold the lock."""


@dataclass
class Lock:
    """A lock that is held."""

    store: Store
    number: int
    """Grows with every holding: what was decided under a smaller number is older."""
    holder: str
    expires: float
    """Unix time."""
    expiry: float
    """Seconds from now until it is free again, at each renewal."""
    clock: Callable[[], float]

    def check(self) -> None:
        """Raises: LostLock unless the lock is surely held for some seconds more."""
        if self.clock() > self.expires - min(5.0, self.expiry / 4) or _newest(self.store) != self.number:
            raise LostLock(f"the lock of {self.store.uri} was held too long and is lost; try again")

    def renew(self) -> None:
        """Hold it for longer. Raises: LostLock if that comes too late."""
        self.check()
        expires = self.clock() + self.expiry
        self.store.write(_key(self.number), _json(Holding(holder=self.holder, expires=expires)))
        # Only now: while the store is away, others see the former time.
        self.expires = expires

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew it again and again, by a thread, during work of which nobody knows how long it takes.

        Raises: LostLock at the end if it was lost all the same (this process was stopped, or the store was away).
        """
        done = threading.Event()
        thread = threading.Thread(target=self._keep, args=(done,), name=f"keeps {_key(self.number)}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        self.renew()

    def _keep(self, done: threading.Event) -> None:
        while not done.wait(self.expiry / 10):
            try:
                self.renew()
            except LostLock:
                return
            except UserError:
                continue  # The store is away, perhaps not for long.


@contextmanager
def locked(
    store: Store, holder: str, expiry: float = 300.0, patience: float = 900.0, clock: Callable[[], float] = time.time
) -> Iterator[Lock]:
    """Wait for the lock, hold it, and give it back.

    Args:
        holder: For a person to read.
        expiry: Seconds until it is free again though its holder has said nothing.
        patience: Seconds to wait for it.

    Raises: UserError, naming the holder, if it is not free in time.
    """
    mine = f"{holder} {secrets.token_hex(8)}"
    lock = _acquire(store, mine, expiry, patience, clock)
    try:
        yield lock
    finally:
        if clock() < lock.expires:
            store.write(_key(lock.number), _json(Holding(holder=mine, expires=0.0)))


def _acquire(store: Store, holder: str, expiry: float, patience: float, clock: Callable[[], float]) -> Lock:
    deadline = clock() + patience
    while True:
        newest = _newest(store)
        current = _read(store, newest) if newest else None
        if current is None or current.expires <= clock():
            expires = clock() + expiry
            number = newest + 1
            # A list that was out of date by many holdings could lead to a number that was cleared away: look again.
            if store.create(_key(number), _json(Holding(holder=holder, expires=expires))) and _newest(store) == number:
                for key in _holdings(store)[:-_KEPT]:
                    store.delete(key)
                return Lock(store, number, holder, expires, expiry, clock)
        elif clock() >= deadline:
            raise UserError(f"{current.holder.rsplit(' ', 1)[0]} holds the lock of {store.uri}; try again later")
        time.sleep(0.2)


def _holdings(store: Store) -> list[str]:
    """Keys, the oldest first."""
    return [key for key in store.keys(_PREFIX) if _KEY.fullmatch(key)]


def _newest(store: Store) -> int:
    keys = _holdings(store)
    return int(keys[-1].removeprefix(_PREFIX)) if keys else 0


def _read(store: Store, number: int) -> Holding | None:
    """``None`` for what cannot be read: a holder that wrote nonsense holds nothing."""
    data = store.read(_key(number))
    try:
        return None if data is None else Holding.model_validate_json(data)
    except ValidationError:
        return None


def _key(number: int) -> str:
    return f"{_PREFIX}{number:010d}"


def _json(holding: Holding) -> bytes:
    return holding.model_dump_json().encode()
