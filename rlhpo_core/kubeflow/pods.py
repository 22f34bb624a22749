"""The pods of a run, as Kubernetes has them: what KFP does not know of a step that fails or does not start.

Only for those who may read pods. Whoever may not, or has no way to the cluster's API, sees no pods.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

#: Namespace of the pods where KFP has a single user.
_SINGLE_USER = "kubeflow"
#: Labels: KFP's of all pods of a run, and ours with the step's name.
_RUN, _STEP = "pipeline/runid", "rlhpo/step"
#: Reasons for which a container waits that nothing but a person mends, as the kubelet has them.
_STUCK = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
     "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
)  # fmt: skip
_CONTACT, _PATIENCE = 3.0, 10.0


@dataclass(frozen=True)
class Pod:
    """A pod of a run."""

    name: str
    step: str
    """With spaces, as KFP's graph shows it; the pod's name if it is none of ours, such as a driver."""
    trouble: str
    """What keeps it from starting, or how it has failed; empty if all is well."""
    log: str = ""
    """The last lines that a failed one has printed; empty if they cannot be read."""


def of_run(run_id: str, namespace: str | None, lines: int = 8) -> list[Pod]:
    """Pods of a run that are still there; none if they cannot be read.

    Args:
        namespace: ``None`` where KFP has a single user.
        lines: Of the log of a failed pod.
    """
    api, place = _api(), namespace or _SINGLE_USER
    found = [read(one) for one in _listed(api, place, f"{_RUN}={run_id}")]
    return [Pod(pod.name, pod.step, pod.trouble, _log(api, place, pod, lines)) for pod in found]


def that_wait(run_ids: Sequence[str], namespace: str | None) -> dict[str, Pod]:
    """By the ids of runs, one pod each that does not start; only of those that have one, and none if pods cannot be
    read. One request, whatever the number of runs.

    Args:
        namespace: As for ``of_run``.
    """
    if not run_ids:
        return {}
    rows = _listed(_api(), namespace or _SINGLE_USER, f"{_RUN} in ({','.join(run_ids)})")
    waiting = [row for row in rows if row.get("status", {}).get("phase") == "Pending"]
    return {row["metadata"]["labels"][_RUN]: pod for row in waiting if (pod := read(row)).trouble}


def read(pod: dict[str, Any]) -> Pod:
    """What a pod's status says, from the API's JSON."""
    metadata, status = pod["metadata"], pod.get("status", {})
    step = metadata.get("labels", {}).get(_STEP, "").replace("-", " ") or metadata["name"]
    return Pod(metadata["name"], step, "; ".join(_troubles(status)))


def _listed(api: Any, namespace: str, selector: str) -> list[dict[str, Any]]:
    """Pods as the API's JSON has them; none if they cannot be read."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    if api is None:
        return []
    try:
        answer = api.list_namespaced_pod(
            namespace, label_selector=selector, _preload_content=False, _request_timeout=(_CONTACT, _PATIENCE)
        )
        return list(json.loads(answer.data)["items"])
    except (ApiException, HTTPError, ValueError, KeyError):
        return []


def _troubles(status: dict[str, Any]) -> Iterator[str]:
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"is taken by no node: {condition.get('message') or condition.get('reason', '')}"
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state = container.get("state", {})
        waiting, ended = state.get("waiting", {}), state.get("terminated", {})
        if waiting.get("reason") in _STUCK:
            yield f"does not start: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        if ended.get("reason") == "OOMKilled" or (container["name"] == "main" and ended.get("exitCode", 0) != 0):
            memory = " (out of memory?)" if ended.get("exitCode") == 137 else ""
            yield f"exited with {ended.get('exitCode')}, {ended.get('reason', 'Error')}{memory}"
    if status.get("phase") == "Failed" and status.get("reason"):
        yield f"has failed: {status['reason']}: {status.get('message', '')}".rstrip(": ")


def _log(api: Any, namespace: str, pod: Pod, lines: int) -> str:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    if "exited" not in pod.trouble:
        return ""
    try:
        answer = api.read_namespaced_pod_log(
            pod.name, namespace, container="main", tail_lines=lines, _preload_content=False,
            _request_timeout=(_CONTACT, _PATIENCE),
        )  # fmt: skip
    except (ApiException, HTTPError):
        return ""
    return str(answer.data.decode("utf-8", "replace")).rstrip()


def _api() -> Any:
    """The API of the cluster that kubectl would ask, or of the cluster that this runs in; ``None`` without one."""
    from kubernetes import client, config

    configuration = client.Configuration()
    configuration.retries = False
    try:
        config.load_kube_config(client_configuration=configuration)
    except (config.ConfigException, OSError):
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            return None
    return client.CoreV1Api(client.ApiClient(configuration))
