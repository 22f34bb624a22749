"""How the cores of this computer are shared between trials."""

from __future__ import annotations

import os

from rlhpo_core.execution import cgroup
from rlhpo_core.study.spec import ExecutionSpec


def cores() -> int:
    """Cores that this process may use: those of the machine, or fewer if a container is limited to less."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cgroup.cpus()
    # Half a CPU is one thread; of one and a half, a second thread would mostly wait.
    return there if limit is None else max(1, min(there, int(limit)))


def workers(execution: ExecutionSpec) -> int:
    """Trials at once: as set, else as many as the cores allow with the threads that each is given."""
    return execution.workers or max(1, cores() // (execution.threads or 1))


def threads(execution: ExecutionSpec) -> int:
    """Threads of one trial: as set, else so that all workers together use each core once."""
    return execution.threads or max(1, cores() // workers(execution))
