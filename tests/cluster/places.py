"""Where the suite runs: a real cluster, or this machine that plays one. Both are asked in the same words."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from pydantic import BaseModel, ConfigDict

from tests.helpers.command_line import RLHPO, ROOT
from tests.helpers.local_cluster import LocalCluster, Pod
from tests.helpers.servers import shared_s3_server, shared_server
from tests.helpers.weather import AWAY, PASS, Network

#: What the pods' config map and secrets are called.
CONFIG_MAP, STORE_SECRET, MLFLOW_SECRET = "rlhpo-e2e-config", "rlhpo-e2e-store", "rlhpo-e2e-mlflow"
SERVICES = ("kfp", "s3", "mlflow")


class Addresses(BaseModel):
    """The file that RLHPO_CLUSTER names, in YAML.

    Credentials are this process's AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and MLFLOW_TRACKING_*; the way to the
    cluster's API is kubectl's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kfp: str
    """Of KFP's API, such as http://127.0.0.1:8888, from here. Pods reach all three by a proxy of this suite."""
    s3: str
    mlflow: str
    here: str
    """This machine's address as pods see it."""
    bucket: str = "rlhpo"
    namespace: str = "kubeflow"
    service_account: str | None = "rlhpo-runner"
    image: str | None = None
    """By digest, best; default: that of this version."""
    same_processor: bool = True
    """Whether nodes compute as this machine does, so that whole studies are equal, and not the first round alone."""


