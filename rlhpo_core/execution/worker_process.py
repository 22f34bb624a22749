"""A worker as a process: how it is started, what memory it has, and how it is ended. ``trial_pool`` decides when."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil

from rlhpo_core.data.schema import TableSchema
from rlhpo_core.execution import cgroup
from rlhpo_core.execution.process_group import Guard
from rlhpo_core.execution.trial_worker import Message, encode, work
from rlhpo_core.study.spec import StudySpec

MB = 2**20


def send(connection: Connection, message: Message) -> bool:
    """Whether there was somebody to send to."""
    try:
        connection.send_bytes(encode(message))
    except OSError:
        return False
    return True


def used_by(container: Path) -> float:
    """Memory of a container, in MB; where the kernel does not say, that of this process and of all below it."""
    used = cgroup.memory_used(container)
    return _resident(os.getpid()) if used is None else used / MB


def memory(process: SpawnProcess) -> float:
    """Resident memory of a process and all below it, in MB; pages that they share count for each."""
    return _resident(process.pid)


def _resident(pid: int | None) -> float:
    total = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for member in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    return total / MB


def kill(process: SpawnProcess) -> None:
    """Kill a process and its children, which are in its group."""
    assert process.pid is not None
    # There is no group if it is killed before it could found one.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def start(
    spec: StudySpec, schema: TableSchema | None, threads: int, checkpoints: str | None
) -> tuple[SpawnProcess, Connection, Guard]:
    """A worker, the pipe to it, and what ends its trials' processes should this one be killed.

    Args:
        schema: By which the table is read; ``None`` to infer it.
        threads: Of each trial.
        checkpoints: The store in which trials keep theirs; ``None`` for none.
    """
    ours, theirs = multiprocessing.Pipe()
    schema_json = None if schema is None else schema.model_dump_json()
    arguments = (theirs, spec.model_dump_json(), schema_json, threads, checkpoints, os.getpid())
    # Not a daemon: those may have no child processes, which data loaders need.
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments, name="rlhpo-trial")
    with _environment(threads):
        process.start()
    theirs.close()
    assert process.pid is not None
    return process, ours, Guard(process.pid)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What a worker inherits: numeric libraries read their number of threads when they are first imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    # Ctrl-C goes to all processes of the terminal. A worker is to ignore it, also before it comes to say so itself.
    # The resource tracker, which the first process starts, would lift the block again.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
