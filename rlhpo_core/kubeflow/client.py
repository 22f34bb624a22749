"""Runs and pipeline versions on a Kubeflow Pipelines server: data in, data out. Schedules are in `schedules`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow.compiled_pipeline import caches, read_package, same, uncached
from rlhpo_core.kubeflow.connection import Server, ServerError, call

#: States from which a run does not go on.
ENDED = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
_PAGE = 100
_DAY = 86_400.0
#: Seconds: longest pause between attempts, longest time without the server, longest wait for a run.
_LONGEST_PAUSE, _LONGEST_OUTAGE, _LONGEST_WAIT = 60.0, 900.0, 7 * _DAY


@dataclass(frozen=True)
class RunInfo:
    """A run, as the server had it when it was asked."""

    id: str
    name: str
    state: str
    """PENDING, RUNNING, PAUSED, CANCELING, or one of ENDED."""
    created: datetime | None
    """In UTC."""
    finished: datetime | None
    """In UTC; ``None`` while the run goes on."""
    url: str | None
    """The run's page; ``None`` inside a cluster, unless KF_PIPELINES_UI_ENDPOINT is set."""
    error: str | None = None
    """Why it failed, in the server's words; KFP has none for a step that failed."""
    schedule_id: str | None = None
    """Of the schedule that started it; ``None`` if none did."""
    store: str = ""
    """Where its study's files lie, by its parameter of this name; empty if it has none."""

    @property
    def ended(self) -> bool:
        """Whether the run is over, however it ended."""
        return self.state in ENDED

    @property
    def succeeded(self) -> bool:
        """Whether all steps of the run have succeeded."""
        return self.state == "SUCCEEDED"


@dataclass(frozen=True)
class PipelineVersion:
    """A compiled pipeline that was uploaded: the server keeps it under a name, and runs refer to it."""

    pipeline_id: str
    id: str
    """Of the version; empty for the pipeline's newest, whichever it is when a run starts."""
    pipeline: str
    """The pipeline's name."""
    name: str
    """The version's name."""
    url: str | None
    """The version's page; ``None`` as for runs."""


def submit(
    server: Server,
    package: Path | PipelineVersion,
    name: str,
    parameters: Mapping[str, object],
    experiment: str,
    pipeline_root: str | None = None,
    service_account: str | None = None,
    cache: bool = False,
) -> RunInfo:
    """Start a run; the experiment is created if there is none.

    Args:
        package: A compiled pipeline (YAML), or a version that was uploaded.
        parameters: The pipeline's parameters; those left out take its defaults.
        pipeline_root: Where KFP keeps artifacts; ``None`` for the server's own.
        service_account: Of the pods; ``None`` for the server's own.
        cache: ``False``: no step takes its result from the cache. ``True``: as the pipeline was compiled.

    Raises: UserError if the package or the parameters are no good, or if the server cannot be reached or refuses.
    """
    import kfp_server_api as api

    body = api.V2beta1Run(
        display_name=name,
        service_account=service_account,
        **job(server, package, parameters, experiment, pipeline_root, cache),
    )
    return _run_info(server, call(server, "run_service_create_run", body))


def upload(server: Server, package: Path, pipeline: str, version: str) -> PipelineVersion:
    """Keep the package on the server as a version of the pipeline, which is created on first use.

    Args:
        package: A compiled pipeline (YAML).
        pipeline: The pipeline's name on the server.
        version: The version's name; a pipeline has one version of a name.

    Returns: the version; the one that is there if it has the same content.

    Raises: UserError, also if a version of this name has another content.
    """
    content = read_package(package)
    pipeline_id = _pipeline_id(server, pipeline)
    try:
        made = call(server, "upload_pipeline_version", str(package), name=version, pipelineid=pipeline_id)
    except ServerError as error:
        if error.status != 409:
            raise
        operation = "pipeline_service_list_pipeline_versions"
        found = listed(server, operation, "pipeline_versions", 1, version, pipeline_id=pipeline_id)
        if not found or not same(found[0].pipeline_spec, content):
            raise UserError(
                f"the pipeline {pipeline!r} has a version {version!r} with another content; choose another name"
            ) from error
        made = found[0]
    path = f"pipelines/details/{made.pipeline_id}/version/{made.pipeline_version_id}"
    return PipelineVersion(made.pipeline_id, made.pipeline_version_id, pipeline, version, server.page(path))


def run(server: Server, run_id: str) -> RunInfo:
    """A run as it is now. Raises: UserError, also if there is none."""
    return _run_info(server, get_run(server, run_id))


