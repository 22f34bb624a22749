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
    """Why it failed, in the server's words."""

    @property
    def ended(self) -> bool:
        """Whether the run is over, however it ended."""
        return self.state in ENDED

    @property
    def succeeded(self) -> bool:
        """Whether all steps of the run have succeeded."""
        return self.state == "SUCCEEDED"


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule (KFP: recurring run), as the server had it when it was asked."""

    id: str
    name: str
    cron: str
    """Six fields, seconds first; empty if the schedule goes by an interval."""
    enabled: bool
    """``False`` while it is paused."""
    max_concurrency: int
    """Runs of this schedule at once, 1 to 10."""
    created: datetime | None
    """In UTC."""
    url: str | None
    """The schedule's page; ``None`` as for runs."""


@dataclass(frozen=True)
class PipelineVersion:
    """A compiled pipeline that was uploaded: the server keeps it under a name, and runs refer to it."""

    pipeline_id: str
    id: str
    """Of the version."""
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
        name: Of the schedule and of its runs; the arguments up to ``cache`` are those of ``submit``.
        cron: Six fields, seconds first (`rlhpo_core.kubeflow.cron`), in the server's time zone, UTC unless it is set
            otherwise.
        max_concurrency: Runs of this schedule at once, 1 to 10.
        no_catchup: Times that went by unused (a run took longer, the schedule was paused) are not made up for.
        enabled: ``False`` to create the schedule as a paused one.

    Raises: UserError as ``submit``, or if ``cron`` or ``max_concurrency`` is out of range.
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
    old = _schedules(server, name)
    if not old:
        others = ", ".join(sorted({info.name for info in schedules(server)})) or "none"
        raise UserError(f"there is no schedule {name!r}; there are: {others}")
    _delete_schedules(server, old)


def schedules(server: Server) -> list[ScheduleInfo]:
    """All schedules in the namespace. Raises: UserError if the server cannot be reached or refuses."""
    return [_schedule_info(server, schedule) for schedule in _schedules(server)]


def upload(server: Server, package: Path, pipeline: str, version: str) -> PipelineVersion:
    """Keep the package on the server as a version of the pipeline, which is created on first use.

    Args:
        package: A compiled pipeline (YAML).
        pipeline: The pipeline's name on the server.
        version: The version's name; a pipeline has one version of a name.

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
        on_state: Called with the run at first and at each change of its state.
        timeout: Seconds after which the waiting ends with an error; the run goes on.
        outage: Seconds for which the server may fail or be out of reach, in one piece; it is asked ever more rarely.

    Raises: UserError if there is no such run, after ``timeout``, or after ``outage``.
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
    uploaded = call(server, "pipeline_service_get_pipeline_version", version.pipeline_id, version.id)
    if caches(uploaded.pipeline_spec):
        raise UserError(
            f"version {version.name!r} of {version.pipeline!r} was compiled with caching, and a run cannot switch "
            "that off; compile with task.set_caching_options(False) and upload that, or send the package itself"
        )


def _experiment(server: Server, name: str) -> Any:
    """The experiment, or ``None``."""
    operation = "experiment_service_list_experiments"
    matches = _rows(server, operation, "experiments", limit=1, name=name, namespace=server.namespace)
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


def _schedules(server: Server, name: str | None = None) -> list[Any]:
    operation = "recurring_run_service_list_recurring_runs"
    return _rows(server, operation, "recurring_runs", name=name, namespace=server.namespace)


def _delete_schedules(server: Server, recurring_runs: list[Any]) -> None:
    for recurring_run in recurring_runs:
        try:
            call(server, "recurring_run_service_delete_recurring_run", recurring_run.recurring_run_id)
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


def _schedule_info(server: Server, recurring_run: Any) -> ScheduleInfo:
    trigger = recurring_run.trigger.cron_schedule if recurring_run.trigger is not None else None
    return ScheduleInfo(
        id=recurring_run.recurring_run_id,
        name=recurring_run.display_name,
        cron=trigger.cron if trigger is not None else "",
        enabled=recurring_run.status == "ENABLED"
        if recurring_run.status is not None
        else recurring_run.mode == "ENABLE",
        max_concurrency=int(recurring_run.max_concurrency or 1),
        created=_moment(recurring_run.created_at),
        url=server.page(f"recurringrun/details/{recurring_run.recurring_run_id}"),
    )


def _moment(time_: datetime | None) -> datetime | None:
    """In UTC. The server writes 1970 for what has not happened yet."""
    return time_.astimezone(UTC) if time_ is not None and time_.year > 1970 else None


def _in_namespace(server: Server) -> str:
    return "" if server.namespace is None else f" in the namespace {server.namespace}"
