"""The command line's part for models in production: ``rlhpo retune | promote | rollback | audit``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from rlhpo_core.atomic_files import free_path
from rlhpo_core.errors import UserError
from rlhpo_core.execution.resources import Engine
from rlhpo_core.study.spec import TrackingSpec, load_study

# What is slow to import is imported by the command that needs it, as in cli.
if TYPE_CHECKING:
    from rlhpo_core.production.ledger import Record
    from rlhpo_core.production.registered_model import Desk

INTERRUPTED = 130
RUNS = Path("runs")
console = Console(highlight=False)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="Names the registered model that it is about.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the registered model.")]
Store = Annotated[
    str | None, typer.Option(metavar="URI", help="As registry.store in the study file. Default: runs/registry.")
]
TrackingUri = Annotated[str | None, typer.Option(metavar="URI", help="MLflow. Default: as for `rlhpo tune`.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]


def retune(
    study: StudyFile,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The current data; default: data.path of the study.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Tune even if nothing has changed.")] = False,
    trials: Annotated[int | None, typer.Option(min=1, help="Overrides budget.trials.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Overrides execution.workers.")] = None,
    tracking_uri: TrackingUri = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to keep the study. Default: runs/NAME, runs/NAME-2, …")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="What runs the loop, as for `rlhpo tune`.")] = Engine.INPROCESS,
) -> None:
    """Tune a deployed model anew if its data has changed, and promote the winner only if it is surely better.

    Starts from what earlier studies of the model have learnt, with the champion's configuration first. The winner and
    the champion then answer the same holdout rows, which neither has seen. Nothing to do, and a champion that stays,
    are normal ends (exit code 0). Made to be run by cron.
    """
    given: dict[str, Any] = {
        "data": None if table is None else {"path": str(table.resolve())},
        "budget": None if trials is None else {"trials": trials},
        "execution": None if workers is None else {"workers": workers},
        "tracking": None if tracking_uri is None else {"uri": tracking_uri},
    }
    spec = load_study(study, {name: value for name, value in given.items() if value is not None})
    from rlhpo_core.cli import session

    found = session.retune(spec, out or free_path(RUNS / spec.name), console, engine, force)
    if found.result is None:
        console.print(escape(found.look.reason))
        return
    folder = escape(str(found.result.folder.path))
    if not found.result.finished:
        console.print(f"\ninterrupted, and nothing is decided; run it again to start anew, or see {folder}")
        raise typer.Exit(INTERRUPTED)
    if found.record is None:
        raise UserError(f"the winner was not registered, so nothing is decided; see {folder}")
    console.print(f"\n[bold]{found.record.event}[/]: {escape(found.record.reason)}")
    console.print(f"champion   {escape(spec.registry.model or '')} version {found.record.champion}")
    console.print(f"report     {folder}/report.html")
    console.print(f"MLflow     {escape(found.result.page)}", soft_wrap=True)


def promote(
    model: ModelName,
    reason: Reason,
    version: Annotated[str | None, typer.Option(help="Default: the challenger.")] = None,
    store: Store = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make a version champion by hand, past the gate. The audit log keeps who did so and why."""
    from rlhpo_core.production import promotion

    desk = _desk(model, store, tracking_uri)
    with desk.connection.open(timeout=60, retries=2):
        record = promotion.promote(desk.client, desk.ledger, version, reason)
    _print_champion(record)


def rollback(
    model: ModelName,
    reason: Reason = "by hand",
    store: Store = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make the previous champion champion again. What served by the alias `champion` serves it at its next load."""
    from rlhpo_core.production import promotion

    desk = _desk(model, store, tracking_uri)
    with desk.connection.open(timeout=60, retries=2):
        record = promotion.rollback(desk.client, desk.ledger, reason)
    _print_champion(record)


def audit(
    model: ModelName,
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line, with all there is.")] = False,
) -> None:
    """Show what has happened to a model, the oldest first."""
    from rlhpo_core.production.ledger import Ledger

    records = Ledger.of(model, store).records()
    if as_json:
        for record in records:
            typer.echo(record.model_dump_json())
        return
    if not records:
        raise UserError(f"there is no record of {model!r}; name the place with --store if it is not runs/registry")
    grid = Grid("", "when (UTC)", "event", "champion", "challenger", "by", "reason", box=None, header_style="bold")
    for record in records:
        moment = time.strftime("%Y-%m-%d %H:%M", time.gmtime(record.at))
        champion = record.champion or "–"
        if record.moves and record.champion_before is not None:
            champion = f"{record.champion_before} → {record.champion}"
        cells = (str(record.number), moment, record.event, champion, record.challenger or "–", record.by, record.reason)
        grid.add_row(*map(escape, cells))
    console.print(grid)


def _desk(model: str, store: str | None, tracking_uri: str | None) -> Desk:
    from rlhpo_core.production.registered_model import Desk

    return Desk.of(model, TrackingSpec(uri=tracking_uri), store, RUNS.resolve())


def _print_champion(record: Record) -> None:
    before = f", before that version {record.champion_before}" if record.champion_before is not None else ""
    console.print(f"{escape(record.model)}: the champion is version {record.champion}{before}")
