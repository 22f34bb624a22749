"""A study from its file to a registered model: the loop with display, MLflow and Ctrl-C around it, then the winner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Literal

import torch
from rich.console import Console

from rlhpo_core.atomic_files import write_atomically
from rlhpo_core.cli import local_pipeline
from rlhpo_core.cli.interrupts import Interrupts
from rlhpo_core.cli.options import check_free_or
from rlhpo_core.cli.phases import Phases
from rlhpo_core.data.schema import TableSchema
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.evaluators.protocol import DataDescription, Evaluator
from rlhpo_core.execution import runner
from rlhpo_core.execution.beginning import baseline_of, begin_study, objective_remark
from rlhpo_core.execution.engines import Engine
from rlhpo_core.execution.progress import LiveProgress
from rlhpo_core.execution.resources import threads, workers
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.production import alerts
from rlhpo_core.production.winner import register_winner
from rlhpo_core.report.causes import failure_report
from rlhpo_core.report.study_report import get_ready, log_report, make_report
from rlhpo_core.retries import BRIEFLY, patiently
from rlhpo_core.storage.lock import Lock, LostLock
from rlhpo_core.storage.study_files import StudyRecord, Winner
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.storage.tables import at_hand
from rlhpo_core.study import rounds
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.connection import CONTACT
from rlhpo_core.tracking.listener import TrackingListener
from rlhpo_core.tracking.tracker import StudyTracker, UnfinishedRunError
from rlhpo_core.trial import Trial
from rlhpo_core.tuner.prior import Prior
from rlhpo_core.tuner.state import TunerState

# A study that is no retuning is spared what compares data and models (scipy.stats, scikit-learn).
if TYPE_CHECKING:
    from rlhpo_core.production import retuning
    from rlhpo_core.production.ledger import Record
    from rlhpo_core.production.registered_model import RegisteredModel

#: The page in a study's folder.
REPORT = "report.html"


@dataclass(frozen=True)
class Result:
    """What a run of a study came to."""

    folder: StudyFolder
    reason: str
    """Why it ended, for a person to read."""
    finished: bool
    """False if it was interrupted and there is budget left."""
    best: Trial | None
    winner: Winner | None
    """``None`` if interrupted, or if this kind of evaluator has no model to refit."""
    logged: bool
    """Whether all of it is in MLflow."""
    page: str
    """The command or the address that shows the study in MLflow."""
    times: str = ""
    """What took how long, for a person to read."""


def start(
    spec: StudySpec,
    path: Path,
    console: Console,
    engine: Engine = Engine.INPROCESS,
    schema: TableSchema | None = None,
    numbered: bool = False,
    evaluator: Evaluator | None = None,
    phases: Phases | None = None,
    retunes: bool = False,
    local: StudySpec | None = None,
) -> Result:
    """Tune a new study in a new folder. If anything is wrong with the study, fails before the first trial.

    Args:
        path: The new folder, or an empty one; studies side by side in one folder share a local MLflow database there.
        console: For the live display and messages.
        schema: By which the table is read: that of the model that is retuned; ``None`` to infer it.
        numbered: Whether path-2, path-3, … will do if there is something at the path.
        evaluator: The study's, as ``check.prepared`` has built it; it is built if it is not given.
        phases: Those that have been before.
        retunes: Whether it is one of many about a model, whose run is named by its folder and the date.
        local: The study with its data on this machine; the data is fetched if it is not given.

    Raises: UserError, on wrong data, settings or space; if MLflow cannot be reached; if all trials fail. The folder is
    removed again if nothing has happened in it yet, and there is no run of the study in MLflow.
    """
    torch.set_num_threads(1)
    phases = phases or Phases(console)
    if local is None:
        with at_hand(spec) as local:
            return start(spec, path, console, engine, schema, numbered, evaluator, phases, retunes, local)
    if evaluator is None:
        with phases.phase("reading the data"):
            evaluator = build_evaluator(local, threads(spec.execution), schema)
            evaluator.check_space(spec.space)
    existed, data = path.exists() and not numbered, evaluator.data()
    create = StudyFolder.create_numbered if numbered else StudyFolder.create
    folder = create(path, spec, StudyRecord.new(spec, _digest(data)), None if data is None else data.schema)
    with folder.locked() as lock, _pool(folder, local, engine, rounds.size(spec.tuner, 0)) as pool:
        try:
            begun = begin_study(folder, spec)
            tracker = _open_tracker(folder, spec, phases, retunes)
            for note in () if data is None else data.notes:
                console.print(note, markup=False, soft_wrap=True)
            _tell_baseline(folder, evaluator, begun, phases)
        except UnfinishedRunError as error:
            # Without the folder nobody would ever end that run.
            raise UserError(f"{error}\nOnce that is mended: rlhpo resume {folder.path}") from error
        except UserError:
            # Nothing has happened in it: the next attempt should find the place free.
            folder.discard(keep_folder=existed)
            raise
        return _conduct(folder, spec, evaluator, tracker, phases, pool, lock)


@contextmanager
def _pool(folder: StudyFolder, local: StudySpec, engine: Engine, at_first: int) -> Iterator[TrialPool | None]:
    """What trains the trials in this process; its workers load the data while MLflow is opened.

    Args:
        local: The study, with its data at hand.
        at_first: Trials of the round under way.
    """
    if engine is Engine.KFP:
        yield None
        return
    count = min(workers(local.execution), local.tuner.trials_per_round)
    with TrialPool(local, count, threads(local.execution), folder.schema(), folder.address) as pool:
        pool.begin(at_first)
        yield pool


def _tell_baseline(folder: StudyFolder, evaluator: Evaluator, begun: TunerState, phases: Phases) -> None:
    """Say what trials have to beat, which is measured if that has not been done."""
    with phases.phase("training with the library's defaults"):
        baseline = baseline_of(folder, evaluator, begun)
    if baseline is not None:
        phases.console.print(baseline.text, markup=False, soft_wrap=True)


def resume(path: Path, console: Console, engine: Engine = Engine.INPROCESS) -> Result:
    """Go on with the study in a folder: finish its trials, or what MLflow misses of it.

    Args:
        path: The study's folder, which is locked meanwhile.

    Raises: UserError as ``start`` does, if another process is tuning in the folder, and if its study file or its table
    is no longer that of the study.
    """
    torch.set_num_threads(1)
    folder, phases = StudyFolder.open(path), Phases(console)
    with folder.locked() as lock, at_hand(spec := folder.spec()) as local:
        with phases.phase("reading the data"):
            evaluator = build_evaluator(local, threads(spec.execution), folder.schema())
            evaluator.check_space(spec.space)
            folder.check_table(_digest(evaluator.data()))
        begun = begin_study(folder, spec)
        _tell_baseline(folder, evaluator, begun, phases)
        over = spent(spec.budget, begun.history, folder.record().seconds) is not None
        with _pool(folder, local, engine, 0 if over else rounds.size(spec.tuner, begun.round)) as pool:
            return _conduct(folder, spec, evaluator, _open_tracker(folder, spec, phases), phases, pool, lock)


@dataclass(frozen=True)
class Retuned:
    """What a retuning came to."""

    findings: retuning.Findings
    result: Result | None
    """``None`` if there was nothing to do."""
    record: Record | None
    """What was decided; ``None`` if nothing was to do, or if the study was interrupted."""


def retune(
    spec: StudySpec,
    path: Path,
    console: Console,
    engine: Engine = Engine.INPROCESS,
    force: bool = False,
    numbered: bool = False,
) -> Retuned:
    """Check whether the data is new, tune from what is known, and let the gate decide about the winner.

    Args:
        path: The folder of the new study, if there is something to do.
        force: Whether to tune even if nothing has changed.
        numbered: As ``start`` has it.

    Raises: UserError as ``start`` does, and if the registered model or its ledger cannot be reached. A failure is
    recorded, and an alert sent, before it is raised.
    """
    from rlhpo_core.production import retuning
    from rlhpo_core.production.endings import recording_failure
    from rlhpo_core.production.registered_model import RegisteredModel

    torch.set_num_threads(1)
    model = RegisteredModel.of_study(spec, path.resolve().parent)

    def warn(text: str) -> None:
        console.print(text, style="yellow", markup=False)

    with recording_failure(spec, model.ledger, warn), at_hand(spec) as local:
        with console.status("comparing the data and scoring the champion"), patiently(BRIEFLY):
            findings = retuning.check(local, model, force, warn)
        if not findings.proceed:
            return Retuned(findings, None, None)
        console.print(findings.reason, markup=False)
        tuned = retuning.tuned_spec(spec, findings)
        with patiently(BRIEFLY):
            schema = None if findings.champion is None else model.schema(findings.champion)
        there = retuning.tuned_spec(local, findings)
        result = start(tuned, path, console, engine, schema, numbered, retunes=True, local=there)
        if not result.finished:
            return Retuned(findings, result, None)
        with console.status("comparing the winner with the champion"), patiently(BRIEFLY):
            record = _decide_about_winner(local, model, result.folder, findings, warn)
    return Retuned(findings, result, record)


def _decide_about_winner(
    spec: StudySpec,
    model: RegisteredModel,
    folder: StudyFolder,
    findings: retuning.Findings,
    warn: Callable[[str], None],
) -> Record | None:
    """Let the gate decide about a finished study's winner; its run and its report say what came of it."""
    from rlhpo_core.production import retuning

    tracker = StudyTracker.open(spec, folder.record().study_id, folder.path.resolve().parent)
    data = build_evaluator(spec, threads(spec.execution), folder.schema()).data()
    if data is not None:
        tracker.log_data(data)
    record = retuning.decide(spec, model, folder, tracker, findings, warn)
    write_report(folder, folder.spec())
    tracker.finish("FINISHED")
    return record


