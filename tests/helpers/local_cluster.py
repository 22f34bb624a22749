"""A cluster on this machine: what the KFP server is sent is carried out as Argo would do it, each step a process.

It behaves as was seen on a cluster (KFP 2.17.0 with Argo 4.0.8): what `kfp_engine` says, and a pod that is deleted runs
again, twice at most; nothing follows a termination; a driver that runs twice ruins its run. Scheduled runs begin when a
test lets them (`tick`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.kfp_engine import Engine, PodDied, Task
from tests.helpers.kfp_server import KfpServer

#: Seconds that a pod has after SIGTERM; Kubernetes gives 30.
GRACE = 30.0
#: How often a pod runs again that was deleted: KFP's manifests set retryStrategy.limit to 2.
AGAIN = 2
#: Pods at once, as on a small node.
AT_ONCE = 2
STEP_LABEL = "rlhpo/step"
#: Processes of one machine have one root: a step finds its mounted files below the pod's folder.
_ROOTED = """
from pathlib import Path
from rlhpo_core.kubeflow import pod_settings
pod_settings.MOUNT = Path({root!r}) / pod_settings.MOUNT.relative_to("/")
"""


@dataclass(eq=False)
class Pod:
    """The process of a step."""

    run_id: str
    step: str
    """The label `rlhpo/step`, or the component's name."""
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    deleted: bool = False
    code: int | None = None

    @property
    def log(self) -> str:
        """All that it has printed so far."""
        return (self.folder / "log").read_text(errors="replace") if (self.folder / "log").exists() else ""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class LocalCluster(KfpServer):
    """``objects`` are config maps and secrets by name; ``environment`` is what the image sets."""

    def __init__(
        self,
        folder: Path,
        objects: dict[str, dict[str, str]],
        environment: dict[str, str] | None = None,
        grace: float = GRACE,
    ) -> None:
        super().__init__()
        self.folder, self.objects, self.grace = folder, objects, grace
        self.environment = environment or {}
        self.pods: list[Pod] = []
        """All that there were, in the order in which they began."""
        self._executions: dict[str, _Execution] = {}
        self._node = threading.Semaphore(AT_ONCE)

    def answer(self, method: str, path: str, query: dict[str, str], token: str | None, body: bytes, kind: str) -> Any:
        found = super().answer(method, path, query, token, body, kind)
        *_, what, name = path.split("/")
        if method == "POST" and name == "runs":
            self._begin(found)
        if method == "POST" and name.endswith(":terminate"):
            self._executions[name.removesuffix(":terminate")].terminate()
        if method == "DELETE" and what == "recurringruns":
            # Its workflows are deleted with it, in the middle of a step; KFP shows them RUNNING for ever.
            for run in self.runs.values():
                if run.get("recurring_run_id") == name:
                    self._executions[run["run_id"]].vanish()
        return found

    def tick(self, recurring_run_id: str) -> str | None:
        """The schedule's time has come; the run's id, or ``None`` where one runs already or it is disabled."""
        with self._lock:
            schedule = self.recurring_runs[recurring_run_id]
            own = [run for run in self.runs.values() if run.get("recurring_run_id") == recurring_run_id]
            busy = sum(run["state"] in ("PENDING", "RUNNING") for run in own)
            if schedule["status"] != "ENABLED" or busy >= int(schedule["max_concurrency"]):
                return None
            kept = ("pipeline_spec", "pipeline_version_reference", "runtime_config", "service_account", "experiment_id")
            given = {name: schedule[name] for name in kept if name in schedule}
            given["display_name"] = f"{schedule['display_name'].replace(' ', '')}ab12c-{len(own) + 1}-1000"
            made = KfpServer.create_run(self, {}, json.dumps(given).encode())
            made["recurring_run_id"] = recurring_run_id
            self._begin(made)
            return str(made["run_id"])

    def wait(self, run_id: str, seconds: float = 300) -> str:
        """The state in which a run has ended. Raises: TimeoutError, with what its pods said."""
        self._executions[run_id].join(seconds)
        if self._executions[run_id].is_alive():
            raise TimeoutError(f"run {run_id} is {self.runs[run_id]['state']} after {seconds} s\n{self.logs(run_id)}")
        return str(self.runs[run_id]["state"])

    def wait_for_all(self, seconds: float = 600) -> None:
        """Until no run is under way, those that others have sent among them."""
        deadline = time.monotonic() + seconds
        while open_ones := [run_id for run_id, execution in list(self._executions.items()) if execution.is_alive()]:
            self.wait(open_ones[0], deadline - time.monotonic())

    def pod(self, step: str, run_id: str | None = None, seconds: float = 120) -> Pod:
        """A pod of that step that runs; waits for it. Raises: TimeoutError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for pod in list(self.pods):
                if pod.step == step and pod.running and run_id in (None, pod.run_id):
                    return pod
            time.sleep(0.02)
        raise TimeoutError(f"no pod of {step} within {seconds} s; pods: {[pod.step for pod in self.pods]}")

    def delete(self, pod: Pod) -> None:
        """As ``kubectl delete pod``, a drained node, or an eviction by the API."""
        pod.deleted = True
        _end(pod, self.grace)

    def kill(self, pod: Pod) -> None:
        """As the kernel does when memory is out: exit code 137."""
        if pod.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pod.process.pid, signal.SIGKILL)

    def ruin(self, run_id: str) -> None:
        """As when a driver's pod runs again after it had published: nothing inside the run can mend it."""
        self._executions[run_id].vanish("FAILED")

    def logs(self, run_id: str) -> str:
        """The ends of the logs of a run's pods."""
        own = [pod for pod in self.pods if pod.run_id == run_id]
        return "\n".join(f"-- {pod.step}: exit {pod.code}\n{pod.log[-1500:]}" for pod in own[-6:])

    def stop(self) -> None:
        for execution in self._executions.values():
            execution.vanish()
        super().stop()

    def _version(self, reference: dict[str, Any]) -> dict[str, Any]:
        """The one that is named, else the pipeline's newest."""
        if (name := reference.get("pipeline_version_id")) is not None:
            return self.versions[name]
        return [one for one in self.versions.values() if one["pipeline_id"] == reference["pipeline_id"]][-1]

    def _begin(self, run: dict[str, Any]) -> None:
        version = run.get("pipeline_version_reference")
        package = run["pipeline_spec"] if version is None else self._version(version)["pipeline_spec"]
        execution = _Execution(self, run, package)
        self._executions[run["run_id"]] = execution
        execution.start()


