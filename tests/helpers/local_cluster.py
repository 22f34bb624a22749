"""A cluster on this machine: what the KFP server is sent is carried out as Argo would do it, each step a process.

It behaves as was seen on a cluster (KFP 2.17.0 with Argo 4.0.8; docs/operations.md says what and when): a pod that is
deleted runs again, twice at most; one that ends with a code does not; a failed iteration lets the others finish; the
exit task runs after a failure, and not after a termination; a driver that runs twice ruins its run; Argo expands its
own expressions in parameters. Scheduled runs begin when a test lets them (`tick`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cel

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


class TaskFailedError(Exception):
    """A task has failed, or a task before it."""


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


@dataclass
class _Values:
    """Inputs or outputs of a task."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


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

    def _begin(self, run: dict[str, Any]) -> None:
        spec = (
            run.get("pipeline_spec")
            or self.versions[run["pipeline_version_reference"]["pipeline_version_id"]]["pipeline_spec"]
        )
        execution = _Execution(self, run, spec.get("pipeline_spec", spec), spec.get("platform_spec", {}))
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

    def __init__(self, cluster: LocalCluster, run: dict[str, Any], spec: dict[str, Any], platform: dict[str, Any]):
        super().__init__(daemon=True)
        self._cluster, self._run, self._spec = cluster, run, spec
        kubernetes = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        self._placed: dict[str, Any] = kubernetes.get("executors", {})
        self._folder = cluster.folder / run["run_id"]
        self._over = threading.Event()

    def run(self) -> None:
        self._state("RUNNING")
        given = (self._run.get("runtime_config") or {}).get("parameters") or {}
        try:
            self._dag("root", self._spec["root"], _Values(parameters=self._defaults(self._spec["root"], given)))
            state = "SUCCEEDED"
        except TaskFailedError:
            state = "FAILED"
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

    def _defaults(self, component: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        defined = component.get("inputDefinitions", {}).get("parameters", {})
        return {name: one["defaultValue"] for name, one in defined.items() if "defaultValue" in one} | given

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _dag(self, path: str, component: dict[str, Any], inputs: _Values) -> _Values:
        """Raises: TaskFailedError when all that could run has ended."""
        tasks = component["dag"]["tasks"]
        ended = {name: threading.Event() for name in tasks}
        outputs: dict[str, _Values | None] = {}

        def perform(name: str, task: dict[str, Any]) -> None:
            before = task.get("dependentTasks", [])
            for other in before:
                ended[other].wait()
            failed = any(other in failures for other in before)
            regardless = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
            try:
                if self._over.is_set() or (failed and not regardless):
                    raise TaskFailedError(name)
                status = {"state": "FAILED" if failed else "RUNNING", "pipelineJobResourceName": self._run["run_id"]}
                outputs[name] = self._task(f"{path}/{name}", task, inputs, outputs, status)
            except TaskFailedError:
                failures.add(name)
            except Exception as error:  # a mistake in here must not leave a test waiting
                failures.add(name)
                print(f"{path}/{name}: {error!r}", file=sys.stderr)
            finally:
                ended[name].set()

        failures: set[str] = set()
        threads = [threading.Thread(target=perform, args=one, daemon=True) for one in tasks.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise TaskFailedError(", ".join(sorted(failures)))
        return self._outputs(component["dag"].get("outputs", {}), outputs)

    def _task(
        self,
        path: str,
        task: dict[str, Any],
        inputs: _Values,
        outputs: dict[str, _Values | None],
        status: dict[str, Any],
    ) -> _Values | None:
        """``None`` if its condition is false."""
        given = self._inputs(task.get("inputs", {}), inputs, outputs, status)
        condition = task.get("triggerPolicy", {}).get("condition")
        if condition and not cel.evaluate(condition, {"inputs": {"parameter_values": given.parameters}}):
            return None
        component = self._spec["components"][task["componentRef"]["name"]]
        if "parameterIterator" not in task:
            return self._component(path, task, component, given, inputs)
        iterator = task["parameterIterator"]
        items = (
            json.loads(iterator["items"]["raw"])
            if "raw" in iterator["items"]
            else given.parameters[iterator["items"]["inputParameter"]]
        )
        limit = threading.Semaphore(task.get("iteratorPolicy", {}).get("parallelismLimit") or len(items) or 1)
        found: dict[int, _Values | None] = {}

        def iterate(index: int, item: Any) -> None:
            one = _Values({**given.parameters, iterator["itemInput"]: item}, given.artifacts)
            with limit, contextlib.suppress(TaskFailedError):
                found[index] = self._component(f"{path}-{index}", task, component, one, inputs)

        threads = [threading.Thread(target=iterate, args=one, daemon=True) for one in enumerate(items)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(found) < len(items):
            raise TaskFailedError(path)
        collected = _Values()
        for index in range(len(items)):
            one = found[index] or _Values()
            for name, value in one.parameters.items():
                collected.parameters.setdefault(name, []).append(value)
            for name, artifacts in one.artifacts.items():
                collected.artifacts.setdefault(name, []).extend(artifacts)
        return collected

    def _component(
        self, path: str, task: dict[str, Any], component: dict[str, Any], given: _Values, scope: _Values
    ) -> _Values:
        given = _Values(self._defaults(component, given.parameters), given.artifacts)
        if "dag" in component:
            return self._dag(path, component, given)
        return self._step(path, task, component, given, scope)

    def _inputs(
        self,
        defined: dict[str, Any],
        inputs: _Values,
        outputs: dict[str, _Values | None],
        status: dict[str, Any],
    ) -> _Values:
        found = _Values()
        for name, source in defined.get("artifacts", {}).items():
            if "componentInputArtifact" in source:
                value = inputs.artifacts.get(source["componentInputArtifact"])
            else:
                chosen = source["taskOutputArtifact"]
                value = (outputs.get(chosen["producerTask"]) or _Values()).artifacts.get(chosen["outputArtifactKey"])
            if value is not None:
                found.artifacts[name] = value
        for name, source in defined.get("parameters", {}).items():
            if "componentInputParameter" in source:
                if source["componentInputParameter"] not in inputs.parameters:
                    continue
                value = inputs.parameters[source["componentInputParameter"]]
            elif "taskOutputParameter" in source:
                chosen = source["taskOutputParameter"]
                produced = (outputs.get(chosen["producerTask"]) or _Values()).parameters
                if chosen["outputParameterKey"] not in produced:
                    continue
                value = produced[chosen["outputParameterKey"]]
            elif "taskFinalStatus" in source:
                value = {**status, "pipelineTaskName": source["taskFinalStatus"]["producerTask"]}
            else:
                value = source["runtimeValue"]["constant"]
            if key := re.fullmatch(
                r'parseJson\(string_value\)\["(.*)"\]', source.get("parameterExpressionSelector", "")
            ):
                value = (json.loads(value) if isinstance(value, str) else value)[key[1]]
            found.parameters[name] = value
        for name, value in found.parameters.items():
            found.parameters[name] = self._expanded(value, found.parameters)
        return found

    def _expanded(self, value: Any, parameters: dict[str, Any]) -> Any:
        if not isinstance(value, str):
            return value
        known = {
            "$.pipeline_job_uuid": self._run["run_id"],
            "$.pipeline_job_name": self._run["display_name"],
            "workflow.name": self._run["display_name"],
        }
        value = re.sub(r"\{\{([^{}]*)\}\}", lambda match: known.get(match[1].strip(), match[0]), value)
        return re.sub(
            r"\{\{\$\.inputs\.parameters\['([^']*)'\]\}\}", lambda match: str(parameters.get(match[1], "")), value
        )

    def _outputs(self, defined: dict[str, Any], outputs: dict[str, _Values | None]) -> _Values:
        found = _Values()
        for name, source in defined.get("artifacts", {}).items():
            for chosen in source["artifactSelectors"]:
                produced = outputs.get(chosen["producerSubtask"])
                if produced is not None and chosen["outputArtifactKey"] in produced.artifacts:
                    found.artifacts[name] = produced.artifacts[chosen["outputArtifactKey"]]
        for name, source in defined.get("parameters", {}).items():
            one_of = source.get("valueFromOneof", {}).get("parameterSelectors")
            for chosen in one_of or [source["valueFromParameter"]]:
                produced = outputs.get(chosen["producerSubtask"])
                if produced is not None and chosen["outputParameterKey"] in produced.parameters:
                    found.parameters[name] = produced.parameters[chosen["outputParameterKey"]]
        return found

    # -- pods ----------------------------------------------------------------------------------------------------------

    def _step(
        self, path: str, task: dict[str, Any], component: dict[str, Any], given: _Values, scope: _Values
    ) -> _Values:
        """``scope``: the inputs of the pipeline that the task is in, by which the platform's settings name theirs."""
        label = component["executorLabel"]
        container = self._spec["deploymentSpec"]["executors"][label]["container"]
        placed, names = self._placed.get(label, {}), scope.parameters
        step = placed.get("podMetadata", {}).get("labels", {}).get(STEP_LABEL) or task["componentRef"]["name"]
        for attempt in range(AGAIN + 1):
            pod = Pod(self._run["run_id"], step, self._folder / f"{path.replace('/', '-')}-{attempt}")
            pod.folder.mkdir(parents=True)
            result = self._pod(pod, container, self._environment(pod, placed, names), component, given)
            if result is not None:
                return result
            if not pod.deleted or self._over.is_set():
                break
        raise TaskFailedError(path)

    def _pod(
        self,
        pod: Pod,
        container: dict[str, Any],
        environment: dict[str, str],
        component: dict[str, Any],
        given: _Values,
    ) -> _Values | None:
        """Its outputs, or ``None`` if it has failed."""
        defined = component.get("outputDefinitions", {})
        artifacts = {
            name: [{"name": name, "type": one["artifactType"], "uri": str(pod.folder / name), "metadata": {}}]
            for name, one in defined.get("artifacts", {}).items()
        }
        result = pod.folder / "executor-output.json"
        request = {
            "inputs": {
                "parameterValues": given.parameters,
                "artifacts": {name: {"artifacts": value} for name, value in given.artifacts.items()},
            },
            "outputs": {
                "parameters": {
                    name: {"outputFile": str(pod.folder / f"parameter-{name}")}
                    for name in defined.get("parameters", {})
                },
                "artifacts": {name: {"artifacts": value} for name, value in artifacts.items()},
                "outputFile": str(result),
            },
        }
        words = [*container.get("command", []), *container.get("args", [])]
        words = [json.dumps(request) if word == "{{$}}" else word for word in words]
        with self._cluster._node, (pod.folder / "log").open("wb") as log:
            if self._over.is_set():
                return None
            pod.process = subprocess.Popen(
                words, env=environment, cwd=pod.folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            self._cluster.pods.append(pod)
            pod.code = pod.process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pod.process.pid, signal.SIGKILL)
        if pod.code != 0 or self._over.is_set():
            return None
        said = json.loads(result.read_text()) if result.exists() else {}
        parameters = said.get("parameterValues", {})
        for name, value in artifacts.items():
            value[0].update(said.get("artifacts", {}).get(name, {"artifacts": [{}]})["artifacts"][0])
        return _Values(parameters, artifacts)

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
