"""A Kubeflow Pipelines API server on loopback: the endpoints of kfp-server-api that rlhpo uses, with state in memory.

Requests must fit the generated models, field by field. What the backend refuses is refused with its status and its
words, as far as its source (backend/src/apiserver, 2.17) says; what it accepts unchecked, a cron of five fields among
it, is accepted.
"""

from __future__ import annotations

import functools
import json
import re
import ssl
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.helpers.kfp_checks import (
    RefusedError,
    check_fits,
    check_parameters,
    page_of,
    parsed,
    pipeline_of,
    refuse,
    uploaded,
)

_NEVER = "1970-01-01T00:00:00Z"
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
_OPEN = ("PENDING", "RUNNING", "PAUSED")
#: What a run has of its schedule.
_JOB = ("pipeline_version_reference", "pipeline_spec", "runtime_config", "service_account")


class KfpServer:
    """``tokens`` empty: nobody has to log in. ``namespaces`` not ``None``: multi-user, with these profiles."""

    def __init__(
        self,
        tokens: set[str] | None = None,
        namespaces: set[str] | None = None,
        certificate: Path | None = None,
        port: int = 0,
    ) -> None:
        self.tokens = tokens or set()
        self.namespaces = namespaces
        self.experiments: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.recurring_runs: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        """Method and path of all that came."""
        self.failures: list[int] = []
        """Statuses with which the next requests fail."""
        self.states: list[str] = []
        """States that a run takes, one at each look at it."""
        self.hanging = False
        self.mlflow_plugin = False
        """As KFP's MLflow plugin has it: schedules of a pinned version or an inline pipeline lose their parameters."""
        self.orphans: set[str] = set()
        """Runs whose workflow was deleted with their schedule: for KFP they go on for ever."""
        self.login_page = False
        """Send who has no valid token to a page, as a gateway does."""
        self.silence = threading.Event()
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, self))
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.silence.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # -- requests -----------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], token: str | None, body: bytes, kind: str) -> Any:
        """The answer as JSON. Raises: RefusedError."""
        with self._lock:
            self.requests.append((method, path))
            if self.failures:
                raise RefusedError(self.failures.pop(0), "upstream connect error")
            if self.tokens and token not in self.tokens:
                raise RefusedError(401, "User identity is empty in the request header: Unauthenticated")
            for verb, pattern, operation, model in _ROUTES:
                match = re.fullmatch(pattern, path)
                if verb == method and match is not None:
                    content = uploaded(body, kind) if "upload" in path else body
                    found = operation(self, *map(unquote, match.groups()), query, content)
                    # An answer that the client's models would not see is a mistake in here.
                    check_fits(found, model, model)
                    return found
        raise RefusedError(404, "")

    def healthz(self, query: dict[str, str], body: bytes) -> Any:
        return {"multi_user": self.namespaces is not None, "pipeline_store": "database"}

    def create_experiment(self, query: dict[str, str], body: bytes) -> Any:
        given = parsed(body, "V2beta1Experiment")
        namespace = self._allowed(given.get("namespace", ""))
        name = given.get("display_name") or refuse(400, "Experiment name is empty")
        if any(one["display_name"] == name and one["namespace"] == namespace for one in self.experiments.values()):
            raise RefusedError(409, f"Failed to create experiment {name}. Already exists")
        made = {
            "experiment_id": _id(),
            "display_name": name,
            "namespace": namespace,
            "created_at": self._now(),
            "storage_state": "AVAILABLE",
        }
        self.experiments[made["experiment_id"]] = made
        return made

    def list_experiments(self, query: dict[str, str], body: bytes) -> Any:
        namespace = self._allowed(query.get("namespace", ""))
        rows = [one for one in self.experiments.values() if one["namespace"] == namespace]
        return page_of("experiments", rows, query)

    def get_experiment(self, experiment_id: str, query: dict[str, str], body: bytes) -> Any:
        found = self.experiments.get(experiment_id) or refuse(404, f"Experiment {experiment_id} not found")
        self._allowed(found["namespace"])
        return found

    def create_run(self, query: dict[str, str], body: bytes) -> Any:
        given = parsed(body, "V2beta1Run")
        if not given.get("display_name"):
            raise RefusedError(400, "The run name is empty. Please specify a valid name")
        experiment = self._experiment_of(given)
        self._check_job(given)
        made = given | {
            "run_id": _id(),
            "experiment_id": experiment["experiment_id"],
            "created_at": self._now(),
            "finished_at": _NEVER,
            "state": "PENDING",
            "storage_state": "AVAILABLE",
        }
        self.runs[made["run_id"]] = made
        return made

    def get_run(self, run_id: str, query: dict[str, str], body: bytes) -> Any:
        run = self._run(run_id)
        if self.states and run_id not in self.orphans and run["state"] in (*_OPEN, "CANCELING"):
            self.set_state(run_id, self.states.pop(0))
        return run

    def list_runs(self, query: dict[str, str], body: bytes) -> Any:
        return page_of("runs", self._in_scope(self.runs, query), query)

    def terminate_run(self, run_id: str, query: dict[str, str], body: bytes) -> Any:
        run = self._run(run_id)
        if run_id in self.orphans:
            run["state"] = "CANCELING"
            raise RefusedError(500, f"Failed to terminate a run {run_id}: workflows.argoproj.io not found")
        if run["state"] not in _OPEN:
            raise RefusedError(400, f"Failed to terminate a run {run_id}. Row not found")
        self.set_state(run_id, "CANCELING")
        return {}

    def set_steps(self, run_id: str, steps: dict[str, str]) -> None:
        """The states of steps, as KFP makes them of Argo's nodes: a step is a graph of a driver and an executor.

        A failed step has neither an exit code nor a message.
        """
        nodes: list[dict[str, Any]] = []
        for step, state in steps.items():
            ids = {part: f"{run_id}-{step}-{part}" for part in ("graph", "driver", "executor", "impl")}
            names = {"graph": step, "driver": f"{step}-driver", "executor": "executor", "impl": "executor"}
            below = {"graph": ["driver", "executor"], "executor": ["impl"]}
            for part, task_id in ids.items():
                nodes.append({
                    "run_id": run_id, "task_id": task_id, "display_name": names[part],
                    "state": "SUCCEEDED" if part == "driver" else state,
                    "child_tasks": [{"task_id": ids[child]} for child in below.get(part, ())],
                })  # fmt: skip
        states = set(steps.values())
        nodes.append({
            "run_id": run_id, "task_id": run_id, "display_name": "root",
            "state": "FAILED" if "FAILED" in states else "RUNNING",
            "child_tasks": [{"task_id": f"{run_id}-{step}-graph"} for step in steps],
        })  # fmt: skip
        self.runs[run_id]["run_details"] = {"task_details": nodes}

    def set_state(self, run_id: str, state: str) -> None:
        run = self.runs[run_id]
        run["state"] = state
        run.setdefault("state_history", []).append({"update_time": self._now(), "state": state})
        if state not in (*_OPEN, "CANCELING"):
            run["finished_at"] = self._now()

    def create_recurring_run(self, query: dict[str, str], body: bytes) -> Any:
        given = parsed(body, "V2beta1RecurringRun")
        if not given.get("display_name"):
            raise RefusedError(400, "Recurring run name is empty. Please specify a valid name")
        experiment = self._experiment_of(given)
        self._check_job(given)
        if not 1 <= int(given.get("max_concurrency", 0)) <= 10:
            raise RefusedError(400, "The max concurrency of the recurring run is out of range. Support 1-10.")
        made = given | {
            "recurring_run_id": _id(),
            "experiment_id": experiment["experiment_id"],
            "namespace": experiment["namespace"],
            "created_at": self._now(),
            "status": "ENABLED" if given.get("mode") == "ENABLE" else "DISABLED",
        }
        self.recurring_runs[made["recurring_run_id"]] = made
        return made

    def get_recurring_run(self, recurring_run_id: str, query: dict[str, str], body: bytes) -> Any:
        found = self.recurring_runs.get(recurring_run_id) or refuse(404, f"Recurring run {recurring_run_id} not found")
        self._allowed(found["namespace"])
        return found

    def list_recurring_runs(self, query: dict[str, str], body: bytes) -> Any:
        return page_of("recurringRuns", self._in_scope(self.recurring_runs, query), query)

    def delete_recurring_run(self, recurring_run_id: str, query: dict[str, str], body: bytes) -> Any:
        """The schedule owns its workflows: those that are running go with it, and KFP does not notice."""
        self.get_recurring_run(recurring_run_id, query, body)
        del self.recurring_runs[recurring_run_id]
        for run in self.runs.values():
            if run.get("recurring_run_id") == recurring_run_id and run["state"] in (*_OPEN, "CANCELING"):
                self.orphans.add(run["run_id"])
        return {}

    def enable_recurring_run(self, recurring_run_id: str, query: dict[str, str], body: bytes) -> Any:
        self.get_recurring_run(recurring_run_id, query, body).update(status="ENABLED", mode="ENABLE")
        return {}

    def disable_recurring_run(self, recurring_run_id: str, query: dict[str, str], body: bytes) -> Any:
        self.get_recurring_run(recurring_run_id, query, body).update(status="DISABLED", mode="DISABLE")
        return {}

    def tick(self, recurring_run_id: str) -> dict[str, Any] | None:
        """What KFP's controller does when a schedule comes due; the run, ``None`` if none could be started."""
        one = self.recurring_runs[recurring_run_id]
        under_way = [
            run
            for run in self.runs.values()
            if run.get("recurring_run_id") == recurring_run_id and run["state"] in (*_OPEN, "CANCELING")
        ]
        if one["status"] != "ENABLED" or len(under_way) >= int(one["max_concurrency"]):
            return None
        given = {name: one[name] for name in _JOB if name in one}
        reference = one.get("pipeline_version_reference") or {}
        if self.mlflow_plugin and not (reference and not reference.get("pipeline_version_id")):
            given = {name: value for name, value in given.items() if name not in ("pipeline_spec", "runtime_config")}
        number = sum(run.get("recurring_run_id") == recurring_run_id for run in self.runs.values()) + 1
        name = f"{one['display_name']}{recurring_run_id[:5]}-{number}-896226776"
        try:
            self._check_job(given)
        except RefusedError:
            return None
        made = given | {
            "run_id": _id(),
            "display_name": name,
            "recurring_run_id": recurring_run_id,
            "experiment_id": one["experiment_id"],
            "created_at": self._now(),
            "finished_at": _NEVER,
            "state": "RUNNING",
            "storage_state": "AVAILABLE",
        }
        self.runs[made["run_id"]] = made
        return made

    def create_pipeline(self, query: dict[str, str], body: bytes) -> Any:
        given = parsed(body, "V2beta1Pipeline")
        namespace = self._allowed(given.get("namespace", ""))
        name = given.get("name") or given.get("display_name") or refuse(400, "Pipeline's name cannot be empty")
        if any(one["name"] == name and one["namespace"] == namespace for one in self.pipelines.values()):
            raise RefusedError(409, f"The name {name} already exist. Specify a new name")
        made = {
            "pipeline_id": _id(),
            "name": name,
            "display_name": given.get("display_name") or name,
            "namespace": namespace,
            "created_at": self._now(),
        }
        self.pipelines[made["pipeline_id"]] = made
        return made

    def get_pipeline_by_name(self, name: str, query: dict[str, str], body: bytes) -> Any:
        namespace = self._allowed(query.get("namespace", ""))
        for one in self.pipelines.values():
            if one["name"] == name and one["namespace"] == namespace:
                return one
        raise RefusedError(404, f"Failed to get pipeline by name and namespace: Pipeline {name} not found")

    def upload_version(self, query: dict[str, str], package: bytes) -> Any:
        failed = "Failed to create a pipeline version"
        pipeline = self.pipelines.get(query.get("pipelineid", "")) or refuse(400, failed)
        self._allowed(pipeline["namespace"])
        spec = pipeline_of(list(yaml.safe_load_all(package)))
        name = query.get("name") or refuse(400, failed)
        siblings = [one for one in self.versions.values() if one["pipeline_id"] == pipeline["pipeline_id"]]
        if any(one["name"] == name for one in siblings):
            raise RefusedError(409, failed)
        made = {
            "pipeline_id": pipeline["pipeline_id"],
            "pipeline_version_id": _id(),
            "name": name,
            "display_name": name,
            "created_at": self._now(),
            "pipeline_spec": spec,
        }
        self.versions[made["pipeline_version_id"]] = made
        return made

    def list_versions(self, pipeline_id: str, query: dict[str, str], body: bytes) -> Any:
        rows = [one for one in self.versions.values() if one["pipeline_id"] == pipeline_id]
        return page_of("pipeline_versions", rows, query)

    def get_version(self, pipeline_id: str, version_id: str, query: dict[str, str], body: bytes) -> Any:
        found = self.versions.get(version_id)
        if found is None or found["pipeline_id"] != pipeline_id:
            raise RefusedError(404, f"Failed to get a pipeline version: PipelineVersion {version_id} not found")
        return found

    # -- checks -------------------------------------------------------------------------------------------------------

    def _allowed(self, namespace: str) -> str:
        """The namespace as it is kept. A server for a single user knows none."""
        if self.namespaces is None:
            return ""
        if not namespace:
            raise RefusedError(400, "Invalid input error: a resource cannot have an empty namespace in multi-user mode")
        if namespace not in self.namespaces:
            raise RefusedError(403, f"User 'someone' is not authorized with reason: no access to namespace {namespace}")
        return namespace

    def _experiment_of(self, given: dict[str, Any]) -> dict[str, Any]:
        experiment_id = given.get("experiment_id")
        if not experiment_id:
            raise RefusedError(400, "Experiment id can not be empty in multi-user mode")
        experiment = self.experiments.get(experiment_id) or refuse(404, f"Experiment {experiment_id} not found")
        self._allowed(experiment["namespace"])
        return experiment

    def _run(self, run_id: str) -> dict[str, Any]:
        run = self.runs.get(run_id) or refuse(404, f"Failed to get a run: Run {run_id} not found")
        self._allowed(self.experiments[run["experiment_id"]]["namespace"])
        return run

    def _in_scope(self, rows: dict[str, dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
        if "experiment_id" in query:
            experiment = self.experiments.get(query["experiment_id"]) or refuse(404, "Experiment not found")
            self._allowed(experiment["namespace"])
            return [one for one in rows.values() if one["experiment_id"] == experiment["experiment_id"]]
        namespace = self._allowed(query.get("namespace", ""))
        return [one for one in rows.values() if self.experiments[one["experiment_id"]]["namespace"] == namespace]

    def _check_job(self, given: dict[str, Any]) -> None:
        """A pipeline that would run, given in one way only, and the parameters that it wants."""
        reference, spec = given.get("pipeline_version_reference"), given.get("pipeline_spec")
        if (reference is None) == (spec is None):
            raise RefusedError(400, "Failed to fetch a template: give one pipeline source")
        if reference is not None:
            wanted = reference.get("pipeline_version_id")
            if wanted:
                version = self.versions.get(wanted)
            else:
                of_pipeline = [
                    one for one in self.versions.values() if one["pipeline_id"] == reference.get("pipeline_id")
                ]
                version = of_pipeline[-1] if of_pipeline else None
            if version is None:
                raise RefusedError(404, "Failed to get a pipeline version: PipelineVersion not found")
            if version["pipeline_id"] != reference.get("pipeline_id"):
                raise RefusedError(400, "Pipeline version belongs to another pipeline")
            spec = version["pipeline_spec"]
        else:
            spec = pipeline_of([spec["pipeline_spec"], spec["platform_spec"]] if "pipeline_spec" in spec else [spec])
        pipeline = spec.get("pipeline_spec", spec)
        check_parameters(pipeline["root"], (given.get("runtime_config") or {}).get("parameters") or {})

    def _now(self) -> str:
        """Each time a second later, so that an order by time is one."""
        self._clock += timedelta(seconds=1)
        return self._clock.strftime("%Y-%m-%dT%H:%M:%SZ")


_V = "/apis/v2beta1"
_ROUTES: list[tuple[str, str, Callable[..., Any], str]] = [
    ("GET", f"{_V}/healthz", KfpServer.healthz, "V2beta1GetHealthzResponse"),
    ("POST", f"{_V}/experiments", KfpServer.create_experiment, "V2beta1Experiment"),
    ("GET", f"{_V}/experiments", KfpServer.list_experiments, "V2beta1ListExperimentsResponse"),
    ("GET", f"{_V}/experiments/([^/:]+)", KfpServer.get_experiment, "V2beta1Experiment"),
    ("POST", f"{_V}/runs", KfpServer.create_run, "V2beta1Run"),
    ("GET", f"{_V}/runs", KfpServer.list_runs, "V2beta1ListRunsResponse"),
    ("GET", f"{_V}/runs/([^/:]+)", KfpServer.get_run, "V2beta1Run"),
    ("POST", f"{_V}/runs/([^/:]+):terminate", KfpServer.terminate_run, "object"),
    ("POST", f"{_V}/recurringruns", KfpServer.create_recurring_run, "V2beta1RecurringRun"),
    ("GET", f"{_V}/recurringruns", KfpServer.list_recurring_runs, "V2beta1ListRecurringRunsResponse"),
    ("GET", f"{_V}/recurringruns/([^/:]+)", KfpServer.get_recurring_run, "V2beta1RecurringRun"),
    ("DELETE", f"{_V}/recurringruns/([^/:]+)", KfpServer.delete_recurring_run, "object"),
    ("POST", f"{_V}/recurringruns/([^/:]+):enable", KfpServer.enable_recurring_run, "object"),
    ("POST", f"{_V}/recurringruns/([^/:]+):disable", KfpServer.disable_recurring_run, "object"),
    ("POST", f"{_V}/pipelines", KfpServer.create_pipeline, "V2beta1Pipeline"),
    ("GET", f"{_V}/pipelines/names/([^/]+)", KfpServer.get_pipeline_by_name, "V2beta1Pipeline"),
    ("POST", f"{_V}/pipelines/upload_version", KfpServer.upload_version, "V2beta1PipelineVersion"),
    ("GET", f"{_V}/pipelines/([^/]+)/versions", KfpServer.list_versions, "V2beta1ListPipelineVersionsResponse"),
    ("GET", f"{_V}/pipelines/([^/]+)/versions/([^/]+)", KfpServer.get_version, "V2beta1PipelineVersion"),
]


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, state: KfpServer, *arguments: Any) -> None:
        self.state = state
        super().__init__(*arguments)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if self.state.hanging:
            self.state.silence.wait()
            self.close_connection = True
            return
        if self.state.login_page and token not in self.state.tokens:
            self._send(302, b"", "text/html", {"Location": "/dex/auth?state=xyz"})
            return
        try:
            found = self.state.answer(
                self.command, parts.path, query, token, body, self.headers.get("Content-Type") or ""
            )
        except RefusedError as refusal:
            if not str(refusal):
                self._send(refusal.status, b"404 page not found", "text/plain")
                return
            said: dict[str, Any] = {"code": _CODES.get(refusal.status, 2), "message": str(refusal)}
            if "upload" in parts.path:
                said = {"error_message": str(refusal), "error_details": str(refusal)}
            self._send(refusal.status, json.dumps(said).encode(), "application/json")
        else:
            self._send(200, json.dumps(found).encode(), "application/json")

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Tests are quiet."""


def _id() -> str:
    return str(uuid.uuid4())
