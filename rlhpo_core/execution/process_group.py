"""Process groups that do not outlive this process, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

#: Waits for the end of its input, then kills the group that it is given.
_SCRIPT = 'read -r _; kill -s KILL -- "-$1"'


class Guard:
    """Kills a process group should this process be killed, which then has no chance to do so itself.

    The kernel kills the one process that asks for it when its parent dies; what that has started lives on. The guard is
    a shell that waits for its input to end, which it does when this process dies in whatever way.

    Args:
        group: Its leader's process id.
    """

    def __init__(self, group: int) -> None:
        # In a session of its own: neither Ctrl-C nor what kills our own group reaches it.
        self._group = group
        self._shell = subprocess.Popen(
            ["sh", "-c", _SCRIPT, "rlhpo-guard", str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end(self) -> None:
        """Kill what is left of the group now."""
        with suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)
        self.release()

    def release(self) -> None:
        """Let the group be: it has ended."""
        self._shell.kill()
        self._shell.wait()
        assert self._shell.stdin is not None
        self._shell.stdin.close()
