"""The command line's part for a cluster: ``rlhpo submit | schedule | unschedule | compile``."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rlhpo_core.addresses import PRIOR_FILE
from rlhpo_core.cli.checkout import pipelines_module
from rlhpo_core.cli.cluster.options import ClusterSettings, Settings, parsed_settings
from rlhpo_core.cli.cluster.runs import Artifacts, AsJson, Watch, as_data, failure
from rlhpo_core.cli.options import Force, ServerOptions, StudyFile, console, errors, grouped, seconds, write_file
from rlhpo_core.errors import UserError
from rlhpo_core.execution.engines import RunUnderWay, Steps

# KFP is slow to import, too: only the commands do.
if TYPE_CHECKING:
    from rlhpo_core.kubeflow.client import PipelineVersion
    from rlhpo_core.kubeflow.connection import Server
    from rlhpo_core.study.spec import StudySpec

UnderWayOption = Annotated[
    RunUnderWay | None,
    typer.Option(
        show_default="refuse",
        help="A run of the schedule that is to go: wait for its end, or stop it. KFP deletes it with the schedule.",
    ),
]

Rounds = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default="what takes half of Argo's 1 MiB",
        help="Rounds in one run; the next run goes on from there.",
    ),
]
StepsOption = Annotated[
    Steps, typer.Option("--steps", help="Two steps a round, which saves time and pods, or five that show more.")
]
Retune = Annotated[bool, typer.Option("--retune", help="Retune the deployed model, as `rlhpo retune` does.")]

_EVERY_TEN_MINUTES = "0 */10 * * * *"

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
    upload: Annotated[
        bool, typer.Option("--upload", help="Put data.path of the study into the store, for the pods to read it there.")
    ] = False
    rounds: Rounds = None
    steps: StepsOption = Steps.COMPACT
    image: Annotated[
        str | None,
        typer.Option(envvar="RLHPO_IMAGE", help="The image of all steps; default: that of this version."),
    ] = None
    settings: Settings = None
    pipeline_version: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep the pipeline on the server as this version, and run that."),
    ] = None
    experiment: Annotated[str, typer.Option(help="KFP experiment of the run.")] = "rlhpo"
    service_account: Annotated[str | None, typer.Option(help="Service account of the pods.")] = None
    retune: Retune = False


@grouped
def submit(
    study: StudyFile,
    run: RunOptions,
    server: ServerOptions,
    go_on: Annotated[
        bool, typer.Option("--continue/--no-continue", help="Whether runs send the next one while budget is left.")
    ] = True,
    supervise: Annotated[
        bool,
        typer.Option("--supervise", help="Have a recurring run look every ten minutes whether the study goes on."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for this run's end, and fail if it failed.")] = False,
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="Of --wait, such as 2h; the run goes on.")] = "7d",
    artifacts: Artifacts = None,
    as_json: AsJson = False,
) -> None:
    """Run a study on a cluster, as runs of some rounds each: the last step of a run sends the next one.

    A run that fails is followed as well; after three in a row without a new trial the study is given up, with an alert.
    Submitted again with the same store, it goes on where it was. `--supervise` also starts a study again whose run died
    before it could send another. With `--retune` it is one run: look whether the data is new, tune from what is known,
    let the gate decide; the store is then the place of the model.

    The study file is put into the store, from where the pods read it, so this machine needs access to the store as
    well. The pods read the table themselves: give it an address that they can reach. Credentials are not part of a run;
    they come from the secrets that docs/operations.md names.
    """
    from rlhpo_core.kubeflow import client, stopping
    from rlhpo_core.kubeflow.next_run import FURTHER, begin_chain, put_study

    if supervise and (run.retune or not go_on):
        raise UserError("--supervise: looks after a chain of runs; leave out --retune and --no-continue")
    given = parsed_settings(run.settings)
    from rlhpo_core.storage.object_store import open_store
    from rlhpo_core.storage.study_files import StudyFiles
    from rlhpo_core.study.spec import load_study

    spec, kfp, patience = load_study(study, given.overrides), server.server(), seconds(timeout, "--timeout")
    with tempfile.TemporaryDirectory() as folder:
        parameters, further = _parameters(spec, run, given), 0
        package = _package(kfp, spec, run, given, Path(folder))
        put_study(run.store, spec)
        files = StudyFiles(open_store(run.store))
        stopping.free_from_the_dead(kfp, files)
        if not run.retune:
            a_run = _rounds_of_run(spec, run.rounds, run.retune, run.steps)
            runs = math.ceil(_rounds(spec) / a_run)
            # As many again as the budget needs, since a run may fail in its middle.
            further, parameters[FURTHER] = (runs - 1, 2 * runs - 1) if go_on else (0, 0)
        sent = client.submit(kfp, package, spec.name, parameters, run.experiment, service_account=run.service_account)
    if not run.retune:
        begin_chain(files, sent.id)
    if supervise:
        _supervise(kfp, spec, run, given)
    told = errors if as_json else console
    if not as_json:
        console.print(f"run {sent.id}  {escape(sent.url or '')}".rstrip(), soft_wrap=True)
    if further:
        told.print(f"up to {further} more follow by themselves; `rlhpo runs` lists them")
    if wait:
        sent = client.wait(
            kfp,
            sent.id,
            timeout=patience,
            on_state=lambda state: told.print(f"{escape(state.name)}: {state.state}"),
            on_look=Watch.of(kfp, artifacts).look,
        )
    if as_json:
        typer.echo(json.dumps({**as_data(sent), "further_runs": further}))
    if sent.ended and not sent.succeeded:
        if not run.retune:
            stopping.after_death(files, sent.id, lambda line: errors.print(escape(line)))
        raise failure(kfp, sent, artifacts)


def _supervise(server: Server, spec: StudySpec, run: RunOptions, given: ClusterSettings) -> None:
    """Have a recurring run look after the study, in place of an earlier one of this name."""
    from kfp import compiler

    from rlhpo_core.kubeflow import schedules

    name = f"{spec.name}-supervisor"
    parameters = {
        "store": run.store,
        "schedule": name,
        **given.names,
        **({} if run.image is None else {"image": run.image}),
    }
    # It registers nothing.
    parameters.pop("registry_secret", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        built = pipelines_module("supervise.pipeline").build(spec.cluster, given.pull_secret)
        compiler.Compiler().compile(built, str(path))
        schedules.schedule(
            server,
            path,
            "rlhpo-supervise",
            name,
            parameters,
            run.experiment,
            service_account=run.service_account,
            cron=_EVERY_TEN_MINUTES,
            under_way=RunUnderWay.WAIT,
        )


@grouped
def schedule(
    study: StudyFile,
    run: RunOptions,
    server: ServerOptions,
    cron: Annotated[
        str,
        typer.Option(help="Six fields, seconds first, in KFP's time zone (UTC by default): '0 0 3 * * 1' is Mondays."),
    ],
    under_way: UnderWayOption = None,
) -> None:
    """Run a chunk of a study again and again; replaces the schedule of the same name.

    One run at a time, and none to make up for those that were missed. Runs of a schedule send no others. After three
    runs in a row that found the study finished, the schedule is paused, and an alert says so. With `--retune` each run
    looks whether the data is new, tunes from what is known, and lets the gate decide; the store is then the place of
    the model.
    """
    from rlhpo_core.kubeflow import schedules
    from rlhpo_core.kubeflow.next_run import put_study
    from rlhpo_core.study.spec import load_study

    given = parsed_settings(run.settings)
    spec, kfp = load_study(study, given.overrides), server.server()
    with tempfile.TemporaryDirectory() as folder:
        parameters = _parameters(spec, run, given)
        a_run = _rounds_of_run(spec, run.rounds, run.retune, run.steps)
        package = _compile(spec, a_run, Path(folder), run.retune, run.steps, given.pull_secret)
        put_study(run.store, spec)
        made = schedules.schedule(
            kfp,
            package,
            RETUNE if run.retune else PIPELINE,
            f"{spec.name}-retune" if run.retune else spec.name,
            parameters,
            run.experiment,
            service_account=run.service_account,
            cron=cron,
            version=run.pipeline_version,
            under_way=under_way,
            tell=lambda line: console.print(escape(line)),
        )
    console.print(f"schedule {made.name}: {made.cron} (UTC, unless KFP's time zone was set)  ", end="")
    console.print(escape(made.url or ""), soft_wrap=True)


@grouped
def unschedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the schedule: the study's, with -retune for those.")],
    server: ServerOptions,
    under_way: UnderWayOption = None,
) -> None:
    """Remove a schedule. Its runs stay."""
    from rlhpo_core.kubeflow import schedules

    schedules.unschedule(server.server(), name, under_way, lambda line: console.print(escape(line)))
    console.print(f"schedule {escape(name)} is removed")


@grouped
def compile_pipeline(
    study: StudyFile,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")] = Path("pipeline.yaml"),
    rounds: Rounds = None,
    steps: StepsOption = Steps.COMPACT,
    retune: Retune = False,
    settings: Settings = None,
    force: Force = False,
) -> None:
    """Compile the pipeline of a study into a file, to be uploaded in KFP's pages or by another tool.

    What the study's section `cluster` says, and `--set pull_secret=NAME`, is part of it; image, and names of secrets
    and of the config map, are parameters of its runs.
    """
    from rlhpo_core.study.spec import load_study

    given = parsed_settings(settings)
    spec = load_study(study, given.overrides)
    with tempfile.TemporaryDirectory() as folder:
        a_run = _rounds_of_run(spec, rounds, retune, steps)
        content = _compile(spec, a_run, Path(folder), retune, steps, given.pull_secret).read_bytes()
    write_file(out, content, force)
    console.print(f"wrote {escape(str(out))}", soft_wrap=True)


def _package(
    server: Server, spec: StudySpec, run: RunOptions, given: ClusterSettings, folder: Path
) -> Path | PipelineVersion:
    """What is run: a package compiled into the folder, or the version of the pipeline that it becomes."""
    from rlhpo_core.kubeflow import client

    rounds = _rounds_of_run(spec, run.rounds, run.retune, run.steps)
    path = _compile(spec, rounds, folder, run.retune, run.steps, given.pull_secret)
    if run.pipeline_version is None:
        return path
    return client.upload(server, path, RETUNE if run.retune else PIPELINE, run.pipeline_version)


def _compile(
    spec: StudySpec, rounds: int, folder: Path, retune: bool, steps: Steps, pull_secret: str | None = None
) -> Path:
    """The pipeline of a run, with so many rounds. Raises: UserError if that is more than a run holds."""
    from kfp import compiler

    tuning, sizes = pipelines_module("tuning"), pipelines_module("workflow_size")
    fitting = sizes.most_rounds(spec.tuner.trials_per_round, share=1.0, steps=steps, retuning=retune)
    most = min(tuning.MOST_ROUNDS, fitting)
    if retune:
        if spec.registry.model is None:
            raise UserError("registry.model: a retuning needs the name of the registered model that it is about")
        if rounds > most:
            raise UserError(f"budget.trials: a retuning is one run of at most {most} rounds; these are {rounds}")
    elif rounds > most:
        raise UserError(
            f"--rounds: a run holds at most {most} rounds of {spec.tuner.trials_per_round} trials, since Argo holds "
            "1 MiB of it; without --rounds, runs that fit follow each other"
        )
    path = folder / "pipeline.yaml"
    shape = tuning.Shape(
        rounds,
        spec.tuner.trials_per_round,
        parallelism=spec.execution.workers or 0,
        accelerator=spec.execution.device == "cuda",
        cluster=spec.cluster,
        pull_secret=pull_secret,
        steps=steps,
    )
    built = pipelines_module("retune.pipeline" if retune else "hpo_loop.pipeline").build(shape)
    compiler.Compiler().compile(built, str(path))
    return path


def _rounds_of_run(spec: StudySpec, wanted: int | None, retune: bool, steps: Steps) -> int:
    """As asked for, or as many as are planned for; no more than the study has. A retuning holds the whole of it.

    Raises: UserError if a round alone is more than Argo holds.
    """
    if retune:
        return _rounds(spec)
    most_rounds = pipelines_module("workflow_size").most_rounds
    planned = wanted or most_rounds(spec.tuner.trials_per_round, steps=steps)
    if planned == 0:
        most = max(k for k in range(1, spec.tuner.trials_per_round) if most_rounds(k, steps=steps))
        raise UserError(
            f"tuner.trials_per_round: a round of {spec.tuner.trials_per_round} trials takes more than half of the "
            f"1 MiB that Argo holds of a run; at most {most}, or --rounds 1"
        )
    return min(planned, _rounds(spec))


def _rounds(spec: StudySpec) -> int:
    """Of the whole study."""
    from rlhpo_core.study import rounds

    return rounds.count(spec.tuner, spec.budget.trials)


def _parameters(spec: StudySpec, run: RunOptions, given: ClusterSettings) -> dict[str, Any]:
    """Those of the pipeline. Raises: UserError if the pods could not read what the study or the options name."""
    for name, place in (("--store", run.store), ("registry.store", spec.registry.store)):
        if place is not None and not place.startswith("s3://"):
            raise UserError(
                f"{name}: the pods share no folder with this machine or with each other, so {place} is out of their "
                "reach; name a place in an object store, such as s3://bucket/studies/NAME"
            )
    if spec.warm_start is not None and spec.warm_start.study and not spec.warm_start.study.startswith("s3://"):
        raise UserError(f"warm_start: the pods cannot read {spec.warm_start.study}; name a study in s3://bucket/…")
    if spec.prior.endswith(PRIOR_FILE) and "://" not in spec.prior:
        raise UserError(
            f"prior: the pods cannot read {spec.prior}; put it where they can (s3://bucket/NAME{PRIOR_FILE}), or "
            "register it (`rlhpo prior register`) and name it as models:/NAME@ALIAS"
        )
    parameters: dict[str, Any] = {"store": run.store, "table_source": _table(spec, run)}
    return {**parameters, **given.names, **({} if run.image is None else {"image": run.image})}


def _table(spec: StudySpec, run: RunOptions) -> str:
    """Where the pods read the table; empty if the study has none.

    Raises: UserError if they could not, or if it cannot be put where they can.
    """
    if spec.data is None:
        return run.table
    if run.upload:
        if run.table:
            raise UserError("--upload: puts the study's own table into the store; leave out --table, or --upload")
        return _uploaded(spec.data.source, f"{run.store.rstrip('/')}/tables")
    if not run.table and spec.data.address is not None:
        return spec.data.address
    if not run.table.startswith("s3://"):
        raise UserError(
            f"--table: the pods cannot read {run.table or spec.data.path}; put it into an object store and name it "
            "(--table s3://bucket/…), or let --upload put it beside the study"
        )
    return run.table


def _uploaded(source: str, place: str) -> str:
    """Put a table into the store, under a name that tells its content; returns its address."""
    from rlhpo_core.storage.object_store import open_store
    from rlhpo_core.storage.tables import fetch_table

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        given = fetch_table(source, copy)
        data = copy.read_bytes()
    name = f"{hashlib.sha256(data).hexdigest()[:12]}-{given}"
    open_store(place).create(name, data)
    return f"{place}/{name}"
