"""A process group ends with the process that guards it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rlhpo_core.execution.process_group import Guard

KILLED = """
import os, signal, sys
from rlhpo_core.execution.process_group import Guard
guard = Guard(int(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a group of its own."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


def test_a_group_ends_with_its_guardian(leader: subprocess.Popen[bytes]) -> None:
    guardian = subprocess.run([sys.executable, "-c", KILLED, str(leader.pid)], check=False)
    assert guardian.returncode == -signal.SIGKILL
    assert leader.wait(timeout=60) == -signal.SIGKILL


def test_a_group_that_is_released_lives_on(leader: subprocess.Popen[bytes]) -> None:
    Guard(leader.pid).release()
    with pytest.raises(subprocess.TimeoutExpired):
        leader.wait(timeout=1)


def test_a_group_is_ended(leader: subprocess.Popen[bytes]) -> None:
    Guard(leader.pid).end()
    assert leader.wait(timeout=60) == -signal.SIGKILL
    Guard(leader.pid).end()
