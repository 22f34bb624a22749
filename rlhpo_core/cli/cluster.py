"""The command line's part for a cluster: ``rlhpo submit | schedule | runs``."""

from __future__ import annotations

import importlib
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from rlhpo_core.cli.options import ServerOptions, StudyFile, console, grouped
from rlhpo_core.errors import UserError
from rlhpo_core.execution.resources import Steps
from rlhpo_core.study.spec import PRIOR_FILE, StudySpec, load_study

# KFP is slow to import, too: only the commands do.
if TYPE_CHECKING:
    from rlhpo_core.kubeflow.client import PipelineVersion
    from rlhpo_core.kubeflow.connection import Server

#: The pipelines' names on the server.
PIPELINE, RETUNE = "rlhpo-hpo-loop", "rlhpo-retune"


@dataclass(frozen=True)
class RunOptions:
    """What a run on a cluster is made of, besides its study."""

    store: Annotated[
        str, typer.Option(metavar="URI", help="Where the study's files live, such as s3://bucket/studies/NAME.")
    ]
    table: Annotated[
        str,
        typer.Option("--table", metavar="URI", help="The table for the pods to read; default: data.path of the study."),
    ] = ""
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="what takes half of Argo's 1 MiB",
            help="Rounds in one run; the next run goes on from there.",
        ),
    ] = None
    steps: Annotated[
        Steps, typer.Option(help="Steps of a round: two that save time and pods, or five that show more. Same trials.")
    ] = Steps.COMPACT
    image: Annotated[str | None, typer.Option(help="The image of all steps; default: that of this version.")] = None
    pipeline_version: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep the pipeline on the server as this version, and run that."),
    ] = None
    experiment: Annotated[str, typer.Option(help="KFP experiment of the run.")] = "rlhpo"
    service_account: Annotated[str | None, typer.Option(help="Service account of the pods.")] = None
    retune: Annotated[bool, typer.Option("--retune", help="Retune the deployed model, as `rlhpo retune` does.")] = False


