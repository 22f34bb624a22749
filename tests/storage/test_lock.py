from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.storage.lock import Lock, LostLock, locked
from rlhpo_core.storage.object_store import FolderStore
from tests.helpers.servers import shared_s3_server

ROOT = Path(__file__).parents[2]

#: Adds one to a number in a file, slowly, so that two at once would lose one.
COUNT = """
import sys, time
from pathlib import Path
from rlhpo_core.storage.lock import locked
from rlhpo_core.storage.object_store import open_store

for _ in range(5):
    with locked(open_store(sys.argv[1]), "counter", patience=240):
        file = Path(sys.argv[2])
        number = int(file.read_text())
        time.sleep(0.02)
        file.write_text(str(number + 1))
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_processes_that_want_it_at_once_have_it_one_after_the_other(tmp_path: Path, kind: str) -> None:
    number = tmp_path / "number"
    number.write_text("0")
    place, environment = str(tmp_path / "store"), dict(os.environ)
    if kind == "s3":
        server = shared_s3_server()
        place, environment = f"s3://{server.bucket}/{uuid.uuid4().hex}", environment | server.environment()
    command = [sys.executable, "-c", COUNT, place, str(number)]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}) for _ in range(3)]
    assert [process.wait(timeout=280) for process in processes] == [0, 0, 0]
    assert number.read_text() == "15"


def test_it_is_given_back_also_after_an_error(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with pytest.raises(ZeroDivisionError), locked(store, "first"):
        _ = 1 / 0
    with locked(store, "second", patience=0) as lock:
        assert lock.number == 2


def test_whoever_waits_too_long_is_told_who_holds_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with (
        locked(store, "anna@here"),
        pytest.raises(UserError, match=r"anna@here holds the lock of .*; try again later"),
        locked(store, "ben@there", patience=0),
    ):
        pass


def test_the_dead_hold_nothing_and_the_slow_notice(tmp_path: Path) -> None:
    store, clock = FolderStore(tmp_path), Clock()
    with locked(store, "slow", expiry=60, clock=clock) as slow:
        slow.check()
        clock.now += 61
        with pytest.raises(LostLock):
            slow.check()
        with locked(store, "next", patience=0, clock=clock) as after:
            assert after.number > slow.number
            with pytest.raises(LostLock):
                slow.renew()
            after.check()
    # The slow one gave back nothing that was not its own.
    with locked(store, "third", patience=0, clock=clock):
        pass


def test_it_can_be_held_for_longer(tmp_path: Path) -> None:
    store, clock = FolderStore(tmp_path), Clock()
    with locked(store, "long", expiry=60, clock=clock) as lock:
        for _ in range(5):
            clock.now += 40
            lock.renew()
        with pytest.raises(UserError, match="holds the lock"), locked(store, "other", patience=0, clock=clock):
            pass


def test_old_holdings_are_cleared_away(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    numbers: list[Lock] = []
    for _ in range(30):
        with locked(store, "again") as lock:
            numbers.append(lock)
    assert [lock.number for lock in numbers] == list(range(1, 31))
    assert len(store.keys("lock/")) <= 21
