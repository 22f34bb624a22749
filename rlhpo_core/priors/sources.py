"""Finished studies for a prior to learn from or to be judged by, wherever they are kept.

A source is the folder of a study, a folder of such folders, the address of a study's store (``s3://…``), a tuner's
state file, the id of a study's run in MLflow, or ``mlflow:EXPERIMENT`` for all studies of an experiment. The study's
files are read as warm starts read them.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.kinds import evaluator_class
from rlhpo_core.priors.common_space import InSpace, told_once
from rlhpo_core.priors.training import LEAST_TRIALS, FinishedStudy
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import SPEC, StudyFiles
from rlhpo_core.storage.study_folder import StudyFolder, studies
from rlhpo_core.study.spec import parse_study
from rlhpo_core.tracking.address import redacted
from rlhpo_core.tracking.connection import Connection, all_runs
from rlhpo_core.tracking.content import config_of
from rlhpo_core.trial import Config, Direction, History, sign
from rlhpo_core.tuner import state_file

EXPERIMENT = "mlflow:"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
Canonical = Callable[[Config], Config]
"""As an ``Evaluator`` has it."""


def _as_it_is(config: Config) -> Config:
    """Where it is not known which evaluator it was."""
    return config


@dataclass(frozen=True)
class Source:
    """A study and its objective."""

    in_space: InSpace
    metric: str | None
    """``None`` if not known: a state file does not tell."""
    direction: Direction

    @property
    def name(self) -> str:
        """The study's id."""
        return self.in_space.study.name


def read(
    places: Sequence[str], connection: Connection, note: Callable[[str], None] = lambda line: None
) -> list[Source]:
    """The studies at the places, each once. Those of a whole folder or experiment are left out if they are too small.

    Args:
        places: As the module's description names them.
        connection: To MLflow, for run ids and experiments.
        note: Is called with a line about each study that is left out.

    Raises: UserError, naming the place, if there is no study, or if it cannot be read.
    """
    sources: dict[str, Source] = {}
    for place in places:
        at_place, several = _at(place, connection)
        for source in at_place:
            count = len(source.in_space.study.rewards)
            if source.name in sources:
                note(f"{source.name} (from {source.in_space.study.place}) is there already: left out")
            elif several and count < LEAST_TRIALS:
                note(f"{source.name} (from {source.in_space.study.place}) has {count} trials with a value: left out")
            else:
                sources[source.name] = source
    return list(sources.values())


def agreed_objective(sources: Sequence[Source]) -> str:
    """The objective of all the studies, in words. Raises: UserError if it is not the same."""
    known = [source for source in sources if source.metric is not None] or list(sources)
    for source in sources:
        if source.direction != known[0].direction or (source.metric or known[0].metric) != known[0].metric:
            raise UserError(
                f"{known[0].name} is to {known[0].direction} {known[0].metric or 'its objective'} and {source.name} to "
                f"{source.direction} {source.metric or 'its objective'}: a prior is about one objective; train one for "
                "each"
            )
    return known[0].metric or "an objective that is not known"


def _at(place: str, connection: Connection) -> tuple[list[Source], bool]:
    """The studies at a place, and whether it is one of several."""
    path = Path(place)
    if place.startswith(EXPERIMENT):
        return _of_experiment(place.removeprefix(EXPERIMENT), connection), True
    if place.startswith("models:"):
        raise UserError(f"{place} is a version of a model; name the study's run in MLflow instead")
    if "://" in place:
        return [_of_files(StudyFiles(open_store(place)), place)], False
    if path.is_file():
        return [_of_state(path)], False
    if (path / SPEC).is_file():
        return [_of_files(StudyFolder(path), place)], False
    if folders := list(studies(path)):
        return [_of_files(folder, str(folder.path)) for folder in folders], True
    if _RUN_ID.fullmatch(place):
        with connection.client() as client:
            return [_of_run(client, client.get_run(place))], False
    raise UserError(
        f"{place}: no study is there; name a study's folder, a folder of them, the address of a store (s3://…), a "
        f"state file, the id of a study's run in MLflow, or {EXPERIMENT}EXPERIMENT"
    )


