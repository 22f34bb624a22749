"""What Kubernetes knows of the pods of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhpo_core.kubeflow import pods
from tests.helpers.kubernetes_api import KubernetesApi, pod

_KUBECONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    api = KubernetesApi()
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(api.kubeconfig(tmp_path / "config"))
    )
    yield api
    api.stop()


UNSCHEDULABLE = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
         "message": "0/1 nodes are available: 1 Insufficient cpu."}
    ],
}  # fmt: skip
NO_IMAGE = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "True"}],
    "containerStatuses": [
        {"name": "wait", "state": {"running": {}}},
        {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff", "message": 'pulling "none:1"'}}},
    ],
}
KILLED = {
    "phase": "Failed",
    "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}],
}
EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}
FINE = {
    "phase": "Succeeded",
    "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
}
#: On cgroup v1 only the worker dies, and the step ends well.
WORKER_KILLED = {
    "phase": "Succeeded",
    "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 0, "reason": "OOMKilled"}}}],
}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (UNSCHEDULABLE, "is taken by no node: 0/1 nodes are available: 1 Insufficient cpu."),
        (NO_IMAGE, 'does not start: ImagePullBackOff: pulling "none:1"'),
        (KILLED, "exited with 137, OOMKilled (out of memory?)"),
        (EVICTED, "has failed: Evicted: The node was low on resource: ephemeral-storage."),
        (WORKER_KILLED, "exited with 0, OOMKilled"),
        (FINE, ""),
        ({}, ""),
    ],
)
def test_what_a_status_says(status: dict[str, Any], said: str) -> None:
    found = pods.read(pod("one", "register-best", **status))
    assert (found.step, found.trouble) == ("register best", said)


def test_pods_of_a_run_with_the_log_of_what_failed(cluster: KubernetesApi) -> None:
    cluster.pods["kubeflow"] = [
        pod("one", "train", **KILLED),
        pod("one", None, **UNSCHEDULABLE),
        pod("one", "propose", **FINE),
        pod("two", "train", **EVICTED),
    ]
    cluster.logs["one-train"] = "a\nb\nc\n"
    found = pods.of_run("one", None, lines=2)
    assert [(one.step, bool(one.trouble), one.log) for one in found] == [
        ("train", True, "b\nc"),
        ("one-driver", True, ""),
        ("propose", False, ""),
    ]
    assert pods.of_run("one", "team") == []


def test_of_many_runs_those_are_found_whose_pods_do_not_start(cluster: KubernetesApi) -> None:
    cluster.pods["team"] = [
        pod("one", "propose", **FINE),
        pod("one", "train", **NO_IMAGE),
        pod("two", "train", **KILLED),
        pod("three", None, **UNSCHEDULABLE),
        pod("four", "train", **NO_IMAGE),
    ]
    found = pods.that_wait(["one", "two", "three"], "team")
    assert {run: (one.step, one.trouble[:14]) for run, one in found.items()} == {
        "one": ("train", "does not start"),
        "three": ("three-driver", "is taken by no"),
    }
    assert pods.that_wait([], "team") == {}
    cluster.forbidden = True
    assert pods.that_wait(["one"], "team") == {}


def test_who_may_not_read_pods_sees_none(cluster: KubernetesApi) -> None:
    cluster.pods["kubeflow"] = [pod("one", "train", **KILLED)]
    cluster.forbidden = True
    assert pods.of_run("one", None) == []


def test_without_a_way_to_a_cluster_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_KUBECONFIG, str(tmp_path / "none"))
    assert pods.of_run("one", None) == []
