"""Runs, schedules and pipeline versions on a Kubeflow Pipelines server: data in, data out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow.compiled_pipeline import caches, read_package, uncached
from rlhpo_core.kubeflow.connection import Server, ServerError, call
from rlhpo_core.kubeflow.cron import checked_cron

#: States from which a run does not go on.
ENDED = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
_PAGE = 100
_DAY = 86_400.0
#: Seconds: longest pause between attempts, longest time without the server, longest wait for a run.
_LONGEST_PAUSE, _LONGEST_OUTAGE, _LONGEST_WAIT = 60.0, 900.0, 7 * _DAY


@dataclass(frozen=True)
class RunInfo:
    id: str
    name: str
    state: str
    """PENDING, RUNNING, PAUSED, CANCELING, or one of ENDED."""
    created: datetime | None
    finished: datetime | None
    url: str | None
    """The run's page; ``None`` inside a cluster, unless KF_PIPELINES_UI_ENDPOINT is set."""
    error: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def succeeded(self) -> bool:
        return self.state == "SUCCEEDED"


@dataclass(frozen=True)
class ScheduleInfo:
    id: str
    name: str
    cron: str
    enabled: bool
    max_concurrency: int
    created: datetime | None
    url: str | None


@dataclass(frozen=True)
class PipelineVersion:
    pipeline_id: str
    id: str
    pipeline: str
    name: str
    url: str | None


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

    Raises: UserError.
    """
    import kfp_server_api as api

    body = api.V2beta1Run(
        display_name=name,
        service_account=service_account,
        **_job(server, package, parameters, experiment, pipeline_root, cache),
    )
    return _run_info(server, call(server, "run_service_create_run", body))


def schedule(
    server: Server,
    package: Path | PipelineVersion,
    name: str,
    parameters: Mapping[str, object],
    experiment: str,
    pipeline_root: str | None = None,
    service_account: str | None = None,
    cache: bool = False,
    *,
    cron: str,
    max_concurrency: int = 1,
    no_catchup: bool = True,
    enabled: bool = True,
) -> ScheduleInfo:
    """Start runs at certain times, from now on, in place of every schedule of this name.

    The new one is created before the old ones go, so a refusal leaves things as they were. If this is interrupted in
    between, both stand; the same call again mends it.

    Args:
        cron: Six fields, seconds first (`rlhpo_core.kubeflow.cron`), in the server's time zone, UTC unless it is set
            otherwise.
        max_concurrency: Runs of this schedule at once, 1 to 10.
        no_catchup: Times that went by unused (a run took longer, the schedule was paused) are not made up for.

    Raises: UserError.
    """
    import kfp_server_api as api

    if not 1 <= max_concurrency <= 10:
        raise UserError(f"a schedule has 1 to 10 runs at once, not {max_concurrency}")
    cron = checked_cron(cron)
    old = _schedules(server, name)
    body = api.V2beta1RecurringRun(
        display_name=name,
        service_account=service_account,
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron)),
        max_concurrency=str(max_concurrency),
        no_catchup=no_catchup,
        mode=api.RecurringRunMode.ENABLE if enabled else api.RecurringRunMode.DISABLE,
        **_job(server, package, parameters, experiment, pipeline_root, cache),
    )
    created = call(server, "recurring_run_service_create_recurring_run", body)
    _delete_schedules(server, old)
    return _schedule_info(server, created)


def unschedule(server: Server, name: str) -> None:
    """Remove the schedule; its runs stay. Raises: UserError if there is none of this name."""
    found = _schedules(server, name)
    if not found:
        others = ", ".join(sorted({info.name for info in schedules(server)})) or "none"
        raise UserError(f"there is no schedule {name!r}; there are: {others}")
    _delete_schedules(server, found)


def schedules(server: Server) -> list[ScheduleInfo]:
    """All schedules in the namespace. Raises: UserError."""
    return [_schedule_info(server, one) for one in _schedules(server)]


def upload(server: Server, package: Path, pipeline: str, version: str) -> PipelineVersion:
    """Keep the package on the server as a version of the pipeline, which is created on first use.

    Raises: UserError, also if there is a version of this name.
    """
    read_package(package)
    pipeline_id = _pipeline_id(server, pipeline)
    try:
        made = call(server, "upload_pipeline_version", str(package), name=version, pipelineid=pipeline_id)
    except ServerError as error:
        if error.status == 409:
            raise UserError(f"the pipeline {pipeline!r} has a version {version!r}; choose another name") from error
        raise
    path = f"pipelines/details/{made.pipeline_id}/version/{made.pipeline_version_id}"
    return PipelineVersion(made.pipeline_id, made.pipeline_version_id, pipeline, version, server.page(path))


def runs(server: Server, experiment: str | None = None, limit: int = 20, name: str | None = None) -> list[RunInfo]:
    """The latest runs, the newest first: of one experiment, or of all in the namespace. Raises: UserError."""
    place = {"namespace": server.namespace}
    if experiment is not None:
        found = _experiment(server, experiment)
        if found is None:
            raise UserError(f"there is no experiment {experiment!r}{_in_namespace(server)}; `rlhpo submit` creates one")
        place = {"experiment_id": found.experiment_id}
    rows = _rows(server, "run_service_list_runs", "runs", limit, name, sort_by="created_at desc", **place)
    return [_run_info(server, run) for run in rows]


def wait(
    server: Server,
    run_id: str,
    poll: float = 10.0,
    on_state: Callable[[RunInfo], None] = lambda run: None,
    timeout: float = _LONGEST_WAIT,
    outage: float = _LONGEST_OUTAGE,
) -> RunInfo:
    """Wait until the run has ended, however it ended.

    Args:
        poll: Seconds between looks.
        on_state: Told of the run's state at first and at each change.
        timeout: Seconds after which the waiting ends with an error; the run goes on.
        outage: Seconds for which the server may fail or be out of reach, in one piece; it is asked ever more rarely.

    Raises: UserError.
    """
    started, answered = time.monotonic(), None
    state, pause = "", poll
    while True:
        try:
            run = _run_info(server, call(server, "run_service_get_run", run_id))
        except ServerError as error:
            if error.status == 404:
                raise UserError(f"there is no run {run_id!r}{_in_namespace(server)}; see `rlhpo runs`") from error
            if answered is None or not error.passing:
                raise
            if time.monotonic() - answered >= outage:
                raise UserError(f"{error}\nThe run {run_id} goes on without being watched.") from error
            pause = min(2 * pause, max(poll, _LONGEST_PAUSE))
        else:
            answered, pause = time.monotonic(), poll
            if run.state != state:
                state = run.state
                on_state(run)
            if run.ended:
                return run
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


def _job(
    server: Server,
    package: Path | PipelineVersion,
    parameters: Mapping[str, object],
    experiment: str,
    pipeline_root: str | None,
    cache: bool,
) -> dict[str, Any]:
    """What runs and recurring runs have in common."""
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
        if not cache:
            _check_uncached(server, package)
        reference = api.V2beta1PipelineVersionReference(package.pipeline_id, package.id)
        source = {"pipeline_version_reference": reference}
    return {
        "experiment_id": _experiment_id(server, experiment),
        "runtime_config": api.V2beta1RuntimeConfig(parameters=dict(parameters), pipeline_root=pipeline_root),
        **source,
    }


def _check_uncached(server: Server, version: PipelineVersion) -> None:
    """A run of an uploaded version caches as it was compiled: no request can say otherwise. Raises: UserError."""
    found = call(server, "pipeline_service_get_pipeline_version", version.pipeline_id, version.id)
    if caches(found.pipeline_spec):
        raise UserError(
            f"version {version.name!r} of {version.pipeline!r} was compiled with caching, and a run cannot switch "
            "that off; compile with task.set_caching_options(False) and upload that, or send the package itself"
        )


def _experiment(server: Server, name: str) -> Any:
    """The experiment, or ``None``."""
    operation = "experiment_service_list_experiments"
    found = _rows(server, operation, "experiments", limit=1, name=name, namespace=server.namespace)
    return found[0] if found else None


def _experiment_id(server: Server, name: str) -> str:
    import kfp_server_api as api

    found = _experiment(server, name)
    if found is None:
        body = api.V2beta1Experiment(display_name=name, namespace=server.namespace)
        try:
            found = call(server, "experiment_service_create_experiment", body)
        except ServerError as error:
            # Another run that was sent at the same moment may have created it.
            found = _experiment(server, name) if error.status == 409 else None
            if found is None:
                raise
    if found.storage_state == "ARCHIVED":
        raise UserError(f"the experiment {name!r} is archived; restore it in KFP's pages, or name another")
    return str(found.experiment_id)


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


def _schedules(server: Server, name: str | None = None) -> list[Any]:
    operation = "recurring_run_service_list_recurring_runs"
    return _rows(server, operation, "recurring_runs", name=name, namespace=server.namespace)


def _delete_schedules(server: Server, found: list[Any]) -> None:
    for one in found:
        try:
            call(server, "recurring_run_service_delete_recurring_run", one.recurring_run_id)
        except ServerError as error:
            if error.status != 404:
                raise


def _rows(
    server: Server,
    operation: str,
    member: str,
    limit: int | None = None,
    name: str | None = None,
    **options: Any,
) -> list[Any]:
    """A list's entries, page after page, up to ``limit``; of one name only, if it is given."""
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
        created=_moment(run.created_at),
        finished=_moment(run.finished_at),
        url=server.page(f"runs/details/{run.run_id}"),
        error=run.error.message if run.error is not None else None,
    )


def _schedule_info(server: Server, one: Any) -> ScheduleInfo:
    trigger = one.trigger.cron_schedule if one.trigger is not None else None
    return ScheduleInfo(
        id=one.recurring_run_id,
        name=one.display_name,
        cron=trigger.cron if trigger is not None else "",
        enabled=one.status == "ENABLED" if one.status is not None else one.mode == "ENABLE",
        max_concurrency=int(one.max_concurrency or 1),
        created=_moment(one.created_at),
        url=server.page(f"recurringrun/details/{one.recurring_run_id}"),
    )


def _moment(time_: datetime | None) -> datetime | None:
    """In UTC. The server writes 1970 for what has not happened yet."""
    return time_.astimezone(UTC) if time_ is not None and time_.year > 1970 else None


def _in_namespace(server: Server) -> str:
    return "" if server.namespace is None else f" in the namespace {server.namespace}"