def write_report(folder: StudyFolder, spec: StudySpec, interactive: Path | None = None) -> Path:
    """Write the study's report as one HTML page; returns its path.

    Args:
        interactive: Where to write the page with interactive charts; ``None`` for the plain one in the folder.

    Raises: UserError if it cannot be written, or if something that is no page is there.
    """
    path = interactive or folder.path / REPORT
    if interactive is not None:
        check_free_or(path, "<!doctype html", "HTML page")
    report = make_report(folder, spec)
    try:
        write_atomically(path, (report.html if interactive is None else report.interactive).encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    return path


def _digest(data: DataDescription | None) -> str | None:
    return None if data is None else data.digest


def _open_tracker(folder: StudyFolder, spec: StudySpec, phases: Phases, retunes: bool = False) -> StudyTracker:
    name = None
    if retunes:
        from rlhpo_core.production import retuning

        name = retuning.run_name(folder.path.resolve().name)
    # All studies of a folder share one local MLflow store.
    with phases.phase("opening MLflow", "(a new local store takes some seconds)"):
        return StudyTracker.open(spec, folder.record().study_id, folder.path.resolve().parent, name)


def _conduct(
    folder: StudyFolder,
    spec: StudySpec,
    evaluator: Evaluator,
    tracker: StudyTracker,
    phases: Phases,
    pool: TrialPool | None,
    lock: Lock,
) -> Result:
    """Tune with the display and MLflow as listeners, then conclude.

    Raises: UserError if no trial has succeeded; LostLock if somebody else has taken over.
    """
    console = phases.console
    display = LiveProgress(console, spec, folder.history())
    begun = folder.state().summaries
    mirror = TrackingListener(tracker, folder.history(), begun, display.warn, folder.with_curve)
    with Interrupts(display.warn) as interrupts:
        try:
            _log_inputs(tracker, evaluator, folder.state().prior, console)
            with display, phases.phase("tuning", quiet=True), _meanwhile(get_ready):
                outcome = _tune(folder, spec, tracker.connection.uri, [display, mirror], pool, interrupts, lock)
            interrupts.check()
            lock.check()
            best = folder.history().best()
            with phases.phase("logging what MLflow lacks"):
                mirrored = mirror.flush()
            try:
                winner, logged = _conclude(folder, spec, evaluator, tracker, outcome, best, phases), mirrored
            except UserError as error:
                whole = f"The study is whole in {folder.path}; `rlhpo resume {folder.path}` logs the rest."
                display.warn(f"{error}\n{whole}")
                # If MLflow is what failed, that was said.
                _leave(tracker, "FAILED", lambda text: None)
                winner, logged = folder.record().winner, False
            else:
                _tell(spec, outcome, best, display.warn)
        except KeyboardInterrupt:
            interrupts.disarm()
            _leave(tracker, "KILLED", display.warn)
            best, winner = folder.history().best(), folder.record().winner
            return Result(folder, "interrupted", False, best, winner, not mirror.pending, tracker.url, phases.summary())
        except LostLock:
            raise  # The run in MLflow is theirs, too.
        except Exception:
            _leave(tracker, "FAILED", display.warn)
            raise
    if outcome.finished and best is None:
        raise UserError(
            f"{outcome.reason}; {failure_report(folder.history())}\n"
            f"Their full errors are in {folder.path}/report.html. Mend the cause and start the study again."
        )
    return Result(folder, outcome.reason, outcome.finished, best, winner, logged, tracker.url, phases.summary())


def _tell(spec: StudySpec, outcome: runner.Outcome, best: Trial | None, warn: Callable[[str], None]) -> None:
    if outcome.finished:
        details = {"study": spec.name, "reason": outcome.reason, "best": best.value if best is not None else None}
        alerts.send(spec.alerts, "budget_spent", details, warn)


def _leave(tracker: StudyTracker, status: Literal["FAILED", "KILLED"], warn: Callable[[str], None]) -> None:
    """End the study's run in MLflow; all else that is missing, the report too, is left to a resume."""
    try:
        with tracker.connection.open(timeout=CONTACT):
            tracker.finish(status)
    except UserError as error:
        warn(str(error))


def _log_inputs(tracker: StudyTracker, evaluator: Evaluator, prior: Prior | None, console: Console) -> None:
    """Log what the study starts from: its data and its prior, which is announced as well."""
    if (data := evaluator.data()) is not None:
        tracker.log_data(data)
    if prior is not None:
        tracker.log_prior(prior)
        console.print(
            f"begins with what {len(prior.card.studies)} earlier studies have taught: "
            f"prior {prior.card.registered or prior.card.name} (`prior: none` leaves it out)",
            markup=False,
            soft_wrap=True,
        )
        if (remark := objective_remark(prior, tracker.spec)) is not None:
            console.print(remark, style="yellow", markup=False, soft_wrap=True)


def _tune(
    folder: StudyFolder,
    spec: StudySpec,
    tracking_uri: str,
    listeners: Sequence[runner.Listener],
    pool: TrialPool | None,
    interrupts: Interrupts,
    lock: Lock,
) -> runner.Outcome:
    """Run the loop until the budget is spent, the study is interrupted, or somebody else has taken over.

    Args:
        pool: Ended with the loop; ``None`` for the pipeline by KFP's local runner.
    """
    if pool is None:
        # It looks at the count itself, and kills the pipeline at 2.
        with interrupts.heeded(lambda: None):
            level = lambda: 2 if lock.lost else interrupts.count  # noqa: E731
            return local_pipeline.run(folder, spec, tracking_uri, listeners, level)
    with pool, interrupts.heeded(pool.cancel):
        return runner.run(folder, spec, pool, listeners, lambda: interrupts.count > 0 or lock.lost)


@contextmanager
def _meanwhile(task: Callable[[], object]) -> Iterator[None]:
    """A context beside which a task is done: while trials train, this process mostly waits."""
    thread = Thread(target=task)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _conclude(
    folder: StudyFolder,
    spec: StudySpec,
    evaluator: Evaluator,
    tracker: StudyTracker,
    outcome: runner.Outcome,
    best: Trial | None,
    phases: Phases,
) -> Winner | None:
    """Refit the best configuration if the budget is spent, write the report, and end the study's run in MLflow.

    Raises: UserError if the refitting fails, or if MLflow or the registry cannot be reached.
    """
    winner = None
    if outcome.finished and best is not None:
        with phases.phase("registering the winner", "(trained on train + validation)"), patiently(BRIEFLY):
            winner = register_winner(folder, spec, evaluator, tracker, best)
    with phases.phase("drawing and logging the report"):
        report = make_report(folder, spec)
        folder.store.write(REPORT, report.html.encode())
        log_report(tracker, report)
    tracker.finish("KILLED" if not outcome.finished else "FINISHED" if best is not None else "FAILED")
    return winner