class Place(ABC):
    """A cluster with its three servers behind proxies."""

    same_processor = True
    #: How long anything may take: on a cluster each step takes some twenty seconds, whatever its work.
    patience = 1800.0

    def __init__(self, folder: Path, upstream: dict[str, str], here: str, bucket: str) -> None:
        self.folder, self.bucket = folder, bucket
        listen = "127.0.0.1" if here == "127.0.0.1" else "0.0.0.0"
        self.gates = {
            name: Network(urlsplit(upstream[name]).netloc, listen=listen, renamed=name == "mlflow") for name in SERVICES
        }
        self.upstream = upstream
        self.by_gate = {name: f"http://{here}:{gate.server_port}" for name, gate in self.gates.items()}
        self._stack = contextlib.ExitStack()
        for gate in self.gates.values():
            self._stack.enter_context(gate.open())

    def close(self) -> None:
        self._stack.close()

    @property
    def settings(self) -> dict[str, str]:
        """Of the pods' config map."""
        return {
            "MLFLOW_TRACKING_URI": self.by_gate["mlflow"],
            "AWS_ENDPOINT_URL_S3": self.by_gate["s3"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "KF_PIPELINES_ENDPOINT": self.by_gate["kfp"],
        }

    @property
    def environment(self) -> dict[str, str]:
        """Of the command line here, which is not to feel the weather."""
        return {
            "MLFLOW_TRACKING_URI": self.upstream["mlflow"],
            "AWS_ENDPOINT_URL_S3": self.upstream["s3"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "KF_PIPELINES_ENDPOINT": self.upstream["kfp"],
            **self.credentials,
        }

    @property
    @abstractmethod
    def credentials(self) -> dict[str, str]:
        """Of the object store and of MLflow, as variables."""

    @property
    def options(self) -> list[str]:
        """Of ``rlhpo submit`` and ``rlhpo schedule``: where pods find what they need."""
        names = {"config_map": CONFIG_MAP, "store_secret": STORE_SECRET, "mlflow_secret": MLFLOW_SECRET}
        return [word for name, value in names.items() for word in ("--set", f"{name}={value}")]

    @contextlib.contextmanager
    def away(self, service: str, seconds: float = 90) -> Iterator[None]:
        """The server does not answer pods for so long, from now on; the block may end before."""
        until = time.monotonic() + seconds
        self.gates[service].weather = lambda request: AWAY if time.monotonic() < until else PASS
        yield

    def store(self, name: str) -> str:
        """An address that no other test has."""
        return f"s3://{self.bucket}/e2e/{uuid.uuid4().hex[:8]}-{name}"

    def rlhpo(self, *arguments: str | Path, code: int = 0) -> str:
        """``rlhpo`` here, to its end; what it has printed, if it ends with that code."""
        known = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_T", "AWS_", "KF_"))}
        process = subprocess.run(
            [*RLHPO, *map(str, arguments)],
            cwd=self.folder, text=True, capture_output=True, timeout=self.patience,
            env=known | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "OMP_NUM_THREADS": "1"} | self.environment,
        )  # fmt: skip
        ended = f"rlhpo {' '.join(map(str, arguments))} ended with {process.returncode}"
        assert process.returncode == code, f"{ended}:\n{process.stdout}{process.stderr}"
        return process.stdout

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as ``rlhpo runs --json`` has it."""
        lines = self.rlhpo("runs", "--json", "--limit", "100").splitlines()
        return next(run for run in map(json.loads, lines) if run["run"] == run_id)

    def runs_of(self, store: str) -> list[dict[str, Any]]:
        """All runs of a store, the newest first."""
        lines = self.rlhpo("runs", "--json", "--limit", "100").splitlines()
        return [run for run in map(json.loads, lines) if run["store"] == store]

    def mlflow(self) -> MlflowClient:
        return MlflowClient(self.upstream["mlflow"])

    def look_at(self, store: str) -> str:
        """For whoever reads a failure: the study's state by the command line, and the end of its latest run's logs."""
        said = []
        for command in (["status", store], *(["logs", run["run"], "--lines", "15"] for run in self.runs_of(store)[:1])):
            with contextlib.suppress(Exception):
                said.append(self.rlhpo(*command))
        return "\n".join(said) + "\n" + self.more_of(store)

    def more_of(self, store: str) -> str:
        """What this place knows beyond that."""
        return ""

    @abstractmethod
    def pod(self, step: str, store: str, seconds: float) -> Any:
        """A pod of that step of a study's latest run that runs; waits for it. "driver" is any driver's.

        Raises: TimeoutError.
        """

    @abstractmethod
    def delete(self, pod: Any) -> None:
        """As when its node is drained."""

    @abstractmethod
    def kill(self, pod: Any) -> None:
        """All its processes at once, as the kernel does when memory is out: exit code 137."""


class Here(Place):
    """This machine plays the cluster: the KFP server of the tests carries out what it is sent."""

    patience = 600.0

    def __init__(self, folder: Path) -> None:
        s3, mlflow = shared_s3_server(), shared_server()
        self._keys = {name: value for name, value in s3.environment().items() if "KEY" in name}
        self.objects: dict[str, dict[str, str]] = {}
        image = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.cluster = LocalCluster(folder / "pods", self.objects, environment=image)
        servers = {
            "kfp": self.cluster.url,
            "s3": s3.environment()["AWS_ENDPOINT_URL_S3"],
            "mlflow": f"http://127.0.0.1:{mlflow.port}",
        }
        super().__init__(folder, servers, "127.0.0.1", s3.bucket)
        self.objects |= {CONFIG_MAP: self.settings, STORE_SECRET: self._keys, MLFLOW_SECRET: {}}

    def close(self) -> None:
        self.cluster.stop()
        super().close()

    @property
    def credentials(self) -> dict[str, str]:
        return self._keys

    def more_of(self, store: str) -> str:
        return "\n".join(self.cluster.logs(run["run"]) for run in self.runs_of(store)[:1])

    def pod(self, step: str, store: str, seconds: float) -> Pod:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for pod in list(self.cluster.pods):
                if pod.step == step and pod.running and self._store_of(pod.run_id) == store:
                    return pod
            time.sleep(0.05)
        raise TimeoutError(f"no pod of {step} within {seconds:.0f} s")

    def _store_of(self, run_id: str) -> str:
        return str(self.cluster.runs[run_id]["runtime_config"]["parameters"]["store"])

    def delete(self, pod: Pod) -> None:
        self.cluster.delete(pod)

    def kill(self, pod: Pod) -> None:
        self.cluster.kill(pod)


@dataclass(frozen=True)
class KubernetesPod:
    """A pod by its name."""

    name: str
    step: str


@dataclass
class Cluster(Place):
    """A real one."""

    folder: Path
    addresses: Addresses
    _api: Any = field(init=False)

    def __post_init__(self) -> None:
        from kubernetes import client, config

        config.load_kube_config()
        self._api = client.CoreV1Api()
        at = self.addresses
        self.same_processor = at.same_processor
        super().__init__(self.folder, {"kfp": at.kfp, "s3": at.s3, "mlflow": at.mlflow}, at.here, at.bucket)
        self._put("config_map", CONFIG_MAP, self.settings)
        self._put("secret", STORE_SECRET, self.credentials)
        names = ("USERNAME", "PASSWORD", "TOKEN")
        login = {f"MLFLOW_TRACKING_{name}": os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in names}
        login = {name: value for name, value in login.items() if value}
        self._put("secret", MLFLOW_SECRET, login)

    @property
    def credentials(self) -> dict[str, str]:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return {name: os.environ[name] for name in names if name in os.environ}

    @property
    def options(self) -> list[str]:
        at = self.addresses
        account = ["--service-account", at.service_account] if at.service_account else []
        return [*super().options, *account, *(["--image", at.image] if at.image else [])]

    def _put(self, kind: str, name: str, content: dict[str, str]) -> None:
        from kubernetes import client
        from kubernetes.client.exceptions import ApiException

        meta, space = client.V1ObjectMeta(name=name), self.addresses.namespace
        body = (
            client.V1ConfigMap(metadata=meta, data=content)
            if kind == "config_map"
            else client.V1Secret(metadata=meta, string_data=content)
        )
        try:
            getattr(self._api, f"create_namespaced_{kind}")(space, body)
        except ApiException as error:
            if error.status != 409:
                raise
            getattr(self._api, f"replace_namespaced_{kind}")(name, space, body)

    def pod(self, step: str, store: str, seconds: float) -> KubernetesPod:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for run in self.runs_of(store)[:1]:
                found = self._api.list_namespaced_pod(
                    self.addresses.namespace, label_selector=f"pipeline/runid={run['run']}", _request_timeout=30
                )
                for pod in found.items:
                    label = (pod.metadata.labels or {}).get("rlhpo/step", "driver")
                    if label == step and pod.status.phase == "Running":
                        return KubernetesPod(pod.metadata.name, step)
            time.sleep(0.5)
        look = f"kubectl -n {self.addresses.namespace} get pods"
        raise TimeoutError(f"no pod of {step} ran within {seconds:.0f} s: {look}")

    def delete(self, pod: KubernetesPod) -> None:
        self._api.delete_namespaced_pod(pod.name, self.addresses.namespace, _request_timeout=30)

    def kill(self, pod: KubernetesPod) -> None:
        from kubernetes.stream import stream

        command = ["sh", "-c", "kill -9 -1"]
        with contextlib.suppress(Exception):  # the connection breaks with the container
            stream(
                self._api.connect_get_namespaced_pod_exec, pod.name, self.addresses.namespace, container="main",
                command=command, stderr=True, stdout=True, stdin=False, tty=False, _request_timeout=20,
            )  # fmt: skip
