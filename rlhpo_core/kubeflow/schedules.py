"""Schedules (KFP: recurring runs) on a Kubeflow Pipelines server: data in, data out.

Two facts of KFP 2.17 shape this. Deleting a schedule deletes its running workflow and that workflow's pods, in the
middle of a step. And with KFP's MLflow plugin a schedule of an inline pipeline, or of a version, loses its parameters;
by a pipeline's id alone it keeps them. Such a schedule starts the pipeline's newest version, so each content has a
pipeline of its own.

KFP's scheduler (robfig/cron 1) reads six fields, seconds first, and also takes five, as second, minute, hour, day and
month: what everywhere else means "at 02:30" then starts a run every hour. Its server checks nothing, so it is checked
here.
"""

from __future__ import annotations

import calendar
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from rlhpo_core.errors import UserError
from rlhpo_core.execution.engines import RunUnderWay
from rlhpo_core.kubeflow import client
from rlhpo_core.kubeflow.client import PipelineVersion, RunInfo
from rlhpo_core.kubeflow.compiled_pipeline import digest, read_package, uncached
from rlhpo_core.kubeflow.connection import Server, ServerError, call

#: Seconds within which a run that was stopped has to be over.
_STOPPING = 300.0
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
#: Name, lowest and highest value, other words for values.
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_SHORTHANDS = {
    "@hourly": "0 0 * * * *",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@weekly": "0 0 0 * * 0",
    "@monthly": "0 0 0 1 * *",
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
}
_FORM = "second minute hour day-of-month month day-of-week, such as '0 30 2 * * 1-5' for 02:30 on working days"
_ANY = ("*", "?")


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule, as the server had it when it was asked."""

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


def schedule(
    server: Server,
    package: Path,
    pipeline: str,
    name: str,
    parameters: Mapping[str, object],
    experiment: str,
    pipeline_root: str | None = None,
    service_account: str | None = None,
    *,
    cron: str,
    version: str | None = None,
    max_concurrency: int = 1,
    no_catchup: bool = True,
    enabled: bool = True,
    under_way: RunUnderWay | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> ScheduleInfo:
    """Start runs at certain times, from now on, in place of every schedule of this name.

    The new one is created as a paused one before the old ones are paused and deleted, so a refusal leaves things as
    they were. No run is ever deleted. If this is interrupted in between, both stand; the same call again mends it.

    Args:
        package: A compiled pipeline (YAML). No step takes its result from the cache.
        pipeline: The server keeps the package as a pipeline whose name begins like this.
        name: Of the schedule. KFP names its runs after it.
        parameters: And those that follow: as for ``client.submit``.
        cron: Six fields, seconds first (`checked_cron`), in the server's time zone, UTC unless it is set
            otherwise.
        version: Name of the pipeline's version on the server; ``None`` for its content's digest.
        max_concurrency: Runs of this schedule at once, 1 to 10.
        no_catchup: Times that went by unused (a run took longer, the schedule was paused) are not made up for.
        enabled: ``False`` to create the schedule as a paused one.
        under_way: What to do with a run that an old schedule has started; ``None`` to refuse.
        tell: Takes lines for a person to read, while a run is waited for.

    Raises: UserError as ``client.submit``, if ``cron`` or ``max_concurrency`` is out of range, or if an old schedule
    has a run under way and ``under_way`` does not say what to do.
    """
    import kfp_server_api as api

    if not 1 <= max_concurrency <= 10:
        raise UserError(f"a schedule has 1 to 10 runs at once, not {max_concurrency}")
    cron = checked_cron(cron)
    old = _of_name(server, name)
    kept = _kept(server, package, pipeline, version)
    body = api.V2beta1RecurringRun(
        display_name=name,
        service_account=service_account,
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron)),
        max_concurrency=str(max_concurrency),
        no_catchup=no_catchup,
        mode=api.RecurringRunMode.DISABLE,
        **client.job(server, kept, parameters, experiment, pipeline_root, cache=False),
    )
    created = call(server, "recurring_run_service_create_recurring_run", body)
    try:
        _retire(server, old, under_way, tell)
    except BaseException:
        _delete(server, created)
        raise
    if enabled:
        enable(server, created.recurring_run_id)
    return _info(server, call(server, "recurring_run_service_get_recurring_run", created.recurring_run_id))


def unschedule(
    server: Server,
    name: str,
    under_way: RunUnderWay | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Remove the schedule; its runs stay.

    Args:
        under_way: And ``tell``: as for ``schedule``.

    Raises: UserError if there is none of this name, or if it has a run under way and ``under_way`` does not say what
    to do.
    """
    old = _of_name(server, name)
    if not old:
        others = ", ".join(sorted({info.name for info in schedules(server)})) or "none"
        raise UserError(f"there is no schedule {name!r}; there are: {others}")
    _retire(server, old, under_way, tell)


