"""The command line's part for a cluster: ``rlhpo submit | schedule | runs``."""

from __future__ import annotations

import importlib
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from rlhpo_core.errors import UserError
from rlhpo_core.study.spec import PRIOR_FILE, StudySpec, dump_study, load_study

# KFP is slow to import, too: only the commands do.
if TYPE_CHECKING:
    from rlhpo_core.kubeflow.client import PipelineVersion
    from rlhpo_core.kubeflow.connection import Server

console = Console(highlight=False)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="What to tune.")]
Store = Annotated[
    str, typer.Option(metavar="URI", help="Where the study's files live, such as s3://bucket/studies/NAME.")
]
Table = Annotated[
    str, typer.Option("--table", metavar="URI", help="The table for the pods to read; default: data.path of the study.")
]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds in one run; the next run goes on from there.")]
Version = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Keep the pipeline on the server as this version, and run that."),
]
Image = Annotated[str | None, typer.Option(help="The image of all steps; default: that of this version.")]
Host = Annotated[str | None, typer.Option(help="KFP's API server; default: KFP_API_HOST, else that of the cluster.")]
Namespace = Annotated[str | None, typer.Option(help="The profile's namespace; default: RLHPO_KFP_NAMESPACE.")]
Token = Annotated[str | None, typer.Option(help="Default: RLHPO_KFP_TOKEN, else the service account's token.")]
CaCert = Annotated[Path | None, typer.Option(help="Certificate of the server's authority, if it is not a public one.")]
Experiment = Annotated[str, typer.Option(help="KFP experiment of the run.")]
Account = Annotated[str | None, typer.Option(help="Service account of the pods.")]
Retune = Annotated[bool, typer.Option("--retune", help="Retune the deployed model, as `rlhpo retune` does.")]

#: The pipelines' names on the server.
PIPELINE, RETUNE = "rlhpo-hpo-loop", "rlhpo-retune"


