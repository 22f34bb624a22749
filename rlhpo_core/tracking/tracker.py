"""A study in MLflow: one parent run, and one child run per trial.

The study's folder is the truth and MLflow a copy of it. Every method may be called again: what MLflow holds already is
not written twice, and the next ``sync`` writes what a crash or an outage left out. Runs are always named by their id:
an active run or ``MLFLOW_RUN_ID`` in the environment changes nothing. What people see counts from 1: trial 1 has
``Proposal.number`` 0.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import DataDescription
from rlhpo_core.retries import BRIEFLY, current, patiently, wait_out
from rlhpo_core.study.spec import StudySpec, dump_study
from rlhpo_core.tracking import content, logged
from rlhpo_core.tracking.address import LOCAL_PAGES, is_server, run_page, ui_command
from rlhpo_core.tracking.connection import CONTACT, Connection, TooLarge
from rlhpo_core.tracking.logged import Logged
from rlhpo_core.trial import History, RoundSummary, Trial

# A trial's pod is spared the import of torch.
if TYPE_CHECKING:
    from rlhpo_core.tuner.prior import Prior

#: Gives a trial its curve, if it has been left out.
WithCurve = Callable[[Trial], Trial]

P = ParamSpec("P")
R = TypeVar("R")


def itself(trial: Trial) -> Trial:
    """The trial as it is, for histories in which no curve is left out."""
    return trial


def _waited_out(method: Callable[P, R]) -> Callable[P, R]:
    """Every method may be called again, and so an outage may be waited out."""

    @wraps(method)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> R:
        return wait_out("write to MLflow", lambda: method(*args, **kwargs))

    return repeated


class UnfinishedRunError(UserError):
    """A study's run may be in MLflow, but what belongs into it at the beginning is not: open it again."""


def _of_study(study_id: str) -> str:
    """MLflow's filter for the run of a study."""
    return f"tags.`rlhpo.study_id` = '{study_id}' and tags.`rlhpo.run` = 'study'"