@grouped
def submit(
    study: StudyFile,
    run: RunOptions,
    server: ServerOptions,
    go_on: Annotated[
        bool, typer.Option("--continue/--no-continue", help="Whether runs send the next one while budget is left.")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for this run's end, and fail if it failed.")] = False,
) -> None:
    """Run a study on a cluster, as runs of some rounds each: the last step of a run sends the next one.

    A run that fails sends none; submitted again with the same store, the study goes on where it was. With `--retune` it
    is one run: look whether the data is new, tune from what is known, let the gate decide; the store is then the place
    of the model.

    The study file is put into the store, from where the pods read it, so this machine needs access to the store as
    well. The pods read the table themselves: give it an address that they can reach. Credentials are not part of a run;
    they come from the secrets that docs/operations.md names.
    """
    from rlhpo_core.kubeflow import client
    from rlhpo_core.kubeflow.next_run import FURTHER, put_study

    spec, kfp = load_study(study), server.server()
    with tempfile.TemporaryDirectory() as folder:
        package = _package(kfp, spec, run, Path(folder))
        parameters, further = _parameters(spec, run), 0
        put_study(run.store, spec)
        if not run.retune:
            further = math.ceil(_rounds(spec) / _rounds_of_run(spec, run)) - 1 if go_on else 0
            parameters[FURTHER] = further
        sent = client.submit(kfp, package, spec.name, parameters, run.experiment, service_account=run.service_account)
    console.print(f"run {sent.id}  {escape(sent.url or '')}".rstrip(), soft_wrap=True)
    if further:
        console.print(f"up to {further} more follow by themselves; `rlhpo runs` lists them")
    if wait:
        ended = client.wait(kfp, sent.id, on_state=lambda state: console.print(f"{state.name}: {state.state}"))
        if not ended.succeeded:
            raise UserError(f"run {ended.id} ended as {ended.state}: {ended.error or 'its page says why'}")


@grouped
def schedule(
    study: StudyFile,
    run: RunOptions,
    server: ServerOptions,
    cron: Annotated[str, typer.Option(help="Six fields, seconds first: '0 0 3 * * 1' is Mondays at three.")],
) -> None:
    """Run a chunk of a study again and again; replaces the schedule of the same name.

    One run at a time, and none to make up for those that were missed. Runs of a schedule send no others. With
    `--retune` each run looks whether the data is new, tunes from what is known, and lets the gate decide; the store is
    then the place of the model.
    """
    from rlhpo_core.kubeflow import client
    from rlhpo_core.kubeflow.next_run import put_study

    spec, kfp = load_study(study), server.server()
    with tempfile.TemporaryDirectory() as folder:
        package, parameters = _package(kfp, spec, run, Path(folder)), _parameters(spec, run)
        put_study(run.store, spec)
        made = client.schedule(
            kfp,
            package,
            f"{spec.name}-retune" if run.retune else spec.name,
            parameters,
            run.experiment,
            service_account=run.service_account,
            cron=cron,
        )
    console.print(f"schedule {made.name}: {made.cron}  {escape(made.url or '')}".rstrip(), soft_wrap=True)


@grouped
def runs(
    server: ServerOptions,
    experiment: Annotated[str | None, typer.Option(help="Only of this KFP experiment.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
) -> None:
    """List the latest runs on a cluster."""
    from rlhpo_core.kubeflow import client

    latest = client.runs(server.server(), experiment, limit)
    grid = Grid("run", "name", "state", "created", box=None, header_style="bold")
    for run in latest:
        created = "" if run.created is None else f"{run.created:%Y-%m-%d %H:%M}"
        grid.add_row(run.id, escape(run.name), run.state, created)
    console.print(grid if latest else "no runs")


def _package(server: Server, spec: StudySpec, run: RunOptions, folder: Path) -> Path | PipelineVersion:
    """What is run: a package compiled into the folder, or the version of the pipeline that it becomes."""
    from rlhpo_core.kubeflow import client

    path = _compile(spec, _rounds_of_run(spec, run), folder, run.retune, run.steps)
    if run.pipeline_version is None:
        return path
    return client.upload(server, path, RETUNE if run.retune else PIPELINE, run.pipeline_version)


def _compile(spec: StudySpec, rounds: int, folder: Path, retune: bool, steps: Steps) -> Path:
    """The pipeline of a run, with so many rounds. Raises: UserError if that is more than a run holds."""
    from kfp import compiler

    from rlhpo_core.cli.local_pipeline import pipeline_module

    pipeline = pipeline_module()
    most = min(pipeline.MOST_ROUNDS, _sizes().most_rounds(spec.tuner.trials_per_round, share=1.0, steps=steps))
    if retune:
        if spec.registry.model is None:
            raise UserError("registry.model: a retuning needs the name of the registered model that it is about")
        if rounds > most:
            raise UserError(f"budget.trials: a retuning is one run of at most {most} rounds; these are {rounds}")
        pipeline = importlib.import_module("pipelines.retune.pipeline")
    elif rounds > most:
        raise UserError(
            f"--rounds: a run holds at most {most} rounds of {spec.tuner.trials_per_round} trials, since Argo holds "
            "1 MiB of it; without --rounds, runs that fit follow each other"
        )
    path = folder / "pipeline.yaml"
    parallelism = spec.execution.workers or 0
    compiler.Compiler().compile(
        pipeline.build(rounds, spec.tuner.trials_per_round, parallelism, spec.execution.device == "cuda", steps=steps),
        str(path),
    )
    return path


def _rounds_of_run(spec: StudySpec, run: RunOptions) -> int:
    """As asked for, or as many as are planned for; no more than the study has. A retuning holds the whole of it.

    Raises: UserError if a round alone is more than Argo holds.
    """
    if run.retune:
        return _rounds(spec)
    planned = run.rounds or _sizes().most_rounds(spec.tuner.trials_per_round, steps=run.steps)
    if planned == 0:
        most = max(k for k in range(1, spec.tuner.trials_per_round) if _sizes().most_rounds(k, steps=run.steps))
        raise UserError(
            f"tuner.trials_per_round: a round of {spec.tuner.trials_per_round} trials takes more than half of the "
            f"1 MiB that Argo holds of a run; at most {most}, or --rounds 1"
        )
    return min(planned, _rounds(spec))


def _sizes() -> ModuleType:
    """`pipelines.workflow_size`, which is not in the wheel either."""
    from rlhpo_core.cli.local_pipeline import pipeline_module

    pipeline_module()
    return importlib.import_module("pipelines.workflow_size")


def _rounds(spec: StudySpec) -> int:
    """Of the whole study."""
    return math.ceil(spec.budget.trials / spec.tuner.trials_per_round)


def _parameters(spec: StudySpec, run: RunOptions) -> dict[str, Any]:
    """Those of the pipeline. Raises: UserError if the pods could not read the study's prior."""
    if spec.prior.endswith(PRIOR_FILE) and "://" not in spec.prior:
        raise UserError(
            f"prior: the pods cannot read {spec.prior}; put it where they can (s3://bucket/NAME{PRIOR_FILE}), or "
            "register it (`rlhpo prior register`) and name it as models:/NAME@ALIAS"
        )
    parameters: dict[str, Any] = {"store": run.store, "table_source": run.table}
    return parameters if run.image is None else {**parameters, "image": run.image}
