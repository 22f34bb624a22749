"""The command line's part for priors: ``rlhpo prior train | evaluate | register | show | list``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from rlhpo_core.addresses import PRIOR_FILE
from rlhpo_core.cli.options import RUNS, Force, Tracking, console, occupied, tracking
from rlhpo_core.errors import UserError

# Torch and MLflow are slow to import: only the commands do.
if TYPE_CHECKING:
    from rlhpo_core.priors.evaluation import Score
    from rlhpo_core.priors.registry import RegisteredPrior
    from rlhpo_core.priors.sources import Source
    from rlhpo_core.priors.training import FinishedStudy, PriorSettings
    from rlhpo_core.space.search_space import SearchSpace
    from rlhpo_core.tracking.connection import Connection
    from rlhpo_core.tuner.prior import Prior

#: Studies that ``evaluate --leave-one-out`` takes at least: a prior is trained on two or more.
LEAST_TO_LEAVE_OUT = 3

app = typer.Typer(
    help="What finished studies have in common, as a start for the next one.\n\n"
    "`rlhpo prior train runs/* --out team.safetensors` learns from studies, `rlhpo prior evaluate team.safetensors "
    "OTHERS…` says whether that helps, and `prior: team.safetensors` in a study file makes a study start from it. "
    "`prior: none` makes it start from nothing.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE…",
        help="Finished studies: their folders (as `rlhpo tune` leaves them), a folder of such folders, `s3://…`, state "
        "files, ids of their runs in MLflow, or `mlflow:EXPERIMENT` for all studies of an experiment.",
    ),
]
Space = Annotated[
    str | None,
    typer.Option(
        metavar="SPACE",
        help="What the prior is about: a built-in space, or a study file with the space. Default: what the studies "
        "have tuned.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="On one kind of machine the same seed and studies give the same prior.")]
Steps = Annotated[int, typer.Option(min=1, help="Of the network's optimiser.")]
Updates = Annotated[int, typer.Option(min=0, help="Of the policy, by PPO.")]
Aliases = Annotated[
    list[str] | None,
    typer.Option("--alias", metavar="ALIAS", help="Of the version, instead of challenger. May be repeated."),
]
PriorAddress = Annotated[
    str,
    typer.Argument(
        metavar="PRIOR", help="A file, the name of one that comes with rlhpo, `s3://…`, or `models:/NAME@ALIAS`."
    ),
]


@app.command()
def train(
    sources: Sources,
    out: Annotated[
        str | None, typer.Option(metavar=f"FILE{PRIOR_FILE}", help="Where to write it: a file, or `s3://…`.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The prior's name. Default: that of the file.")] = None,
    space: Space = None,
    seed: Seed = 0,
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Make it a version of NAME in MLflow's registry.")
    ] = None,
    alias: Aliases = None,
    steps: Steps = 3000,
    policy_updates: Updates = 120,
    force: Force = False,
    tracking_uri: Tracking = None,
) -> None:
    """Learn a prior from finished studies. Nothing is trained again; a handful takes about a minute of one core.

    A reward model is fitted to each study; a network learns what they have in common, and one policy is trained by PPO
    on all of them. Two studies of ten trials are the least. They must be about the same objective, and tune the same
    hyperparameters, or fix them; ranges may differ.

    Keep a study or two out, and judge the prior by them: `rlhpo prior evaluate`.
    """
    if out is None and register is None:
        raise UserError("say where the prior goes: --out FILE.safetensors, --register NAME, or both")
    if out is not None and not out.endswith(PRIOR_FILE):
        raise UserError(f"--out: {out} must end with {PRIOR_FILE}; a study file tells files by that")
    from rlhpo_core.priors import registry as prior_registry
    from rlhpo_core.priors import sources as prior_sources
    from rlhpo_core.priors import store as prior_store

    if out is not None and not force and prior_store.taken(out):
        raise occupied(out)
    connection = _connection(tracking_uri)
    chosen = _read(sources, connection)
    objective = prior_sources.agreed_objective(chosen)
    target, studies = _in_one_space(chosen, space)
    named = name or (Path(out).name.removesuffix(PRIOR_FILE) if out is not None else register or "")
    prior = _learn(named, target, studies, objective, _settings(seed, steps, policy_updates))
    if out is not None:
        # Learning takes minutes, in which another may have written there.
        if not prior_store.save_prior(prior, out, force):
            raise occupied(out)
        size = len(prior.to_bytes()) / 1024
        console.print(f"wrote {escape(out)}: {len(studies)} studies, {prior.card.trials} trials, {size:.0f} KiB")
    if register is not None:
        _say(prior_registry.register_prior(prior, register, connection, alias or ()))
    if out is not None:
        console.print(
            f"judge it:  rlhpo prior evaluate {escape(out)} SOURCE…   (studies that it has not seen)\n"
            f"use it:    prior: {escape(out)}   in a study file",
            soft_wrap=True,
        )


@app.command()
def evaluate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="PRIOR SOURCE…", help="The prior, and studies that it was not trained on; sources as for `train`."
        ),
    ],
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="Without PRIOR: train one on all sources but one, judge it by that one, and so on for each.",
        ),
    ] = False,
    space: Space = None,
    seed: Seed = 0,
    steps: Steps = 3000,
    policy_updates: Updates = 120,
    tracking_uri: Tracking = None,
) -> None:
    """Say how well a prior knows studies that it was not trained on.

    For each study: the rank correlation between what the prior expects of its trials and what they measured, and the
    regret of the prior's first 1, 5 and 10 picks against that of as many random ones. Regret is 0 at the best and 1 at
    a middling configuration.

    **The picks are not trained.** Their scores come from a model of the study, a Gaussian process fitted to the study's
    trials; how well that model ranks trials held out of it stands in the column *model*. Where it is low, do not
    believe the rest of the line.
    """
    connection = _connection(tracking_uri)
    if leave_one_out:
        chosen = _read(arguments, connection)
        _print_scores(_each_left_out(chosen, space, _settings(seed, steps, policy_updates)))
        return
    if len(arguments) < 2:
        raise UserError("name a prior, and after it studies that it was not trained on; or use --leave-one-out")
    if space is not None:
        raise UserError("--space is for --leave-one-out: a prior has a space already")
    from rlhpo_core.priors import evaluation as prior_evaluation

    prior = _find(arguments[0], tracking_uri)
    held_out = _read(arguments[1:], connection)
    _check_held_out(prior, held_out)
    scores = []
    with console.status("fitting a model to each study"):
        for source in held_out:
            scores.append(prior_evaluation.score(prior, source.in_space, seed))
    _print_scores(scores)


@app.command()
def register(
    prior: PriorAddress,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the registered model in MLflow.")],
    alias: Aliases = None,
    tracking_uri: Tracking = None,
) -> None:
    """Make a prior a version in MLflow's registry, for studies to name it as `models:/NAME@ALIAS`.

    A new version is the `challenger`; the first of a name is its `champion`, too. Registered again, a prior stays the
    version that it is, and gets the aliases given: `--alias champion` moves that alias to it.
    """
    from rlhpo_core.priors import registry as prior_registry

    connection = _connection(tracking_uri)
    _say(prior_registry.register_prior(_find(prior, tracking_uri), name, connection, alias or ()))


@app.command()
def show(prior: PriorAddress, tracking_uri: Tracking = None) -> None:
    """Show a prior's card: what it was trained on and how, and the space that it is about."""
    from rlhpo_core.tuner.prior import describe

    text = describe(_find(prior, tracking_uri))
    if console.is_terminal:
        from rich.markdown import Markdown

        console.print(Markdown(text))
    else:
        console.print(Text(text), soft_wrap=True, end="")