def get_run(server: Server, run_id: str) -> Any:
    """As ``run``, with all that the server says of it, as KFP's own model."""
    try:
        return call(server, "run_service_get_run", run_id)
    except ServerError as error:
        if error.status == 404:
            raise UserError(f"there is no run {run_id!r}{_in_namespace(server)}; see `rlhpo runs`") from error
        raise


def pipeline_name(server: Server, run: Any) -> str:
    """Name of the pipeline that a run is of, as its own specification has it.

    Args:
        run: As ``get_run`` has returned it.

    Raises: UserError if the server cannot be reached or refuses.
    """
    spec, reference = run.pipeline_spec, run.pipeline_version_reference
    if spec is None and reference is not None:
        names = (reference.pipeline_id, reference.pipeline_version_id)
        spec = call(server, "pipeline_service_get_pipeline_version", *names).pipeline_spec
    spec = spec or {}
    return str(spec.get("pipeline_spec", spec).get("pipelineInfo", {}).get("name", ""))


def runs(server: Server, experiment: str | None = None, limit: int = 20, name: str | None = None) -> list[RunInfo]:
    """The latest runs, the newest first.

    Args:
        experiment: Only runs of this experiment; ``None`` for all in the namespace.
        limit: At most so many.
        name: Only runs of this name.

    Raises: UserError, also if there is no such experiment.
    """
    place = {"namespace": server.namespace}
    if experiment is not None:
        known = _experiment(server, experiment)
        if known is None:
            raise UserError(f"there is no experiment {experiment!r}{_in_namespace(server)}; `rlhpo submit` creates one")
        place = {"experiment_id": known.experiment_id}
    found = listed(server, "run_service_list_runs", "runs", limit, name, sort_by="created_at desc", **place)
    return [_run_info(server, run) for run in found]


def runs_of_experiment(server: Server, experiment_id: str, since: datetime | None = None) -> list[RunInfo]:
    """All runs of an experiment that began at ``since`` or later, the newest first. Raises: UserError as ``runs``."""
    rows = listed(server, "run_service_list_runs", "runs", sort_by="created_at desc", experiment_id=experiment_id)
    found = [_run_info(server, row) for row in rows]
    return [run for run in found if since is None or run.created is None or run.created >= since]


def wait(
    server: Server,
    run_id: str,
    poll: float = 10.0,
    on_state: Callable[[RunInfo], None] = lambda run: None,
    timeout: float = _LONGEST_WAIT,
    outage: float = _LONGEST_OUTAGE,
    on_look: Callable[[RunInfo], None] = lambda run: None,
) -> RunInfo:
    """Wait until the run has ended, however it ended.

    Args:
        poll: Seconds between looks.
        on_state: Called with the run at first and at each change of its state.
        timeout: Seconds after which the waiting ends with an error; the run goes on.
        outage: Seconds for which the server may fail or be out of reach, in one piece; it is asked ever more rarely.
        on_look: Called with the run at each look that finds it going on.

    Raises: UserError if there is no such run, after ``timeout``, or after ``outage``.
    """
    started, answered = time.monotonic(), None
    state, pause = "", poll
    while True:
        try:
            found = run(server, run_id)
        except ServerError as error:
            if answered is None or not error.passing:
                raise
            if time.monotonic() - answered >= outage:
                raise UserError(f"{error}\nThe run {run_id} goes on without being watched.") from error
            pause = min(2 * pause, max(poll, _LONGEST_PAUSE))
        else:
            answered, pause = time.monotonic(), poll
            if found.state != state:
                state = found.state
                on_state(found)
            if found.ended:
                return found
            on_look(found)
        left = started + timeout - time.monotonic()
        if left <= 0:
            raise UserError(f"the run {run_id} has not ended within {timeout:g} seconds; it goes on: see `rlhpo runs`")
        time.sleep(min(pause, left))


def terminate(server: Server, run_id: str) -> None:
    """Ask the server to stop the run. Raises: UserError, also if it has ended already."""
    try:
        call(server, "run_service_terminate_run", run_id)
    except ServerError as error:
        if error.status == 404:
            raise UserError(f"there is no run {run_id!r}{_in_namespace(server)}; see `rlhpo runs`") from error
        if error.status == 400:
            raise UserError(f"the run {run_id} cannot be stopped: it has ended, or is being stopped") from error
        raise


# -- what the requests are made of ------------------------------------------------------------------------------------