def _of_files(files: StudyFiles, place: str) -> Source:
    spec = files.spec()
    canonical = evaluator_class(spec.evaluator.kind).canonical
    return _of_history(files.record().study_id, place, spec.space, files.history(), spec.objective.metric, canonical)


def _of_state(path: Path) -> Source:
    state = state_file.load(path)
    return _of_history(state.study_id, str(path), state.space, state.history, None)


def _of_history(
    name: str, place: str, space: SearchSpace, history: History, metric: str | None, canonical: Canonical = _as_it_is
) -> Source:
    measured = [(trial.config, trial.value, trial.seconds) for trial in history.trials if trial.value is not None]
    return _source(name, place, space, measured, metric, history.direction, canonical=canonical)


def _source(
    name: str,
    place: str,
    space: SearchSpace,
    measured: Sequence[tuple[Config, float, float]],
    metric: str | None,
    direction: Direction,
    digest: str = "",
    canonical: Canonical = _as_it_is,
) -> Source:
    rewards = sign(direction) * np.array([value for _, value, _ in measured], dtype=np.float64)
    seconds = np.array([seconds for _, _, seconds in measured], dtype=np.float64)
    configs = told_once([config for config, _, _ in measured], space, canonical)
    study = FinishedStudy(name, configs, rewards, place, digest, seconds)
    return Source(InSpace(study, space), metric, direction)


# -- MLflow ------------------------------------------------------------------------------------------------------------


def _of_experiment(name: str, connection: Connection) -> list[Source]:
    with connection.client() as client:
        experiment = client.get_experiment_by_name(name)
        if experiment is None or experiment.lifecycle_stage == "deleted":
            raise UserError(f"MLflow at {redacted(connection.uri)} has no experiment {name!r}")
        runs = all_runs(client, experiment.experiment_id, "tags.`rlhpo.run` = 'study'")
        if not runs:
            raise UserError(f"the experiment {name!r} of MLflow at {redacted(connection.uri)} holds no study of rlhpo")
        # The oldest first, as they were tuned.
        return [_of_run(client, run) for run in reversed(runs)]


def _of_run(client: MlflowClient, run: Run) -> Source:
    run_id, tags = run.info.run_id, run.data.tags
    place = f"MLflow run {run_id}"
    if tags.get("rlhpo.run") != "study":
        advice = "; its parent is" if tags.get("rlhpo.run") == "trial" else ""
        raise UserError(f"{place} ({run.info.run_name}) is not the run of a study of rlhpo{advice}")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(run_id, SPEC, folder)).read_text(encoding="utf-8")
    spec = parse_study(text, f"{place}, {SPEC}")
    measured: dict[str, tuple[Config, float, float]] = {}
    for trial in all_runs(client, run.info.experiment_id, f"tags.`mlflow.parentRunId` = '{run_id}'"):
        value, seconds = trial.data.metrics.get("objective"), trial.data.metrics.get("seconds", math.nan)
        if trial.info.status == "RUNNING" or value is None:
            continue
        try:
            config = config_of(trial.data.params, spec.space)
        except ValueError as error:
            raise UserError(f"{place}: trial {trial.info.run_name} does not fit the study's space: {error}") from error
        # A request that timed out and was carried out nevertheless leaves two runs of one trial.
        measured[trial.data.tags.get("rlhpo.trial_id", trial.info.run_id)] = (config, value, seconds)
    objective, digest = spec.objective, tags.get("rlhpo.data_digest", "")
    study_id = tags.get("rlhpo.study_id", run_id)
    canonical = evaluator_class(spec.evaluator.kind).canonical
    return _source(
        study_id, place, spec.space, [*measured.values()], objective.metric, objective.direction, digest, canonical
    )