def submit(
    study: StudyFile,
    store: Store,
    table: Table = "",
    rounds: Rounds = 10,
    image: Image = None,
    go_on: Annotated[
        bool, typer.Option("--continue/--no-continue", help="Whether runs send the next one while budget is left.")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for this run's end, and fail if it failed.")] = False,
    pipeline_version: Version = None,
    host: Host = None,
    namespace: Namespace = None,
    token: Token = None,
    ca_cert: CaCert = None,
    experiment: Experiment = "rlhpo",
    service_account: Account = None,
    retune: Retune = False,
) -> None:
    """Run a study on a cluster, as runs of some rounds each: the last step of a run sends the next one.

    A run that fails sends none; submitted again with the same store, the study goes on where it was. With `--retune` it
    is one run: look whether the data is new, tune from what is known, let the gate decide; the store is then the place
    of the model.

    The pods read the table themselves: give it an address that they can reach. Credentials are not part of a run;
    they come from the secrets that docs/operations.md names.
    """
    from rlhpo_core.kubeflow import client
    from rlhpo_core.kubeflow.next_run import FURTHER

    spec = load_study(study)
    server = _server(host, namespace, token, ca_cert)
    with tempfile.TemporaryDirectory() as folder:
        package = _package(server, _compile(spec, rounds, Path(folder), retune), pipeline_version, retune)
        parameters, further = _parameters(spec, store, table, image), 0
        if not retune:
            further = math.ceil(_rounds(spec) / rounds) - 1 if go_on else 0
            parameters[FURTHER] = further
        run = client.submit(server, package, spec.name, parameters, experiment, service_account=service_account)
    console.print(f"run {run.id}  {escape(run.url or '')}".rstrip(), soft_wrap=True)
    if further:
        console.print(f"up to {further} more follow by themselves; `rlhpo runs` lists them")
    if wait:
        ended = client.wait(server, run.id, on_state=lambda state: console.print(f"{state.name}: {state.state}"))
        if not ended.succeeded:
            raise UserError(f"run {ended.id} ended as {ended.state}: {ended.error or 'its page says why'}")


def schedule(
    study: StudyFile,
    store: Store,
    cron: Annotated[str, typer.Option(help="Six fields, seconds first: '0 0 3 * * 1' is Mondays at three.")],
    table: Table = "",
    rounds: Rounds = 10,
    image: Image = None,
    pipeline_version: Version = None,
    host: Host = None,
    namespace: Namespace = None,
    token: Token = None,
    ca_cert: CaCert = None,
    experiment: Experiment = "rlhpo",
    service_account: Account = None,
    retune: Retune = False,
) -> None:
    """Run a chunk of a study again and again; replaces the schedule of the same name.

    One run at a time, and none to make up for those that were missed. Runs of a schedule send no others. With
    `--retune` each run looks whether the data is new, tunes from what is known, and lets the gate decide; the store is
    then the place of the model.
    """
    from rlhpo_core.kubeflow import client

    spec = load_study(study)
    server = _server(host, namespace, token, ca_cert)
    with tempfile.TemporaryDirectory() as folder:
        made = client.schedule(
            server,
            _package(server, _compile(spec, rounds, Path(folder), retune), pipeline_version, retune),
            f"{spec.name}-retune" if retune else spec.name,
            _parameters(spec, store, table, image),
            experiment,
            service_account=service_account,
            cron=cron,
        )
    console.print(f"schedule {made.name}: {made.cron}  {escape(made.url or '')}".rstrip(), soft_wrap=True)


def runs(
    host: Host = None,
    namespace: Namespace = None,
    token: Token = None,
    ca_cert: CaCert = None,
    experiment: Annotated[str | None, typer.Option(help="Only of this KFP experiment.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
) -> None:
    """List the latest runs on a cluster."""
    from rlhpo_core.kubeflow import client

    found = client.runs(_server(host, namespace, token, ca_cert), experiment, limit)
    grid = Grid("run", "name", "state", "created", box=None, header_style="bold")
    for run in found:
        created = "" if run.created is None else f"{run.created:%Y-%m-%d %H:%M}"
        grid.add_row(run.id, escape(run.name), run.state, created)
    console.print(grid if found else "no runs")


def _server(host: str | None, namespace: str | None, token: str | None, ca_cert: Path | None) -> Server:
    from rlhpo_core.kubeflow.connection import Server

    return Server.of(host, namespace, token, ca_cert=ca_cert)


def _compile(spec: StudySpec, rounds: int, folder: Path, retune: bool = False) -> Path:
    """The pipeline of a chunk, no longer than the study; or that of a retuning, which holds the whole of it."""
    from kfp import compiler

    from rlhpo_core.cli.local_pipeline import pipeline_module

    pipeline, least = pipeline_module(), _rounds(spec)
    if retune:
        if spec.registry.model is None:
            raise UserError("registry.model: a retuning needs the name of the registered model that it is about")
        if least > pipeline.MOST_ROUNDS:
            raise UserError(
                f"budget.trials: a retuning is one run of at most {pipeline.MOST_ROUNDS} rounds; these are {least}"
            )
        pipeline = importlib.import_module("pipelines.retune.pipeline")
    elif (least := min(rounds, least)) > pipeline.MOST_ROUNDS:
        raise UserError(f"--rounds: a run holds at most {pipeline.MOST_ROUNDS}; submit the study several times")
    path = folder / "pipeline.yaml"
    parallelism = spec.execution.workers or 0
    compiler.Compiler().compile(
        pipeline.build(least, spec.tuner.trials_per_round, parallelism, spec.execution.device == "cuda"), str(path)
    )
    return path


def _rounds(spec: StudySpec) -> int:
    """Of the whole study."""
    return math.ceil(spec.budget.trials / spec.tuner.trials_per_round)


def _package(server: Server, path: Path, version: str | None, retune: bool) -> Path | PipelineVersion:
    """What is run: the package, or the version of the pipeline that it becomes."""
    from rlhpo_core.kubeflow import client

    return path if version is None else client.upload(server, path, RETUNE if retune else PIPELINE, version)


def _parameters(spec: StudySpec, store: str, table: str, image: str | None) -> dict[str, Any]:
    if spec.prior.endswith(PRIOR_FILE) and "://" not in spec.prior:
        raise UserError(
            f"prior: the pods cannot read {spec.prior}; put it where they can (s3://bucket/NAME{PRIOR_FILE}), or "
            "register it (`rlhpo prior register`) and name it as models:/NAME@ALIAS"
        )
    parameters: dict[str, Any] = {"study": dump_study(spec), "store": store, "table_source": table}
    return parameters if image is None else {**parameters, "image": image}
