"""The command line's part for models in production: ``rlhpo retune | promote | rollback | audit``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table as Grid

from rlhpo_core.cli.options import (
    INTERRUPTED,
    RUNS,
    EngineOption,
    Out,
    StudyTracking,
    Tracking,
    Trials,
    Workers,
    console,
    errors,
    overrides,
    tracking,
)
from rlhpo_core.errors import UserError
from rlhpo_core.execution.engines import Engine

# What is slow to import is imported by the command that needs it, as in main.
if TYPE_CHECKING:
    from rlhpo_core.production.ledger import Record
    from rlhpo_core.production.registered_model import RegisteredModel

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="Names the registered model that it is about.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the registered model.")]
ModelStore = Annotated[
    str | None, typer.Option(metavar="URI", help="As registry.store in the study file. Default: runs/registry.")
]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]


def retune(
    study: StudyFile,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The current data; default: data.path of the study.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Tune even if nothing has changed.")] = False,
    trials: Trials = None,
    workers: Workers = None,
    tracking_uri: StudyTracking = None,
    out: Out = None,
    engine: EngineOption = Engine.INPROCESS,
) -> None:
    """Tune a deployed model anew if its data has changed, and promote the winner only if it is surely better.

    Starts from what earlier studies of the model have learnt, with the champion's configuration first. The winner and
    the champion then answer the same holdout rows, which neither has seen. Nothing to do, and a champion that stays,
    are normal ends (exit code 0). Made to be run by cron.
    """
    changed = overrides(trials=trials, workers=workers, tracking_uri=tracking_uri, table=table)
    from rlhpo_core.study.spec import load_study

    spec = load_study(study, changed)
    from rlhpo_core.cli import session

    retuned = session.retune(spec, out or RUNS / spec.name, console, engine, force, numbered=out is None)
    if retuned.result is None:
        console.print(escape(retuned.findings.reason))
        return
    folder = escape(str(retuned.result.folder.path))
    if not retuned.result.finished:
        console.print(f"\ninterrupted, and nothing is decided; run it again to start anew, or see {folder}")
        raise typer.Exit(INTERRUPTED)
    if retuned.record is None:
        raise UserError(f"the winner was not registered, so nothing is decided; see {folder}")
    console.print(f"\n[bold]{retuned.record.outcome}[/]: {escape(retuned.record.reason)}")
    console.print(f"champion   {escape(spec.registry.model or '')} version {retuned.record.champion}")
    console.print(f"report     {folder}/report.html")
    console.print(f"MLflow     {escape(retuned.result.page)}", soft_wrap=True)


def promote(
    model: ModelName,
    reason: Reason,
    version: Annotated[str | None, typer.Option(help="Default: the challenger.")] = None,
    store: ModelStore = None,
    tracking_uri: Tracking = None,
) -> None:
    """Make a version champion by hand, past the gate. The audit log keeps who did so and why."""
    from rlhpo_core.production import promotion
    from rlhpo_core.retries import BRIEFLY, patiently

    registered = _registered_model(model, store, tracking_uri)
    with patiently(BRIEFLY), registered.connection.open(timeout=60):
        record = promotion.promote(registered.client, registered.ledger, version, reason)
    _print_champion(record)


def rollback(
    model: ModelName,
    reason: Reason = "by hand",
    store: ModelStore = None,
    tracking_uri: Tracking = None,
) -> None:
    """Make the previous champion champion again. What served by the alias `champion` serves it at its next load."""
    from rlhpo_core.production import promotion
    from rlhpo_core.retries import BRIEFLY, patiently

    registered = _registered_model(model, store, tracking_uri)
    with patiently(BRIEFLY), registered.connection.open(timeout=60):
        record = promotion.rollback(registered.client, registered.ledger, reason)
    _print_champion(record)


def audit(
    model: ModelName,
    store: ModelStore = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line, with all there is.")] = False,
    tracking_uri: Tracking = None,
) -> None:
    """Show what has happened to a model, the oldest first.

    A promotion that was recorded by a process that died before it moved the alias is carried out.
    """
    from rlhpo_core.production.ledger import Ledger

    if tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or (RUNS / "mlflow.db").exists():
        _settle(model, store, tracking_uri)
    records = Ledger.of(model, store).records()
    if as_json:
        for record in records:
            typer.echo(record.model_dump_json())
        return
    if not records:
        raise UserError(f"there is no record of {model!r}; name the place with --store if it is not runs/registry")
    grid = Grid("", "when (UTC)", "outcome", "champion", "challenger", "by", "reason", box=None, header_style="bold")
    for record in records:
        moment = time.strftime("%Y-%m-%d %H:%M", time.gmtime(record.at))
        champion = record.champion or "–"
        if record.moves and record.champion_before is not None:
            champion = f"{record.champion_before} → {record.champion}"
        facts = (record.challenger or "–", record.by, record.reason)
        grid.add_row(*map(escape, (str(record.number), moment, record.outcome, champion, *facts)))
    console.print(grid)


def _settle(name: str, store: str | None, tracking_uri: str | None) -> None:
    """Have the registry follow the log. The log can be shown without: what hinders it is said, and not raised."""
    from rlhpo_core.production import promotion

    try:
        registered = _registered_model(name, store, tracking_uri)
        with registered.connection.open(timeout=60):
            promotion.settle(registered.client, registered.ledger, patience=0)
    except UserError as error:
        errors.print(f"the registry may not follow this log yet: {error}", markup=False, soft_wrap=True)


def _registered_model(name: str, store: str | None, tracking_uri: str | None) -> RegisteredModel:
    from rlhpo_core.production.registered_model import RegisteredModel

    return RegisteredModel.open(name, tracking(tracking_uri), store, RUNS.resolve())


def _print_champion(record: Record) -> None:
    before = f", before that version {record.champion_before}" if record.champion_before is not None else ""
    console.print(f"{escape(record.model)}: the champion is version {record.champion}{before}")
