"""What the pods of a study are given on a cluster.

A study file is data, and may come from anybody: it chooses neither credentials nor accounts. Names of secrets and
config maps are options of the command line only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from rlhpo_core.frozen import Frozen
from rlhpo_core.study.durations import Duration


def _text(value: object) -> object:
    """Numbers as YAML has them, as text."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Cpu = Annotated[str, BeforeValidator(_text), Field(pattern=r"^(\d+(\.\d+)?|\d+m)$")]
"""CPUs, such as 2, 0.5 or 500m."""
Memory = Annotated[str, BeforeValidator(_text), Field(pattern=r"^[1-9]\d*([KMGT]i?)?$")]
"""Bytes, such as 8G or 512Mi; ``in_bytes`` reads it."""
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
"""The value of a label."""


def in_bytes(memory: Memory) -> int:
    """What Kubernetes makes of it: K, M, G and T are powers of 1000, with an i of 1024."""
    digits = memory.rstrip("KMGTi")
    unit = memory.removeprefix(digits)
    power = " KMGT".index(unit[0]) if unit else 0
    return round(int(digits) * (1024.0 if unit.endswith("i") else 1000.0) ** power)


class TolerationSpec(Frozen):
    """A taint of nodes that is put up with, as Kubernetes has it."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class AcceleratorSpec(Frozen):
    """What a trial's pod asks for besides CPU and memory, if ``execution.device`` is ``cuda``."""

    type: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    """Name of the resource."""
    count: Annotated[int, Field(ge=1)] = 1
    """How many."""


class ClusterSpec(Frozen):
    """Resources, nodes, queue and deadlines of the pods. Trials, and the winner's refit, are apart from small steps."""

    trial_cpu: Cpu = "1"
    """CPUs of a trial: request and limit, and as many threads."""
    trial_memory: Memory = "2G"
    """Memory of a trial: request and limit."""
    step_cpu: Cpu = "1"
    """At most so many CPUs for a small step …"""
    step_cpu_request: Cpu = "250m"
    """… and so many that a node must have free, so that steps do not wait for each other on a small one."""
    step_memory: Memory = "2G"
    """Memory of a small step: request and limit. They import torch and MLflow, and hold the table."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of nodes that may take any pod of the study."""
    tolerations: tuple[TolerationSpec, ...] = ()
    """Of any pod of the study."""
    trial_node_selector: dict[str, str] = Field(default_factory=dict)
    """Further labels of nodes that may take a trial."""
    trial_tolerations: tuple[TolerationSpec, ...] = ()
    """Further ones, of trials."""
    accelerator: AcceleratorSpec = AcceleratorSpec()
    """Of trials, used with ``execution.device: cuda``."""
    shared_memory: Memory | None = None
    """Size of /dev/shm in a trial's pod, counted as its memory; the container runtime's 64 MB if not set."""
    queue: Label | None = None
    """Local queue of Kueue in the namespace, for all pods."""
    priority: Label | None = None
    """Workload priority class of Kueue; KFP has no field for a pod's own priority class."""
    trial_deadline: Duration | None = None
    """A trial's pod that runs longer is ended and its run fails; ``execution.trial_timeout`` ends the trial alone."""
    step_deadline: Duration | None = None
    """A small step's pod that runs longer is ended, and the run fails."""
    run_deadline: Duration | None = None
    """A run that takes longer is ended, waiting for nodes and images included."""


#: What holds for a study that says nothing of its pods.
STANDARD = ClusterSpec()