@dataclass
class StudyTracker:
    """Writes one study.

    Raises: UserError, from each method, if MLflow cannot be reached or refuses; nothing is lost by that.
    """

    connection: Connection
    client: MlflowClient
    spec: StudySpec
    study_id: str
    experiment_id: str
    run_id: str
    """The parent run."""
    tags: dict[str, str]
    """Of the study, repeated on each trial."""
    datasets: dict[str, Dataset] = field(default_factory=dict)
    """Logged data by context: training, validation, holdout."""
    _logged: Logged | None = None

    @classmethod
    def open(cls, spec: StudySpec, study_id: str, store: Path, name: str | None = None) -> StudyTracker:
        """Create the experiment and the study's run, or find them and set the run back to RUNNING.

        Args:
            store: folder of studies, which holds MLflow's database if no URI is given
            name: of a new run; the study's if it is not given

        Raises: UserError, within about 10 seconds, if MLflow cannot be reached or denies access; UnfinishedRunError if
        that happens once a run may have been created.
        """
        asked: list[str] = []
        connection = Connection.of(spec.tracking, store)
        client = connection.contact(lambda client: (client.get_experiment_by_name(spec.tracking.experiment), client)[1])
        # It was there just now. The run of a study that could not begin for such a moment would stay RUNNING.
        patience = current.get()
        try:
            with patiently(max(BRIEFLY, patience.seconds), patience.give_up):
                return cls._begin(connection, client, spec, study_id, asked.append, name or spec.name)
        except UserError as error:
            if not asked:
                raise
            raise UnfinishedRunError(str(error)) from error

    @classmethod
    @_waited_out
    def _begin(
        cls,
        connection: Connection,
        client: MlflowClient,
        spec: StudySpec,
        study_id: str,
        asking: Callable[[str], None],
        name: str,
    ) -> StudyTracker:
        with connection.open():
            experiment_id = connection.experiment(client, spec.tracking.experiment)
            connection.check_files(client.get_experiment(experiment_id))
            tags = content.study_tags(spec, study_id)
            earlier = client.search_runs([experiment_id], _of_study(study_id), max_results=1)
            first_tags = {**tags, "rlhpo.run": "study", **content.source_tags()}
            asking(experiment_id)
            run = earlier[0] if earlier else client.create_run(experiment_id, tags=first_tags, run_name=name)
            tracker = cls(connection, client, spec, study_id, experiment_id, run.info.run_id, tags)
            client.update_run(run.info.run_id, status="RUNNING")
            # A parameter that is logged cannot be changed, the budget of a resumed study can: it is a tag.
            params = {key: value for key, value in content.study_params(spec).items() if key not in run.data.params}
            tracker._log(run.info.run_id, params=params, tags={**tags, "rlhpo.budget": content.budget(spec)})
        tracker.log_artifact_bytes("study.yaml", dump_study(content.without_password(spec)).encode())
        return tracker

    @classmethod
    @_waited_out
    def attach(cls, spec: StudySpec, run_id: str, store: Path) -> StudyTracker:
        """The study's run as ``open`` has left it, for a step of a pipeline that adds to it.

        If a step that was ended has said KILLED meanwhile, the run is set back to RUNNING.

        Args:
            store: folder of studies, as for ``open``

        Raises: UserError if MLflow cannot be reached, denies access, or has no such run.
        """
        connection = Connection.of(spec.tracking, store)
        with connection.open(timeout=CONTACT):
            connection.probe()
            client = connection.new_client()
            run = client.get_run(run_id)
            if run.info.status == "KILLED":
                client.update_run(run_id, status="RUNNING")
        of_the_run = ("rlhpo.run", "rlhpo.budget")
        tags = {k: v for k, v in run.data.tags.items() if k.startswith("rlhpo.") and k not in of_the_run}
        return cls(connection, client, spec, tags["rlhpo.study_id"], run.info.experiment_id, run_id, tags)

    @classmethod
    @_waited_out
    def kill(cls, spec: StudySpec, study_id: str, store: Path) -> bool:
        """Say KILLED of the study's run if it says that the study goes on; whether it did.

        For whoever has ended a study from outside: quick, and it needs neither the study's trials nor its state.

        Args:
            store: folder of studies, as for ``open``

        Raises: UserError if MLflow cannot be reached or denies access.
        """
        connection = Connection.of(spec.tracking, store)
        with connection.open(timeout=CONTACT):
            connection.probe()
            client = connection.new_client()
            experiment = client.get_experiment_by_name(spec.tracking.experiment)
            places = [] if experiment is None else [experiment.experiment_id]
            runs = client.search_runs(places, _of_study(study_id), max_results=1) if places else []
            going_on = [run.info.run_id for run in runs if run.info.status == "RUNNING"]
            for run_id in going_on:
                client.set_terminated(run_id, "KILLED")
        return bool(going_on)

    @property
    def url(self) -> str:
        """The study's page on a server, or the command that opens a local store, and the page that it then has."""
        if is_server(self.connection.uri):
            return run_page(self.connection.uri, self.experiment_id, self.run_id)
        page = run_page(LOCAL_PAGES, self.experiment_id, self.run_id)
        return f"{ui_command(self.connection.uri)}\n           then {page}"

    @_waited_out
    def log_data(self, data: DataDescription) -> None:
        """Log which data the study uses; trials and models that are logged afterwards carry its digest."""
        self.datasets = content.datasets(data, None if self.spec.data is None else self.spec.data.address)
        inputs = [
            DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
            for context, dataset in self.datasets.items()
        ]
        self.tags["rlhpo.data_digest"] = data.digest
        with self.connection.open():
            self.client.log_inputs(self.run_id, inputs)
            self._log(self.run_id, tags={"rlhpo.data_digest": data.digest})

    def rows(self) -> dict[str, int]:
        """Rows of each part of the logged data: train, validation, holdout."""
        return content.rows(self.datasets)

    @_waited_out
    def log_trial(self, trial: Trial) -> bool:
        """Write the trial's run, or finish one that was begun; false if it is there already."""
        with self._writing():
            return self._log_trial(trial)

    def log_round(self, summary: RoundSummary) -> bool:
        """Add the round to the study's curves; false if it is there already."""
        with self._writing():
            return self._log_points(History(direction=self.spec.objective.direction), [summary]) > 0

    @_waited_out
    def sync(
        self, history: History, summaries: Sequence[RoundSummary], with_curve: WithCurve = itself, points: bool = True
    ) -> int:
        """Write whatever is missing; returns the number of trials that were written.

        Args:
            with_curve: Asked for those trials only that are to be written.
            points: Whether the study's own curves are to be written, too; without, some of its trials will do.
        """
        if self._logged is None:
            with self.connection.open(timeout=CONTACT):
                self.client.get_run(self.run_id)
        with self._writing():
            count = sum(self._log_trial(trial, with_curve) for trial in history.trials)
            if points:
                self._log_points(history, summaries)
        return count

    def complete(
        self, history: History, summaries: Sequence[RoundSummary], with_curve: WithCurve = itself
    ) -> list[str]:
        """``sync``, and read back what has arrived: an answer with status 200 may come from elsewhere than MLflow.

        What is missing is written once more. Returns: what is missing then, for a person to read.
        """
        self.sync(history, summaries, with_curve)
        if not self.verify(history, summaries, with_curve):
            return []
        self.sync(history, summaries, with_curve)
        return self.verify(history, summaries, with_curve)

    @_waited_out
    def verify(self, history: History, summaries: Sequence[RoundSummary], with_curve: WithCurve = itself) -> list[str]:
        """What MLflow lacks of these trials and rounds, for a person to read; the next ``sync`` writes it."""
        with self._writing():
            written = self._logged = logged.look_up(self.client, self.experiment_id, self.run_id)
            for trial in history.trials:
                run = written.runs.get(trial.trial_id)
                if run is None or trial.trial_id not in written.ended:
                    continue
                if not logged.is_whole(self.client, run, with_curve(trial), self.spec):
                    written.ended.discard(trial.trial_id)
                    written.begun[trial.trial_id] = run.info.run_id
        lacking = sum(trial.trial_id not in written.ended for trial in history.trials)
        points = sorted({metric.step for metric in content.best_metrics(history, after=0)} - written.points)
        if points:
            written.best = points[0] - 1
        rounds = {summary.round + 1 for summary in summaries} - written.rounds
        counts = {"trials": lacking, "points of the curve `best`": len(points), "rounds": len(rounds)}
        return [f"{name}: {count}" for name, count in counts.items() if count]

    def log_artifact_bytes(self, name: str, data: bytes) -> None:
        """Store a file of the study; ``name`` may hold folders (``figures/curve.png``).

        One that is too large for what stands before the server is left out, with a warning: it is a copy, or can be
        made anew.
        """
        try:
            self._log_artifact(name, data)
        except TooLarge as error:
            print(f"warning: {name} is left out in MLflow, and all else goes on: {error}", flush=True)

    @_waited_out
    def _log_artifact(self, name: str, data: bytes) -> None:
        folder, _, file = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary, self.connection.open(timeout=60):
            path = Path(temporary) / file
            path.write_bytes(data)
            self.client.log_artifact(self.run_id, str(path), folder or None)

    def log_figures(self, figures: Mapping[str, bytes]) -> None:
        """Store PNG images by name, without suffix, under ``figures/``."""
        for name, data in figures.items():
            self.log_artifact_bytes(f"figures/{name.removesuffix('.png')}.png", data)

    @_waited_out
    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log single values of the study, such as the winner's scores on the holdout."""
        now = content.millis(time.time())
        with self.connection.open():
            self._log(self.run_id, [Metric(name, value, now, 0) for name, value in metrics.items()])

    @_waited_out
    def log_prior(self, prior: Prior) -> None:
        """Log which prior the study starts from, with its card."""
        from rlhpo_core.tuner.prior import describe

        with self.connection.open():
            self._log(self.run_id, tags={"rlhpo.prior": prior.card.registered or prior.card.name})
        self.log_artifact_bytes("prior.md", describe(prior).encode())

    @_waited_out
    def tag(self, tags: Mapping[str, str]) -> None:
        """Set further tags of the study's run."""
        with self.connection.open():
            self._log(self.run_id, tags=tags)

    @_waited_out
    def note(self, markdown: str) -> None:
        """Set the description at the top of the study's page in MLflow."""
        with self.connection.open():
            self._log(self.run_id, tags={"mlflow.note.content": markdown})

    @_waited_out
    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """End the study's run; ``open`` sets it back to RUNNING."""
        with self.connection.open():
            self.client.set_terminated(self.run_id, status)
            if self.client.get_run(self.run_id).info.status != status:
                raise self.connection.foreign()

    # -- one request each, inside an open connection ------------------------------------------------------------------

    def _log_trial(self, trial: Trial, with_curve: WithCurve = itself) -> bool:
        written = self._known()
        if trial.trial_id in written.ended:
            return False
        trial = with_curve(trial)
        run_id, tags = written.begun.get(trial.trial_id), {**self.tags, **content.trial_tags(trial)}
        if run_id is None:
            # With all of its tags at once: to add them to a run takes MLflow several times as long.
            identity = {"rlhpo.run": "trial", "rlhpo.trial_id": trial.trial_id, "mlflow.parentRunId": self.run_id}
            run = self.client.create_run(
                self.experiment_id,
                content.millis(trial.started_at),
                content.taken({**identity, **content.source_tags(), **tags}),
                f"trial-{trial.proposal.number + 1:03d}",
            )
            run_id, tags = run.info.run_id, {}
        self._log(run_id, content.trial_metrics(trial, self.spec), content.trial_params(trial), tags)
        self.client.set_terminated(run_id, content.RUN_STATUS[trial.status], content.ended_at(trial))
        written.ended.add(trial.trial_id)
        return True

    def _log_points(self, history: History, summaries: Sequence[RoundSummary]) -> int:
        """Best value after each trial, up to the first that is still running, and the rounds; how many of them."""
        written, now = self._known(), content.millis(time.time())
        best = content.best_metrics(history, after=written.best)
        fresh = [summary for summary in summaries if summary.round + 1 not in written.rounds]
        rounds = [metric for summary in fresh for metric in content.round_metrics(summary, now)]
        if best or rounds:
            self._log(self.run_id, [*best, *rounds])
        written.best = best[-1].step if best else written.best
        written.rounds.update(summary.round + 1 for summary in fresh)
        return len(fresh)

    def _known(self) -> Logged:
        if self._logged is None:
            self._logged = logged.look_up(self.client, self.experiment_id, self.run_id)
        return self._logged

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self.connection.open():
                yield
        except UserError:
            # A request that failed may have been carried out all the same: look again before the next attempt.
            self._logged = None
            raise

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """All of it in as few requests as MLflow's limits allow."""
        requests = zip_longest(
            content.chunks(metrics, content.MAX_METRICS),
            content.chunks(content.param_entities(params or {}), content.MAX_PARAMS),
            content.chunks(content.tag_entities(tags or {}), content.MAX_PARAMS),
            fillvalue=(),
        )
        for some_metrics, some_params, some_tags in requests:
            self.client.log_batch(run_id, some_metrics, some_params, some_tags, synchronous=True)
