"""The command line: ``rlhpo tune | resume | status | report | init``, and the commands of ``production``, ``cluster``
and ``prior``.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from rlhpo_core import __version__
from rlhpo_core.cli import prior as cli_prior
from rlhpo_core.cli import production as cli_production
from rlhpo_core.cli import studies
from rlhpo_core.cli.cluster import commands as cli_cluster
from rlhpo_core.cli.cluster import runs as cli_cluster_runs
from rlhpo_core.cli.options import (
    INTERRUPTED,
    RUNS,
    EngineOption,
    Folder,
    Force,
    Out,
    StudyFile,
    StudyTracking,
    Trials,
    Workers,
    check_free_or,
    console,
    errors,
    occupied,
    overrides,
    print_what_can_be_printed,
    write_file,
)
from rlhpo_core.cli.phases import Phases
from rlhpo_core.errors import UserError
from rlhpo_core.execution.engines import Engine
from rlhpo_core.kubeflow import pod_settings

# What is slow to import (torch, MLflow, XGBoost, and pydantic with NumPy) is imported by the command that needs it:
# `--help` should not wait for it, nor should trial workers, each of which imports this module again.
if TYPE_CHECKING:
    from rlhpo_core.cli.session import Result
    from rlhpo_core.study.spec import StudySpec

app = typer.Typer(
    help="Tune hyperparameters with few real trainings, by model-based reinforcement learning.\n\n"
    "Start with `rlhpo init --data TABLE.csv --target COLUMN`, which writes a study file with comments, then "
    "`rlhpo tune STUDY.yaml`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of rlhpo itself."""


@app.command()
def tune(
    study: StudyFile,
    out: Out = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Overrides the study's seed.")] = None,
    trials: Trials = None,
    workers: Workers = None,
    tracking_uri: StudyTracking = None,
    engine: EngineOption = Engine.INPROCESS,
) -> None:
    """Run a new study: tune, refit the best configuration, score it on the holdout, register it.

    Trials run in processes of their own and appear in MLflow as they end. **Ctrl-C** finishes the trials at hand and
    stops; `rlhpo resume` goes on from there, also after a crash or a power cut, with the very trials that an
    uninterrupted study would have had. On one kind of machine the same seed gives the same trials.

    Without a tracking URI (here, in the study file or in `MLFLOW_TRACKING_URI`) MLflow uses a database beside the
    study's folder.
    """
    from rlhpo_core.cli.check import prepared
    from rlhpo_core.storage.tables import at_hand
    from rlhpo_core.study.spec import load_study

    spec, phases = load_study(study, overrides(seed, trials, workers, tracking_uri)), Phases(console)
    place, numbered = out or RUNS / spec.name, out is None
    with ExitStack() as fetched:
        with phases.phase("reading the data"):
            local = fetched.enter_context(at_hand(spec))
            evaluator = prepared(local)
        # What is wrong with a study is said before torch is imported.
        from rlhpo_core.cli import session

        result = session.start(
            spec, place, console, engine, numbered=numbered, evaluator=evaluator, phases=phases, local=local
        )
    _conclude(result, spec)


@app.command()
def check(
    study: StudyFile,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no server: neither MLflow nor S3.")] = False,
) -> None:
    """Say all that is wrong with a study at once, without running anything.

    Its fields and their values, the space, whether the data can be read, the evaluator be imported, and whether store,
    registry and MLflow can be used. The exit code is 1 if something is wrong.
    """
    from rlhpo_core.cli.check import check_study

    with console.status("looking"):
        found = check_study(study, offline)
    for line in found.fine:
        console.print(Text.assemble(("✓ ", "green"), line), soft_wrap=True)
    for line in found.skipped:
        console.print(Text.assemble(("– ", "yellow"), line), soft_wrap=True)
    for line in found.wrong:
        errors.print(Text.assemble(("✗ ", "bold red"), line), soft_wrap=True)
    if found.wrong:
        count = len(found.wrong)
        errors.print(f"{count} {'thing is' if count == 1 else 'things are'} wrong; docs/guide.md describes each field")
        raise typer.Exit(1)
    console.print(f"nothing is wrong; next: rlhpo tune {escape(str(study))}")


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there, instead of printing it.")] = None,
) -> None:
    """Print the study file's JSON Schema, by which editors complete and check it.

    An editor with a YAML language server takes it from the first line of a study file:
    `# yaml-language-server: $schema=rlhpo.schema.json`. `rlhpo init` writes both.
    """
    from rlhpo_core.cli.check import schema_text

    if out is None:
        typer.echo(schema_text(), nl=False)
    else:
        write_file(out, schema_text().encode(), force=True)
        console.print(f"wrote {escape(str(out))}")


