"""What every step does in its pod: settings from mounted files, patience with the world, an end at SIGTERM."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from types import FrameType
from typing import ParamSpec, TypeVar

from rlhpo_core.errors import UserError
from rlhpo_core.execution import resources
from rlhpo_core.kubeflow import pod_settings
from rlhpo_core.retries import patiently
from rlhpo_core.study.spec import ExecutionSpec

P = ParamSpec("P")
R = TypeVar("R")
#: Steps that read what the others could not do: what they could not do themselves is no reason to give a study up.
_LAST = ("submit_next", "supervise", "end")
#: As shells have it for a process that SIGTERM has ended.
_TERMINATED = 128 + signal.SIGTERM


def in_pod() -> bool:
    """Whether this process is a step in a pod of its own."""
    return pod_settings.MOUNT.is_dir()


def step(function: Callable[P, R]) -> Callable[P, R]:
    """A step of a pipeline, as a decorator.

    In a pod, SIGTERM ends it within the pod's grace: workers are ended, and the study that lies in the argument
    ``store`` says KILLED in MLflow. If the pod was only moved, the next step says RUNNING again. An error that a person
    has to mend is kept in that store.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        store = signature.bind(*args, **kwargs).arguments.get("store")
        with pod_settings.mounted(), ended_by_sigterm(lambda: _say_killed(store)), patiently():
            if in_pod():
                # Numerical libraries count the node's cores, and read this when they are first imported.
                os.environ.setdefault("OMP_NUM_THREADS", str(resources.cores()))
            try:
                return function(*args, **kwargs)
            except UserError as error:
                if function.__name__ not in _LAST:
                    _keep_fault(store, function.__name__.replace("_", " "), error)
                raise

    return run


def threads(execution: ExecutionSpec) -> int:
    """Threads of the one trial of a step: in a pod, as set or the pod's CPUs; else its share of this machine."""
    return execution.threads or resources.cores() if in_pod() else resources.threads(execution)


@contextmanager
def ended_by_sigterm(last: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGTERM unwinds this process with exit code 143, and ``last`` is called on the way out.

    Outside of the main thread, and where this is no pod, SIGTERM does what it did.
    """
    if not in_pod() or threading.current_thread() is not threading.main_thread():
        yield
        return
    terminated = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit:
        if terminated:
            last()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep_fault(store: object, step: str, error: UserError) -> None:
    """Keep in the study's store why a step failed, for the last step of the run to tell.

    A run that was refused, since another one tunes the study, leaves that one's alone.
    """
    from rlhpo_core.kubeflow.next_run import note_fault
    from rlhpo_core.storage.lock import current
    from rlhpo_core.storage.object_store import open_store
    from rlhpo_core.storage.study_files import StudyFiles

    with suppress(UserError), patiently(0):
        files = StudyFiles(open_store(str(store)))
        if current(files.store) is None:
            note_fault(files, step, error)


def _say_killed(store: object) -> None:
    from rlhpo_core.kubeflow.stopping import mark_killed
    from rlhpo_core.storage.object_store import open_store
    from rlhpo_core.storage.study_files import StudyFiles

    if not isinstance(store, str) or not store:
        return
    try:
        with patiently(0):
            mark_killed(StudyFiles(open_store(store)))
    except UserError as error:
        print(f"warning: MLflow does not know that this step was ended: {error}", flush=True)
