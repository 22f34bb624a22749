"""Why a run does not go on, or has failed: the step, how it ended, the last lines of its log, the scheduler's words.

KFP's API knows the state of each step, and of a failed one neither its exit code nor a message. Its log is the artifact
``executor-logs`` in KFP's object store. What keeps a pod from starting only Kubernetes knows. All three are asked, and
each may be out of the caller's reach: what cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import client, pods
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.storage.object_store import open_store

#: File name of a step's log in KFP's object store, which has it as ``PIPELINE/RUN/TASK/UUID/executor-logs``.
_LOG = "executor-logs"
#: Argo's names for the parts of a step, which say nothing about which step it is.
_PARTS = ("executor", "system-container-executor", "system-container-impl")


@dataclass(frozen=True)
class Log:
    """What a step has printed."""

    step: str
    """KFP's name of the step, such as ``evaluator-training``."""
    text: str

    def tail(self, lines: int) -> str:
        """The last lines of it."""
        return "\n".join(self.text.rstrip().splitlines()[-lines:])


@dataclass(frozen=True)
class Trouble:
    """A step that has failed, or that does not start."""

    step: str
    """Its name in KFP's graph where Kubernetes could be asked, else KFP's own name of it."""
    what: str
    """How it ended, or what it waits for."""
    log: str = ""
    """The last lines of its log; empty if it has none, or if they cannot be read."""

    def __str__(self) -> str:
        """For a person to read."""
        lines = [f"step {self.step!r} {self.what}" + ("; its log ends with" if self.log else "")]
        return "\n".join(lines + [f"    {line}" for line in self.log.splitlines()])


def troubles(server: Server, run_id: str, artifacts: str | None = None, lines: int = 8) -> list[Trouble]:
    """What is wrong with a run, as far as the caller may see it; empty if nothing is, or nothing can be seen.

    Args:
        artifacts: Where KFP keeps artifacts; ``None`` for the run's own root, if it has one.
        lines: Of each log, at most.

    Raises: UserError if KFP cannot be reached, or if there is no such run.
    """
    run = client.get_run(server, run_id)
    seen = [pod for pod in pods.of_run(run_id, server.namespace, lines) if pod.trouble]
    if seen:
        return [Trouble(pod.step, pod.trouble, pod.log) for pod in seen]
    failed = failed_steps(run)
    try:
        tails = {log.step: log.tail(lines) for log in _logs(server, run, artifacts) if log.step in failed}
    except UserError as error:
        tails = dict.fromkeys(failed, f"({error})")
    return [Trouble(step, "has failed", tails.get(step, "")) for step in failed]


def logs(server: Server, run_id: str, artifacts: str | None = None) -> list[Log]:
    """What the steps of a run have printed, from KFP's object store, by their names.

    Args:
        artifacts: As for ``troubles``.

    Raises: UserError if there is no such run, if it is not known where its logs lie, or if they cannot be read.
    """
    run = client.get_run(server, run_id)
    if _root(run, artifacts) is None:
        raise UserError(
            "where does KFP keep artifacts? Name it with --artifacts (by default it is s3://mlpipeline/v2/artifacts), "
            "and set AWS_ENDPOINT_URL_S3 and the keys for it"
        )
    return list(_logs(server, run, artifacts))


def failed_steps(run: Any) -> list[str]:
    """KFP's names of the steps that have failed, without what failed because of them.

    Args:
        run: KFP's model of it.
    """
    tasks = (run.run_details.task_details if run.run_details is not None else None) or []
    by_id = {task.task_id: task for task in tasks}
    parent = {task.task_id: task.parent_task_id for task in tasks if task.parent_task_id}
    for task in tasks:
        parent |= {child.task_id: task.task_id for child in task.child_tasks or () if child.task_id}
    failed = [task for task in tasks if task.state == "FAILED"]
    above = {parent.get(task.task_id) for task in failed}
    names = []
    for task in failed:
        if task.task_id in above:
            continue
        named = task
        while named.display_name in _PARTS and (up := by_id.get(parent.get(named.task_id, ""))) is not None:
            named = up
        names.append(str(named.display_name))
    return list(dict.fromkeys(names))


def _logs(server: Server, run: Any, artifacts: str | None) -> Iterator[Log]:
    root = _root(run, artifacts)
    if root is None:
        return
    store = open_store(f"{root}/{client.pipeline_name(server, run)}/{run.run_id}")
    for key in store.keys(""):
        if key.endswith(f"/{_LOG}") and (data := store.read(key)) is not None:
            yield Log(key.partition("/")[0], data.decode("utf-8", "replace"))


def _root(run: Any, artifacts: str | None) -> str | None:
    """Where the run's artifacts lie; ``None`` if that is not known."""
    root = artifacts or (run.runtime_config.pipeline_root if run.runtime_config is not None else None)
    # KFP's word for S3 at an endpoint of its own; ours comes from AWS_ENDPOINT_URL_S3.
    return root.rstrip("/").replace("minio://", "s3://", 1) if root else None