@app.command()
def resume(
    folder: Folder, trials: Trials = None, workers: Workers = None, engine: EngineOption = Engine.INPROCESS
) -> None:
    """Go on with a study that was interrupted, killed, or cut off from MLflow.

    With `--trials` above what it had, a finished study goes on, too. Nothing is trained or logged twice.
    """
    from rlhpo_core.storage.study_folder import StudyFolder
    from rlhpo_core.study.spec import load_study

    opened = StudyFolder.open(folder)
    spec = load_study(opened.study_file, overrides(trials=trials, workers=workers))
    if trials is not None or workers is not None:
        if (why := opened.busy()) is not None:
            raise UserError(why)
        opened.write_spec(spec)
    from rlhpo_core.cli import session

    _conclude(session.resume(folder, console, engine), spec)


@app.command()
def status(
    place: Annotated[
        str,
        typer.Argument(metavar="[FOLDER|STORE]", help="A study, a folder of studies, or the address of a store."),
    ] = str(RUNS),
    artifacts: cli_cluster_runs.Artifacts = None,
) -> None:
    """Show how far studies are, and the best that they have found.

    Of a study on a cluster (`rlhpo status s3://…`), also what its latest run does, or why it failed.
    """
    if "://" in place:
        studies.show_store(place)
        cli_cluster_runs.print_runs_of(place, artifacts)
    else:
        studies.show(Path(place))


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER…", help="The study's folder, such as runs/NAME; several to compare.")
    ],
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write the page with charts to point at and to zoom into there."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the trials as a table there.")
    ] = None,
) -> None:
    """Write the study's report, with its pictures, as one HTML page that needs no network.

    Of several studies of one objective, print what each has found and spent; `--html` writes that with their curves.
    """
    from rlhpo_core.storage.study_folder import StudyFolder

    opened = [StudyFolder.open(folder) for folder in folders]
    if len(opened) > 1:
        studies.compare(opened, html, csv)
        return
    from rlhpo_core.cli import session

    study = opened[0]
    with console.status("drawing"):
        path = session.write_report(study, study.spec(), html)
    console.print(f"report: {escape(str(path))}")
    if csv is not None:
        from rlhpo_core.report.trials_csv import trials_csv

        check_free_or(csv, "trial,round,status", "table of trials")
        write_file(csv, trials_csv(study.spec(), study.history()).encode(), force=True)
        console.print(f"trials: {escape(str(csv))}")


@app.command()
def examples(
    out: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to put them.")] = Path("examples"),
) -> None:
    """Copy the examples that come with rlhpo, with their data, into a folder of yours."""
    from rlhpo_core.cli.checkout import copy_examples

    for study in copy_examples(out):
        console.print(f"{escape(str(study))}  {escape(study.read_text(encoding='utf-8').splitlines()[0].lstrip('# '))}")
    console.print(f"next: rlhpo tune {escape(str(out))}/01-first-study.yaml")


@app.command()
def ui(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="A study, or a folder of studies with its MLflow database.")
    ] = RUNS,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the pages, on this machine.")] = 5000,
    show: Annotated[bool, typer.Option("--print", help="Print the addresses, and start nothing.")] = False,
) -> None:
    """Open MLflow on studies of this machine: print the address of each study's page, then serve the pages.

    Ctrl-C ends it. Of studies that are logged to a server the addresses are printed alone.
    """
    from rlhpo_core.cli.pages import pages_of, serve

    found = pages_of(folder, port)
    for name, address in found.addresses.items():
        console.print(f"{escape(name)}  {escape(address)}", soft_wrap=True)
    if not show and found.database is not None:
        serve(found.database, port)