@app.command("list")
def list_priors() -> None:
    """List the priors that come with rlhpo."""
    from rlhpo_core.priors.store import builtin_names, load_prior

    grid = Grid("prior", "objective", "studies", "trials", "hyperparameters", box=None, header_style="bold")
    for name in builtin_names():
        prior = load_prior(name)
        card = prior.card
        counts = (str(len(card.studies)), str(card.trials), str(len(prior.space.steps)))
        grid.add_row(name, card.objective, *counts)
    console.print(grid)


# -- what the commands share -------------------------------------------------------------------------------------------


def _connection(tracking_uri: str | None) -> Connection:
    from rlhpo_core.tracking.connection import Connection

    if tracking_uri is None:
        return Connection.of(tracking(None), RUNS)
    return Connection(tracking(tracking_uri).uri or "", "--tracking-uri")


def _find(address: str, tracking_uri: str | None) -> Prior:
    from rlhpo_core.priors.store import find_prior

    return find_prior(address, lambda: _connection(tracking_uri))


def _read(places: Sequence[str], connection: Connection) -> list[Source]:
    from rlhpo_core.priors import sources as prior_sources

    with console.status("reading the studies"):
        studies = prior_sources.read(places, connection, _note)
    if not studies:
        raise UserError(f"no study is left of {', '.join(places)}")
    return studies