def job(
    server: Server,
    package: Path | PipelineVersion,
    parameters: Mapping[str, object],
    experiment: str,
    pipeline_root: str | None,
    cache: bool,
) -> dict[str, Any]:
    """What runs and recurring runs have in common, as fields of their models; the arguments are those of ``submit``."""
    import kfp_server_api as api

    try:
        json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"parameters must be what JSON knows, without NaN and infinity: {error}") from error
    source: dict[str, Any]
    if isinstance(package, Path):
        spec = read_package(package) if cache else uncached(read_package(package))
        source = {"pipeline_spec": spec if "platform_spec" in spec else spec["pipeline_spec"]}
    else:
        if not cache and package.id:
            _check_uncached(server, package)
        reference = api.V2beta1PipelineVersionReference(package.pipeline_id, package.id or None)
        source = {"pipeline_version_reference": reference}
    return {
        "experiment_id": _experiment_id(server, experiment),
        "runtime_config": api.V2beta1RuntimeConfig(parameters=dict(parameters), pipeline_root=pipeline_root),
        **source,
    }


def _check_uncached(server: Server, version: PipelineVersion) -> None:
    """A run of an uploaded version caches as it was compiled: no request can say otherwise. Raises: UserError."""
    uploaded = call(server, "pipeline_service_get_pipeline_version", version.pipeline_id, version.id)
    if caches(uploaded.pipeline_spec):
        raise UserError(
            f"version {version.name!r} of {version.pipeline!r} was compiled with caching, and a run cannot switch "
            "that off; compile with task.set_caching_options(False) and upload that, or send the package itself"
        )


def _experiment(server: Server, name: str) -> Any:
    """The experiment, or ``None``."""
    operation = "experiment_service_list_experiments"
    matches = listed(server, operation, "experiments", limit=1, name=name, namespace=server.namespace)
    return matches[0] if matches else None


def _experiment_id(server: Server, name: str) -> str:
    import kfp_server_api as api

    experiment = _experiment(server, name)
    if experiment is None:
        body = api.V2beta1Experiment(display_name=name, namespace=server.namespace)
        try:
            experiment = call(server, "experiment_service_create_experiment", body)
        except ServerError as error:
            # Another run that was sent at the same moment may have created it.
            experiment = _experiment(server, name) if error.status == 409 else None
            if experiment is None:
                raise
    if experiment.storage_state == "ARCHIVED":
        raise UserError(f"the experiment {name!r} is archived; restore it in KFP's pages, or name another")
    return str(experiment.experiment_id)


def _pipeline_id(server: Server, name: str) -> str:
    import kfp_server_api as api

    def find() -> Any:
        place = {} if server.namespace is None else {"namespace": server.namespace}
        return call(server, "pipeline_service_get_pipeline_by_name", name, **place)

    try:
        return str(find().pipeline_id)
    except ServerError as error:
        if error.status != 404:
            raise
    body = api.V2beta1Pipeline(name=name, display_name=name, namespace=server.namespace)
    try:
        return str(call(server, "pipeline_service_create_pipeline", body).pipeline_id)
    except ServerError as error:
        if error.status != 409:
            raise
        return str(find().pipeline_id)


def listed(
    server: Server,
    operation: str,
    member: str,
    limit: int | None = None,
    name: str | None = None,
    **options: Any,
) -> list[Any]:
    """A list's entries as the server has them, page after page.

    Args:
        operation: As for ``connection.call``, which also has the errors.
        member: The answer's field that holds the entries.
        limit: At most so many; ``None`` for all.
        name: Only those of this name.
        options: Further arguments of the operation.
    """
    if name is not None:
        predicate = {"operation": "EQUALS", "key": "display_name", "string_value": name}
        options["filter"] = json.dumps({"predicates": [predicate]})
    rows: list[Any] = []
    token = ""
    while limit is None or len(rows) < limit:
        size = _PAGE if limit is None else min(_PAGE, limit - len(rows))
        page = call(server, operation, page_token=token, page_size=size, **options)
        rows += getattr(page, member) or []
        token = page.next_page_token
        if not token:
            break
    return rows[:limit]


def _run_info(server: Server, run: Any) -> RunInfo:
    state = run.state or "RUNTIME_STATE_UNSPECIFIED"
    return RunInfo(
        id=run.run_id,
        name=run.display_name,
        state="PENDING" if state == "RUNTIME_STATE_UNSPECIFIED" else state,
        created=moment(run.created_at),
        finished=moment(run.finished_at),
        url=server.page(f"runs/details/{run.run_id}"),
        error=run.error.message if run.error is not None else None,
        schedule_id=run.recurring_run_id or None,
        store=str((run.runtime_config.parameters or {}).get("store", "")) if run.runtime_config is not None else "",
    )


def moment(time_: datetime | None) -> datetime | None:
    """A time of the server's in UTC; ``None`` for 1970, which it writes for what has not happened yet."""
    return time_.astimezone(UTC) if time_ is not None and time_.year > 1970 else None


def _in_namespace(server: Server) -> str:
    return "" if server.namespace is None else f" in the namespace {server.namespace}"