@app.command()
def init(
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Your table (CSV, Parquet, NPZ, or a folder of Parquet parts), or images (a folder of class folders, "
            "Parquet or NPZ); a path, or `s3://…`.",
        ),
    ],
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to predict.")] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column that is not to be used; may be repeated.")
    ] = None,
    sep: Annotated[str | None, typer.Option(help="Between the fields of a CSV file; recognised if not given.")] = None,
    decimal: Annotated[str | None, typer.Option(help="Before decimals: . or , ; recognised if not given.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a CSV file; recognised if not given.")] = None,
    space: Annotated[str | None, typer.Option(help="A space that comes with rlhpo, such as xgboost-wide.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The study file to write.")] = Path("study.yaml"),
    force: Force = False,
) -> None:
    """Write a study file, with comments, for a table or images of your own.

    The data is read and checked; task and metric follow from its target. The file says of each column what it was taken
    for. It is also written if something has to be mended first: all that is wrong is said at once, and the exit code is
    1 then.
    """
    from pydantic import ValidationError

    from rlhpo_core.cli.check import SCHEMA, schema_text
    from rlhpo_core.cli.study_template import study_file
    from rlhpo_core.errors import describe
    from rlhpo_core.storage.tables import fetched
    from rlhpo_core.study.spec import DataSpec

    if out.exists() and not force:
        raise occupied(out)
    given = {"target": target, "drop": drop, "separator": sep, "decimal": decimal, "encoding": encoding}
    named = {name: value for name, value in given.items() if value is not None}
    try:
        spec = DataSpec.model_validate({"path": data, **named})
    except ValidationError as error:
        raise UserError(describe(error)) from error
    if spec.address is None:
        first = study_file(spec, out.parent, space)
    else:
        with fetched(spec.address) as path:
            first = study_file(spec.model_copy(update={"path": path}), out.parent, space, spec.address)
    write_file(out, first.text.encode(), force)
    write_file(out.parent / SCHEMA, schema_text().encode(), force=True)
    console.print(escape(first.summary), soft_wrap=True)
    then = "mend in it what follows" if first.problems else "read it over"
    console.print(f"wrote {escape(str(out))}; {then}, then: rlhpo tune {escape(str(out))}")
    if first.problems:
        raise UserError("\n".join(first.problems))


app.command()(cli_production.retune)
app.command()(cli_production.promote)
app.command()(cli_production.rollback)
app.command()(cli_production.audit)
app.command()(cli_cluster.submit)
app.command()(cli_cluster.schedule)
app.command()(cli_cluster.unschedule)
app.command("compile")(cli_cluster.compile_pipeline)
app.command()(cli_cluster_runs.runs)
app.command()(cli_cluster_runs.logs)
app.command()(cli_cluster_runs.stop)
app.add_typer(cli_prior.app, name="prior")


def main() -> None:
    """Run the command line; what the user can mend is printed without a traceback.

    In a pod, such as that of a job that submits runs, the mounted settings hold as they do for steps.
    """
    print_what_can_be_printed()
    try:
        with pod_settings.mounted():
            # Not by itself: Typer would fold what is wrong with the command line into a box of 80 columns.
            code = app(standalone_mode=False)
        if isinstance(code, int) and code:
            sys.exit(code)
    except UserError as error:
        errors.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        # All is written. To take modules apart takes many seconds on a busy machine, and a pod has few left.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    except Exception as error:
        if _interrupted(error):
            sys.exit(INTERRUPTED)
        # Typer has a Click of its own; what all errors of use have in common there is this method.
        if not hasattr(error, "format_message"):
            raise
        _print_misuse(error)
        sys.exit(2)


#: Typer's words for values that do not fit an option, and ours.
_OPTION_WORDS = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer.*", "this is not a whole number"),
    (r"Input should be a valid number.*", "this is not a number"),
    (r"Input should be greater than or equal to (\S+)", r"it must be at least \1"),
    (r"Input should be (.*)", r"it must be \1"),
)


def _print_misuse(error: Any) -> None:
    """What is wrong with the command line, and where its help is; without a command, the help itself."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return  # It has been shown.
    message = str(error.format_message())
    for theirs, ours in _OPTION_WORDS:
        message = re.sub(theirs, ours, message)
    command = context.command_path if context is not None else "rlhpo"
    errors.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    errors.print(f"`{command} --help` shows what may stand there", markup=False)


def _interrupted(error: BaseException | None) -> bool:
    """Whether an error comes of Ctrl-C: it may come between any two instructions of a library that puts things away."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _conclude(result: Result, spec: StudySpec) -> None:
    """Say what was found and what to do next. Raises: typer.Exit if the study is not through."""
    folder = escape(str(result.folder.path))
    console.print(Text(f"\n{result.reason}", style="bold"))
    if result.best is not None:
        studies.print_best(result.folder, spec)
    if result.finished:
        console.print(f"report     {folder}/report.html")
    console.print(f"MLflow     {escape(result.page)}", soft_wrap=True)
    if result.times:
        console.print(f"time       {escape(result.times)}", soft_wrap=True)
    if not result.finished:
        console.print(f"\ninterrupted; go on with: [bold]rlhpo resume {folder}[/]")
        raise typer.Exit(INTERRUPTED)
    if not result.logged:
        console.print(f"\nMLflow misses a part; when it is back: [bold]rlhpo resume {folder}[/]")
        raise typer.Exit(1)