def _in_one_space(sources: Sequence[Source], space: str | None) -> tuple[SearchSpace, list[FinishedStudy]]:
    """The prior's space, and the studies in it."""
    from rlhpo_core.priors.common_space import carried, common_space

    originals = [source.in_space for source in sources]
    target = common_space(originals) if space is None else _space(space)
    studies = []
    for original in originals:
        study, note = carried(original, target)
        studies.append(study)
        if note:
            _note(f"{study.name}: {note}")
    return target, studies


def _space(given: str) -> SearchSpace:
    from rlhpo_core.space.search_space import builtin_names, builtin_space

    if given in builtin_names():
        return builtin_space(given)
    if not Path(given).is_file():
        raise UserError(f"--space: {given} is neither a study file nor a built-in space ({', '.join(builtin_names())})")
    from rlhpo_core.study.spec import load_study

    return load_study(Path(given)).space


def _settings(seed: int, steps: int, policy_updates: int) -> PriorSettings:
    from rlhpo_core.priors.training import PriorSettings

    return PriorSettings(seed=seed, steps=steps, policy_updates=policy_updates)


def _learn(
    name: str, space: SearchSpace, studies: Sequence[FinishedStudy], objective: str, settings: PriorSettings
) -> Prior:
    from rlhpo_core.priors import training as prior_training

    with console.status("learning"):
        return prior_training.train(name, space, studies, objective, settings=settings, progress=_note)


def _each_left_out(sources: Sequence[Source], space: str | None, settings: PriorSettings) -> list[Score]:
    from rlhpo_core.priors import evaluation as prior_evaluation
    from rlhpo_core.priors import sources as prior_sources

    if len(sources) < LEAST_TO_LEAVE_OUT:
        raise UserError(f"--leave-one-out takes {LEAST_TO_LEAVE_OUT} studies or more, not {len(sources)}")
    objective = prior_sources.agreed_objective(sources)
    target, studies = _in_one_space(sources, space)
    scores = []
    for index, source in enumerate(sources):
        console.print(Text(f"without {source.name}", style="bold"), soft_wrap=True)
        others = [study for at, study in enumerate(studies) if at != index]
        prior = _learn(f"without {source.name}", target, others, objective, settings)
        scores.append(prior_evaluation.score(prior, source.in_space, settings.seed))
    return scores


def _check_held_out(prior: Prior, sources: Sequence[Source]) -> None:
    """Raises: UserError if the prior was trained on one of the studies. Warns if it was on a study of the same data."""
    if known := [source.name for source in sources if source.name in prior.card.studies]:
        raise UserError(
            f"prior {prior.card.name} was trained on {', '.join(known)}: of studies that it has seen it knows too "
            "much; name others, or use --leave-one-out"
        )
    digests = {origin.data_digest: origin.study for origin in prior.card.origins if origin.data_digest}
    for source in sources:
        if (same := digests.get(source.in_space.study.data_digest)) is not None:
            _warn(f"{source.name} was tuned on the data of {same}, which the prior has seen: its score flatters")
        if source.metric is not None and source.metric != prior.card.objective:
            _warn(f"{source.name} was judged by {source.metric}, the prior's studies by {prior.card.objective}")


def _print_scores(scores: Sequence[Score]) -> None:
    from rlhpo_core.priors.evaluation import PICKS, verdict

    grid = Grid(box=None, header_style="bold")
    grid.add_column("study", overflow="fold")
    for title in ("trials", "model", "rank corr."):
        grid.add_column(title, justify="right", no_wrap=True)
    for count in PICKS:
        grid.add_column(f"after {count}", justify="right", no_wrap=True)
    for score in scores:
        pairs = [f"{score.picked[count]:.2f} ({score.random[count]:.2f})" for count in PICKS]
        grid.add_row(
            escape(score.study), str(score.trials), f"{score.fidelity:.2f}", f"{score.rank_correlation:.2f}", *pairs
        )
    console.print(grid)
    console.print(
        Text(
            "after 1, 5, 10: regret of the prior's first picks, and in brackets of random ones, as a model of each "
            "study has it: no pick was trained. model: rank correlation of that model with trials held out of it.",
            style="dim",
        ),
        soft_wrap=True,
    )
    console.print(Text(verdict(scores), style="bold"), soft_wrap=True)


def _say(registered: RegisteredPrior) -> None:
    aliases = f" ({', '.join(registered.aliases)})" if registered.aliases else ""
    console.print(f"registered {escape(registered.address)}{escape(aliases)}", soft_wrap=True)
    for name in registered.aliases:
        console.print(f"use it:    prior: models:/{escape(registered.name)}@{escape(name)}   in a study file")


def _note(line: str) -> None:
    console.print(Text(line, style="dim"), soft_wrap=True)


def _warn(line: str) -> None:
    console.print(Text(f"warning: {line}", style="yellow"), soft_wrap=True)
