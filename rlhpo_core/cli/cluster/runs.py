"""The command line's part for what runs on a cluster: ``rlhpo runs | logs | stop``, and ``status`` of an address."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from rlhpo_core.cli.options import ServerOptions, console, errors, grouped
from rlhpo_core.errors import UserError

# KFP is slow to import, too: only the commands do.
if TYPE_CHECKING:
    from rlhpo_core.kubeflow.client import RunInfo
    from rlhpo_core.kubeflow.connection import Server

#: Seconds between two looks at the pods of a run that is waited for.
_LOOK = 30.0
#: Runs among which those of a store are looked for.
_LATEST = 200
#: Columns of output that no terminal bounds, so that nothing is cut or folded.
_WIDE = 1000

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Its id, as `rlhpo runs` lists it.")]
Artifacts = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        envvar="RLHPO_KFP_ARTIFACTS",
        help="Where KFP keeps artifacts, such as s3://mlpipeline/v2/artifacts; default: the run's own root.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line, for programs.")]


@grouped
def runs(
    server: ServerOptions,
    experiment: Annotated[str | None, typer.Option(help="Only of this KFP experiment.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the latest runs on a cluster, with the schedule that started them and the study's store.

    Below the list stands what keeps pods from starting, such as an image that cannot be pulled, as far as a kubeconfig
    lets it be seen.
    """
    from rlhpo_core.kubeflow import client, pods, schedules

    kfp = server.server()
    latest = client.runs(kfp, experiment, limit)
    scheduled = any(run.schedule_id for run in latest)
    names = {one.id: one.name for one in schedules.schedules(kfp)} if scheduled else {}
    waiting = pods.that_wait([run.id for run in latest if not run.ended], kfp.namespace)
    if as_json:
        for run in latest:
            pod = waiting.get(run.id)
            waits = None if pod is None else f"step {pod.step!r} {pod.trouble}"
            typer.echo(json.dumps({**as_data(run, names), "waits": waits}))
        return
    if not latest:
        console.print("no runs")
        return
    grid = Grid(box=None, header_style="bold")
    grid.add_column("run", no_wrap=True, min_width=36)
    for column in ("name", "schedule", "state", "created (UTC)", "store"):
        grid.add_column(column, overflow="fold")
    for run in latest:
        created = "" if run.created is None else f"{run.created:%Y-%m-%d %H:%M}"
        facts = (run.id, run.name, _schedule(run, names), run.state, created, run.store)
        grid.add_row(*map(escape, facts))
    (console if console.is_terminal else Console(width=_WIDE, highlight=False)).print(grid)
    for run_id, pod in waiting.items():
        console.print(escape(f"run {run_id} waits: step {pod.step!r} {pod.trouble}"), soft_wrap=True)


@grouped
def logs(
    run: RunId,
    server: ServerOptions,
    step: Annotated[str | None, typer.Option(metavar="NAME", help="Only of steps whose name begins like this.")] = None,
    lines: Annotated[int, typer.Option(min=1, help="Of each step, the last.")] = 20,
    artifacts: Artifacts = None,
) -> None:
    """Print what the steps of a run have printed, from KFP's object store.

    AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are those of KFP's store here.
    """
    from rlhpo_core.kubeflow import diagnosis

    found = [log for log in diagnosis.logs(server.server(), run, artifacts) if log.step.startswith(step or "")]
    if not found:
        raise UserError(f"there are no logs of {'run ' + run if step is None else f'a step {step!r} of run {run}'} yet")
    for log in found:
        console.print(f"[bold]{escape(log.step)}[/]", soft_wrap=True)
        console.print(escape(log.tail(lines)), soft_wrap=True)


