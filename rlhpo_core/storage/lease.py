"""Who tunes a study: a lock on its files for as long as it is tuned, so that a second one is refused and told by whom.

Nothing depends on it but the time of a second training: trials and states are made once, whoever makes them. So a
process that was stopped for long goes on where nobody has taken over. One that has died on this machine holds nothing;
of one on another machine that is known once it has given no sign of life for two minutes.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rlhpo_core.storage.lock import Holding, Lock, current, locked, this_process
from rlhpo_core.storage.object_store import Store

#: Seconds until a process on another machine that says nothing is taken for dead.
EXPIRY = 120.0


@contextmanager
def leased(store: Store) -> Iterator[Lock]:
    """Hold the study while this process tunes it, and renew that by a thread.

    Raises: UserError if another one tunes it, saying which and what to do; LostLock at the end if another one has taken
    over meanwhile, which can only be while this process was stopped or the store was away.
    """
    holder = f"process {os.getpid()} on {platform.node() or 'a machine without a name'}"
    with locked(store, holder, EXPIRY, patience=0, process=this_process(), refuse=_refusal) as lock, lock.kept():
        yield lock


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
