"""Who tunes a study: one at a time, and the dead hold nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.storage import lock
from rlhpo_core.storage.lease import EXPIRY, held_by_run, leased, refused, release, renewed
from rlhpo_core.storage.lock import Holding, LostLock, Process, this_process
from rlhpo_core.storage.object_store import FolderStore

ROOT = Path(__file__).parents[2]
KEY = "lock/0000000001"

HOLD = """
import sys, time
from rlhpo_core.storage.lease import leased
from rlhpo_core.storage.object_store import open_store

with leased(open_store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(place: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    command = [sys.executable, "-c", HOLD, str(place)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def expire(store: FolderStore) -> None:
    """As if the holder had not been heard of for long."""
    holding = Holding.model_validate_json(store.read(KEY) or b"")
    store.write(KEY, holding.model_copy(update={"expires": time.time() - 1}).model_dump_json().encode())


def test_a_second_one_is_told_who_has_it_and_has_it_once_that_one_is_dead(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with holder(tmp_path) as process:
        message = (
            rf"{tmp_path} is being tuned by process {process.pid} on .+ since 2\d\d\d-.+; wait for it, or stop it$"
        )
        with pytest.raises(UserError, match=message), leased(store):
            pass
        process.send_signal(signal.SIGSTOP)
        expire(store)
        with pytest.raises(UserError, match=message), leased(store):
            pass
        process.kill()
        # Not waited for yet: the system still lists it.
        while refused(store) is not None:
            time.sleep(0.01)
        with leased(store) as lease:
            assert lease.number == 2
    assert refused(store) is None


def test_a_number_that_another_process_has_now_does_not_keep_it(tmp_path: Path) -> None:
    store, me = FolderStore(tmp_path), this_process()
    assert me.lives()
    gone = Process(machine=me.machine, pid=me.pid, started=me.started - 60)
    assert gone.lives() is False
    holding = Holding(holder="process abc", since=time.time(), expires=time.time() + 60, process=gone)
    store.write(KEY, holding.model_dump_json().encode())
    with leased(store) as lease:
        assert lease.number == 2


def test_on_another_machine_time_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    with leased(store) as ours:
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(lock, "this_machine", lambda: "another")
            free = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + EXPIRY))
            with pytest.raises(UserError, match=rf"; if it is dead, try again after {free[:-1]}"), leased(store):
                pass
            expire(store)
            # Nobody was there: whoever wakes up goes on.
            ours.renew()
            assert refused(store) is not None
            expire(store)
            with leased(store) as theirs:
                assert theirs.number == 2
        with pytest.raises(LostLock, match=rf"is lost to process {os.getpid()} on .+; what was done under it is kept"):
            ours.check()
        ours.number = 2  # So that the end has nothing to say.


def test_the_steps_of_a_run_are_one_holder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with held_by_run(store, "a"):
        pass
    message = r"is being tuned by run a since .+; wait for it, or stop it; if it is dead, try again after 2\d\d\d-.+"
    for other in (held_by_run(store, "b"), leased(store)):
        with pytest.raises(UserError, match=message), other:
            pass
    with held_by_run(store, "a"):  # Its first step is run again.
        assert store.keys("lock/") == [KEY]
    expire(store)
    assert refused(store) is None
    with renewed(store):
        wait_until(lambda: refused(store) is not None)
    with pytest.raises(ZeroDivisionError), renewed(store):
        _ = 1 / 0
    assert refused(store) is None, "a step that fails ends its run"
    with renewed(store):  # Unless the step is tried again.
        wait_until(lambda: refused(store) is not None)
    release(store, "b")
    assert refused(store) is not None, "of another run"
    release(store, "a")
    with held_by_run(store, "b"):
        assert "run b" in (refused(store) or "")


def test_a_step_renews_nothing_that_a_process_holds(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with leased(store):
        before = store.read(KEY)
        with renewed(store):
            time.sleep(0.05)
        release(store, "a")
        assert store.read(KEY) == before


def test_of_several_at_once_one_has_it(tmp_path: Path) -> None:
    at_once, through = Barrier(6), Barrier(6)

    def want(place: Path) -> bool:
        at_once.wait()
        try:
            with leased(FolderStore(place)):
                through.wait()
        except UserError:
            through.wait()
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        for attempt in range(10):
            assert sum(threads.map(want, [tmp_path / str(attempt)] * 6)) == 1
