"""Who tunes a study: a lock on its files for as long as it is tuned, so that a second one is refused and told by whom.

Nothing depends on it but the time of a second training: trials and states are made once, whoever makes them. So a
process that was stopped for long goes on where nobody has taken over. One that has died on this machine holds nothing;
of one on another machine that is known once it has given no sign of life for two minutes.

The steps of a pipeline's run are one holder: the first takes the study, and each renews that while it works. Between
two steps nobody does, and a node may have to be started, so a run is taken for dead after a quarter of an hour.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rlhpo_core.retries import patiently
from rlhpo_core.storage.lock import Holding, Lock, acquire, adopted, current, locked, this_process
from rlhpo_core.storage.object_store import Store

#: Seconds until a process on another machine that says nothing is taken for dead.
EXPIRY = 120.0
#: Seconds until a run is taken for dead of which no step says anything.
RUN_EXPIRY = 900.0
#: Holds the study while it is prepared for a run that does not hold it.
_PREPARING = "the first step of a run"


@contextmanager
def leased(store: Store) -> Iterator[Lock]:
    """Hold the study while this process tunes it, and renew that by a thread.

    Raises: UserError if another one tunes it, saying which and what to do; LostLock at the end if another one has taken
    over meanwhile, which can only be while this process was stopped or the store was away.
    """
    holder = f"process {os.getpid()} on {platform.node() or 'a machine without a name'}"
    with locked(store, holder, EXPIRY, patience=0, process=this_process(), refuse=_refusal) as lock, lock.kept():
        yield lock


@contextmanager
def held_by_run(store: Store, run: str) -> Iterator[None]:
    """Hold the study for a run of a pipeline, of which this is the first step; it stays held after that.

    Args:
        run: The run's id. A step that is run again finds the study held by its own run.

    Raises: UserError if a process or another run tunes it, saying which and what to do.
    """
    name = f"run {run}"
    holding = current(store)
    if holding is None or holding.name != name:
        acquire(store, name, RUN_EXPIRY, patience=0, refuse=_refusal)
    with renewed(store):
        yield


@contextmanager
def held_while_prepared(store: Store) -> Iterator[None]:
    """One first step after the other, for runs that do not hold the study: each finds what the one before has begun.

    Whoever holds the study otherwise is taken for the caller.

    Raises: UserError if the step before takes more than two minutes.
    """
    holding = current(store)
    if holding is not None and holding.name != _PREPARING:
        yield
        return
    with locked(store, _PREPARING, EXPIRY, EXPIRY, process=this_process(), refuse=_refusal) as lock, lock.kept():
        yield


@contextmanager
def renewed(store: Store) -> Iterator[None]:
    """Renew what a run holds, by a thread, during a step. If the step fails, the study is free for another run."""
    lock = adopted(store, RUN_EXPIRY)
    if lock is None:
        yield
        return
    try:
        with lock.renewing():
            yield
    except BaseException:
        with patiently(0):
            lock.give_back()
        raise


def release(store: Store, run: str) -> None:
    """Free the study at the end of a run; if another one holds it by now, nothing happens."""
    holding = current(store)
    if holding is None or holding.name != f"run {run}":
        return
    if (lock := adopted(store, RUN_EXPIRY)) is not None:
        lock.give_back()


def holding_run(store: Store) -> str | None:
    """Id of the run that holds the study; ``None`` if none does."""
    holding = current(store)
    return holding.name.removeprefix("run ") if holding is not None and holding.name.startswith("run ") else None


def refused(store: Store) -> str | None:
    """Why the study cannot be tuned now, for a person to read; ``None`` if it can."""
    holding = current(store)
    return None if holding is None else _refusal(store, holding)


def _refusal(store: Store, holding: Holding) -> str:
    lives = holding.process is not None and holding.process.lives()
    advice = (
        "wait for it, or stop it"
        if lives
        else f"wait for it, or stop it; if it is dead, try again after {_moment(holding.expires)}"
    )
    return f"{store.uri} is being tuned by {holding.name} since {_moment(holding.since)}; {advice}"


def _moment(unix_time: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_time))