@grouped
def stop(
    what: Annotated[str, typer.Argument(metavar="RUN|STORE", help="A run's id, or the address of a study's store.")],
    server: ServerOptions,
    now: Annotated[bool, typer.Option("--now", help="Of a store: end the run under way at once, too.")] = False,
) -> None:
    """Stop a study on a cluster; submitted again with the same store, it goes on.

    By its store, the trials at hand are finished, and no run follows. By a run's id, or with `--now`, the pods are
    ended at once, and the trials at hand are trained again later.
    """
    from rlhpo_core.kubeflow import stopping
    from rlhpo_core.storage.object_store import open_store
    from rlhpo_core.storage.study_files import StudyFiles

    def tell(line: str) -> None:
        console.print(escape(line), soft_wrap=True)

    if "://" not in what:
        stopping.stop_run(server.server(), what, tell)
        return
    files = StudyFiles(open_store(what))
    files.spec()
    files.request_stop()
    tell("no further trial is started, and no run follows; the run under way ends after the trials at hand")
    if now:
        kfp = server.server()
        for run in _of_store(kfp, what):
            if not run.ended:
                stopping.stop_run(kfp, run.id, tell)


@dataclass
class Watch:
    """Tells of troubles of a run that is waited for, each once."""

    server: Server
    artifacts: str | None
    started: float
    told: set[str]

    @classmethod
    def of(cls, server: Server, artifacts: str | None) -> Watch:
        """A watch that has told nothing yet."""
        return cls(server, artifacts, time.monotonic(), set())

    def look(self, run: RunInfo) -> None:
        """Ask, not more often than every half a minute, what keeps the run from going on."""
        from rlhpo_core.kubeflow import diagnosis

        if time.monotonic() - self.started < _LOOK:
            return
        self.started = time.monotonic()
        try:
            found = diagnosis.troubles(self.server, run.id, self.artifacts)
        except UserError:
            # The waiting itself has its patience with a server that is away.
            return
        for trouble in found:
            if (said := str(trouble)) not in self.told:
                self.told.add(said)
                errors.print(escape(said), soft_wrap=True)


def failure(server: Server, run: RunInfo, artifacts: str | None) -> UserError:
    """What is said of a run that has not succeeded: the steps, how they ended, and their last lines."""
    from rlhpo_core.kubeflow import diagnosis

    found = diagnosis.troubles(server, run.id, artifacts)
    known = "\n".join(map(str, found)) or run.error or f"its page says why: {run.url or run.id}"
    return UserError(f"run {run.id} ended as {run.state}\n{known}")


def as_data(run: RunInfo, schedules: dict[str, str] | None = None) -> dict[str, Any]:
    """A run as JSON has it; times as ISO 8601 with their zone."""
    return {
        "run": run.id,
        "name": run.name,
        "state": run.state,
        "schedule": _schedule(run, schedules or {}) or None,
        "store": run.store or None,
        "created": run.created.isoformat() if run.created is not None else None,
        "finished": run.finished.isoformat() if run.finished is not None else None,
        "url": run.url,
    }


def print_runs_of(store: str, artifacts: str | None = None) -> None:
    """Say what KFP knows of a study: its latest run, and what is wrong with it. Without KFP, that it was not asked."""
    from rlhpo_core.kubeflow import diagnosis
    from rlhpo_core.kubeflow.connection import Server

    try:
        kfp = Server.of()
        found = _of_store(kfp, store)
        troubles = [] if not found or found[0].succeeded else diagnosis.troubles(kfp, found[0].id, artifacts)
    except UserError as error:
        console.print(f"run        KFP was not asked: {escape(str(error).splitlines()[0])}", soft_wrap=True)
        return
    if not found:
        console.print("run        none among the latest in KFP")
        return
    created = "" if found[0].created is None else f", of {found[0].created:%Y-%m-%d %H:%M} UTC"
    console.print(f"run        {found[0].id} {found[0].state}{created}", soft_wrap=True)
    for trouble in troubles:
        console.print(escape(str(trouble)), soft_wrap=True)


def _of_store(server: Server, store: str) -> list[RunInfo]:
    """Among the latest, the newest first."""
    from rlhpo_core.kubeflow import client

    return [run for run in client.runs(server, limit=_LATEST) if run.store.rstrip("/") == store.rstrip("/")]


def _schedule(run: RunInfo, names: dict[str, str]) -> str:
    """Name of the schedule that has started a run; its id if the schedule is gone."""
    return names.get(run.schedule_id, run.schedule_id) if run.schedule_id is not None else ""
