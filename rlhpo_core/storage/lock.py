"""A lock in an object store: one holder at a time, for a limited time, with a number that grows.

Each holding is an object ``lock/<number>``, made by a conditional write, so of several that want it at once one gets
it. A holder that dies holds nothing once its time is over. One that lives renews it, and one that was stopped for too
long finds itself overtaken when it checks. Clocks of different machines are taken to agree within a few seconds; expiry
is minutes.

A holder may name its process. Then whoever is on the same machine sees whether it lives, whatever the time, and it may
renew late as long as nobody has taken over: for work that no overlap can spoil, of which it is only to be known who
does it (``lease``).
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import Field, ValidationError

from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.storage.object_store import Store, sure_of

_PREFIX = "lock/"
#: Of holdings; what else lies beside them is somebody's note.
_KEY = re.compile(r"lock/\d{10}")
#: Latest holdings that are kept; older objects are removed.
_KEPT = 20


class Process(Frozen):
    """A process that holds a lock."""

    machine: str
    """As ``this_machine`` has it."""
    pid: Annotated[int, Field(gt=0)]
    started: float
    """Seconds after the machine: a later process may have the same number."""

    def lives(self) -> bool | None:
        """Whether it has not ended; ``None`` if it is on another machine."""
        if self.machine != this_machine():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # It is there, and another user's.
        try:
            ended = psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
            return not ended and abs(_started(self.pid) - self.started) < 1
        except psutil.Error:
            return True  # The system shows nobody the processes of others.


class Holding(Frozen):
    """What the store holds of one holding of the lock."""

    holder: str
    """For a person to read, and something at random."""
    since: float
    """Unix time."""
    expires: float
    """Unix time; 0 once it was given back."""
    process: Process | None = None

    @property
    def name(self) -> str:
        """The holder, for a person to read."""
        return self.holder.rsplit(" ", 1)[0]

    def holds(self, now: float) -> bool:
        """Whether the lock is not free.

        Args:
            now: Unix time.
        """
        lives = None if self.process is None else self.process.lives()
        return self.expires > 0 and (self.expires > now if lives is None else lives)


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
    since: float
    """Unix time."""
    process: Process | None = None
    strict: bool = True
    """Whether a renewal may not be late though nobody has taken over."""
    lost: bool = False
    """Whether a renewal by a thread has found that somebody else has taken over."""

    def check(self) -> None:
        """Raises: LostLock unless the lock is surely held for some seconds more, or, if not strict, still its own."""
        if self.strict and self.clock() > self.expires - min(5.0, self.expiry / 4):
            raise LostLock(f"the lock of {self.store.uri} was held too long and is lost; try again")
        if (newest := _newest(self.store)) != self.number:
            other = _read(self.store, newest)
            raise LostLock(
                f"the lock of {self.store.uri} was held too long and is lost to "
                f"{other.name if other is not None else 'somebody else'}; what was done under it is kept"
            )

    def renew(self) -> None:
        """Hold it for longer. Raises: LostLock if that comes too late."""
        self.check()
        expires = self.clock() + self.expiry
        self._write(expires)
        # Only now: while the store is away, others see the former time.
        self.expires = expires

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew it again and again, by a thread, during work of which nobody knows how long it takes.

        Raises: LostLock at the end if it was lost all the same (this process was stopped, or the store was away).
        """
        with self.renewing():
            yield
        self.renew()

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """As ``kept``, but nobody is told if it was lost."""
        done = threading.Event()
        thread = threading.Thread(target=self._keep, args=(done,), name=f"keeps {_key(self.number)}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _keep(self, done: threading.Event) -> None:
        # What was taken over from another process may be at its end already.
        wait = self.expiry / 10 if self.clock() < self.expires - self.expiry / 2 else 0.0
        while not done.wait(wait):
            wait = self.expiry / 10
            try:
                self.renew()
            except LostLock:
                self.lost = True
                return
            except UserError:
                continue  # The store is away, perhaps not for long.

    def give_back(self) -> None:
        """Let others have it at once, unless they have it already. If the store is away, they have to wait."""
        with suppress(UserError):
            if (not self.strict or self.clock() < self.expires) and self.store.read(_key(self.number)):
                self._write(0.0)

    def _write(self, expires: float) -> None:
        holding = Holding(holder=self.holder, since=self.since, expires=expires, process=self.process)
        self.store.write(_key(self.number), holding.model_dump_json().encode())


def refusal(store: Store, holding: Holding) -> str:
    """What is said to those who cannot have the lock."""
    return f"{holding.name} holds the lock of {store.uri}; try again later"


@contextmanager
def locked(
    store: Store,
    holder: str,
    expiry: float = 300.0,
    patience: float = 900.0,
    clock: Callable[[], float] = time.time,
    process: Process | None = None,
    refuse: Callable[[Store, Holding], str] = refusal,
) -> Iterator[Lock]:
    """Wait for the lock, hold it, and give it back.

    Args:
        holder: For a person to read.
        expiry: Seconds until it is free again though its holder has said nothing.
        patience: Seconds to wait for it.
        process: This one, if that is to be known.
        refuse: What to say if it is not free in time.

    Raises: UserError, naming the holder, if it is not free in time.
    """
    lock = acquire(store, holder, expiry, patience, clock, process, refuse)
    try:
        yield lock
    finally:
        lock.give_back()


def current(store: Store, clock: Callable[[], float] = time.time) -> Holding | None:
    """Who holds the lock now; ``None`` if it is free."""
    newest = _newest(store)
    found = _read(store, newest) if newest else None
    return found if found is not None and found.holds(clock()) else None


def adopted(store: Store, expiry: float, clock: Callable[[], float] = time.time) -> Lock | None:
    """The latest holding, to be renewed by another process for the same holder; ``None`` if that holder is a process.

    Also one that has expired or was given back: it is a holding again once it is renewed.
    """
    newest = _newest(store)
    known = _read(store, newest) if newest else None
    if known is None or known.process is not None:
        return None
    return Lock(store, newest, known.holder, known.expires, expiry, clock, known.since, strict=False)


def this_process() -> Process:
    """The process that asks."""
    return Process(machine=this_machine(), pid=os.getpid(), started=_started(os.getpid()))


def this_machine() -> str:
    """Names the place where a process's number means something: on Linux a boot of a kernel and, in it, a container."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return f"{platform.node()} {psutil.boot_time():.0f}"


def _started(pid: int) -> float:
    # The boot first: psutil adds it to what the system counts from then, and a clock that is set moves both.
    boot = psutil.boot_time()
    return psutil.Process(pid).create_time() - boot


def acquire(
    store: Store,
    holder: str,
    expiry: float,
    patience: float,
    clock: Callable[[], float] = time.time,
    process: Process | None = None,
    refuse: Callable[[Store, Holding], str] = refusal,
) -> Lock:
    """As ``locked``, for those who do not give it back themselves."""
    sure_of(store)
    mine = f"{holder} {secrets.token_hex(8)}"
    deadline = clock() + patience
    while True:
        newest = _newest(store)
        known = _read(store, newest) if newest else None
        if known is None or not known.holds(clock()):
            since, number = clock(), newest + 1
            holding = Holding(holder=mine, since=since, expires=since + expiry, process=process)
            made = store.create(_key(number), holding.model_dump_json().encode())
            # A list that was out of date by many holdings could lead to a number that was cleared away: look again.
            if made and _newest(store) == number:
                for key in _holdings(store)[:-_KEPT]:
                    store.delete(key)
                return Lock(store, number, mine, holding.expires, expiry, clock, since, process, strict=process is None)
        elif clock() >= deadline:
            raise UserError(refuse(store, known))
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