def schedules(server: Server) -> list[ScheduleInfo]:
    """All schedules in the namespace. Raises: UserError if the server cannot be reached or refuses."""
    return [_info(server, schedule) for schedule in _of_name(server)]


def enable(server: Server, schedule_id: str) -> None:
    """Let a paused schedule go on. Raises: UserError if the server refuses or cannot be reached."""
    call(server, "recurring_run_service_enable_recurring_run", schedule_id)


def disable(server: Server, schedule_id: str) -> None:
    """Pause a schedule; a run of it that is under way goes on. Raises: UserError as ``enable``."""
    call(server, "recurring_run_service_disable_recurring_run", schedule_id)


def runs_under_way(server: Server, schedule_id: str) -> list[RunInfo]:
    """Runs of a schedule that have not ended. Raises: UserError as ``enable``."""
    found = call(server, "recurring_run_service_get_recurring_run", schedule_id)
    rows = client.runs_of_experiment(server, found.experiment_id, since=client.moment(found.created_at))
    return [run for run in rows if run.schedule_id == schedule_id and not run.ended]


def _kept(server: Server, package: Path, pipeline: str, version: str | None) -> PipelineVersion:
    """The pipeline that the server keeps of a package; its newest version, and the only one, is the package."""
    content = uncached(read_package(package))
    name = digest(content)[:12]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        path.write_text(yaml.safe_dump_all(list(content.values()), sort_keys=False), encoding="utf-8")
        made = client.upload(server, path, f"{pipeline}-{name}", version or name)
    return PipelineVersion(made.pipeline_id, "", made.pipeline, made.name, made.url)


def _retire(server: Server, old: list[Any], under_way: RunUnderWay | None, tell: Callable[[str], None]) -> None:
    """Pause schedules, let their runs end, and delete them; whatever goes wrong, those that stay go on as before."""
    paused: list[str] = []
    try:
        for one in old:
            if _enabled(one):
                disable(server, one.recurring_run_id)
                paused.append(one.recurring_run_id)
        # Only now, since a schedule that is paused starts no other.
        for one in old:
            for run in runs_under_way(server, one.recurring_run_id):
                _end(server, one.display_name, run, under_way, tell)
        for one in old:
            _delete(server, one)
            if one.recurring_run_id in paused:
                paused.remove(one.recurring_run_id)
    except BaseException:
        for one in paused:
            enable(server, one)
        raise


def _end(server: Server, name: str, run: RunInfo, under_way: RunUnderWay | None, tell: Callable[[str], None]) -> None:
    if under_way is None:
        raise UserError(
            f"the schedule {name!r} has a run under way ({run.id}), which KFP would delete with it in the middle of a "
            "step; say --under-way wait to let it end first, or --under-way stop to stop it"
        )
    if under_way is RunUnderWay.STOP:
        tell(f"stopping run {run.id}")
        if run.state != "CANCELING":
            client.terminate(server, run.id)
        client.wait(server, run.id, poll=2.0, timeout=_STOPPING)
        return
    tell(f"waiting for run {run.id} to end")
    client.wait(server, run.id)