def _end(pod: Pod, grace: float) -> None:
    process = pod.process
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        os.killpg(process.pid, signal.SIGKILL)


class _Execution(threading.Thread):
    """One run."""

    def __init__(self, cluster: LocalCluster, run: dict[str, Any], package: dict[str, Any]):
        super().__init__(daemon=True)
        self._cluster, self._run, self._package = cluster, run, package
        platform = package.get("platform_spec", {}).get("platforms", {}).get("kubernetes", {})
        self._placed: dict[str, Any] = platform.get("deploymentSpec", {}).get("executors", {})
        self._over = threading.Event()

    def run(self) -> None:
        self._state("RUNNING")
        engine = Engine(self._cluster.folder, execute=self._execute, at_once=AT_ONCE)
        given = (self._run.get("runtime_config") or {}).get("parameters") or {}
        state = engine.run(self._package, given, self._run["run_id"])
        if not self._over.is_set():
            self._state(state)
        elif self._run["state"] == "CANCELING":
            self._state("FAILED")

    def terminate(self) -> None:
        """Pods get SIGTERM, and nothing follows."""
        self._over.set()
        for pod in self._pods():
            threading.Thread(target=_end, args=(pod, self._cluster.grace), daemon=True).start()

    def vanish(self, state: str | None = None) -> None:
        """Its pods are gone, and nothing follows; KFP keeps the state that it saw last, or that one."""
        self._over.set()
        for pod in self._pods():
            _end(pod, 0)
        if state is not None:
            self._state(state)

    def _pods(self) -> list[Pod]:
        return [pod for pod in list(self._cluster.pods) if pod.run_id == self._run["run_id"] and pod.running]

    def _state(self, state: str) -> None:
        with self._cluster._lock:
            self._cluster.set_state(self._run["run_id"], state)

    def _execute(self, task: Task) -> None:
        """Run a step as a pod. Raises: PodDied if it has failed for good."""
        placed = self._placed.get(task.label, {})
        step = placed.get("podMetadata", {}).get("labels", {}).get(STEP_LABEL) or task.label
        words = [*task.container.get("command", []), *task.container.get("args", [])]
        words = [json.dumps(task.executor_input()) if word == "{{$}}" else word for word in words]
        for attempt in range(AGAIN + 1):
            pod = Pod(self._run["run_id"], step, task.folder / f"pod-{attempt}")
            pod.folder.mkdir()
            environment = self._environment(pod, placed, task.scope)
            with self._cluster._node, (pod.folder / "log").open("wb") as log:
                if self._over.is_set():
                    break
                pod.process = subprocess.Popen(
                    words, env=environment, cwd=pod.folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
                self._cluster.pods.append(pod)
                pod.code = pod.process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pod.process.pid, signal.SIGKILL)
            if pod.code == 0 and not self._over.is_set():
                return
            if not pod.deleted:
                break
        raise PodDied(step)

    def _environment(self, pod: Pod, placed: dict[str, Any], parameters: dict[str, Any]) -> dict[str, str]:
        """What the image sets, and what the pod is given of config maps and secrets."""
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
        found = {name: os.environ[name] for name in kept if name in os.environ}
        found["PATH"] = f"{Path(sys.executable).parent}:{found['PATH']}"
        found |= self._cluster.environment
        root = self._mounted(pod, placed, parameters)
        (root / "sitecustomize.py").write_text(_ROOTED.format(root=str(root)))
        found["PYTHONPATH"] = f"{root}:{found.get('PYTHONPATH', '')}"
        for kind, name_of in (("configMapAsEnv", "configMapName"), ("secretAsEnv", "secretName")):
            for one in placed.get(kind, []):
                content = self._cluster.objects.get(self._object(one, name_of, parameters), {})
                for key in one["keyToEnv"]:
                    source = key.get("configMapKey") or key["secretKey"]
                    if source in content:
                        found[key["envVar"]] = content[source]
        return found

    def _mounted(self, pod: Pod, placed: dict[str, Any], parameters: dict[str, Any]) -> Path:
        """The folder that is the pod's root: a file for each key of the config maps and secrets that it mounts."""
        root = pod.folder / "root"
        for kind, name_of in (("configMapAsVolume", "configMapName"), ("secretAsVolume", "secretName")):
            for one in placed.get(kind, []):
                folder = root / one["mountPath"].lstrip("/")
                folder.mkdir(parents=True, exist_ok=True)
                for key, value in self._cluster.objects.get(self._object(one, name_of, parameters), {}).items():
                    (folder / key).write_text(value)
        root.mkdir(exist_ok=True)
        return root

    @staticmethod
    def _object(one: dict[str, Any], field_: str, parameters: dict[str, Any]) -> str:
        source = one.get(f"{field_}Parameter")
        if source is None:
            return str(one[field_])
        if "componentInputParameter" in source:
            return str(parameters[source["componentInputParameter"]])
        return str(source["runtimeValue"]["constant"])


@contextlib.contextmanager
def local_cluster(folder: Path, objects: dict[str, dict[str, str]], **options: Any) -> Iterator[LocalCluster]:
    """A cluster that ends with the block, its runs with it."""
    cluster = LocalCluster(folder, objects, **options)
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