def _of_name(server: Server, name: str | None = None) -> list[Any]:
    operation = "recurring_run_service_list_recurring_runs"
    return client.listed(server, operation, "recurring_runs", name=name, namespace=server.namespace)


def _delete(server: Server, recurring_run: Any) -> None:
    try:
        call(server, "recurring_run_service_delete_recurring_run", recurring_run.recurring_run_id)
    except ServerError as error:
        if error.status != 404:
            raise


def _enabled(recurring_run: Any) -> bool:
    if recurring_run.status is not None:
        return bool(recurring_run.status == "ENABLED")
    return bool(recurring_run.mode == "ENABLE")


def _info(server: Server, recurring_run: Any) -> ScheduleInfo:
    trigger = recurring_run.trigger.cron_schedule if recurring_run.trigger is not None else None
    return ScheduleInfo(
        id=recurring_run.recurring_run_id,
        name=recurring_run.display_name,
        cron=trigger.cron if trigger is not None else "",
        enabled=_enabled(recurring_run),
        max_concurrency=int(recurring_run.max_concurrency or 1),
        created=client.moment(recurring_run.created_at),
        url=server.page(f"recurringrun/details/{recurring_run.recurring_run_id}"),
    )


# -- cron --------------------------------------------------------------------------------------------------------------


def checked_cron(text: str) -> str:
    """The expression with single spaces between its fields.

    Raises: UserError if it is not six fields, has a value out of range, never comes due, or comes due more than once a
    minute. Where the meaning can be guessed, the message has the corrected expression.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise UserError(f"the schedule {text!r} has {len(fields)} fields, not six: {_FORM}{_suggestion(fields)}")
    try:
        values = [_values(field, *form) for field, form in zip(fields, _FIELDS, strict=True)]
    except ValueError as error:
        raise UserError(f"the schedule {text!r}: {error}\nThe fields are {_FORM}") from error
    if len(values[0]) > 1:
        raise UserError(
            f"the schedule {text!r} starts {len(values[0])} runs a minute; the first field is the second: "
            f"did you mean {' '.join(['0', *fields[1:]])!r}?"
        )
    if fields[5] in _ANY and all(day > _longest(month) for month in values[4] for day in values[3]):
        raise UserError(f"the schedule {text!r} never comes due: no such month has a day {min(values[3])}")
    return " ".join(fields)


def _suggestion(fields: list[str]) -> str:
    if len(fields) == 1 and fields[0].lower() in _SHORTHANDS:
        return f"\nDid you mean {_SHORTHANDS[fields[0].lower()]!r}?"
    if len(fields) != len(_FIELDS) - 1:
        return ""
    try:
        return f"\nDid you mean {checked_cron(' '.join(['0', *fields]))!r}? The seconds come first"
    except UserError:
        return ""


def _values(text: str, name: str, low: int, high: int, words: dict[str, int]) -> set[int]:
    """The values that a field stands for: a list of numbers, ranges and steps. Raises: ValueError."""
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, name, {}) if slash else 1
        if step < 1:
            raise ValueError(f"the step in {part!r} ({name}) must be at least 1")
        if span in _ANY:
            first, last = low, high
        else:
            first_text, dash, last_text = span.partition("-")
            first = _number(first_text, name, words)
            last = _number(last_text, name, words) if dash else (high if slash else first)
        if not low <= first <= last <= high:
            raise ValueError(f"{part!r} is not a {name} from {low} to {high}")
        values.update(range(first, last + 1, step))
    return values


def _number(text: str, name: str, words: dict[str, int]) -> int:
    if text.lower() in words:
        return words[text.lower()]
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a {name}")
    return int(text)


def _longest(month: int) -> int:
    return 29 if month == 2 else calendar.monthrange(2000, month)[1]
