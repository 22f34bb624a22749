"""A study from its file to a registered model: the loop with display, MLflow and Ctrl-C around it, then the winner."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import torch
from rich.console import Console

from rlhpo_core.atomic_files import write_atomically
from rlhpo_core.cli import local_pipeline
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators import build_evaluator
from rlhpo_core.evaluators.protocol import Evaluator
from rlhpo_core.execution import runner
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.execution.progress import LiveProgress
from rlhpo_core.execution.resources import Engine, threads, workers
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.production import alerts, retuning
from rlhpo_core.production.ledger import Record
from rlhpo_core.production.registered_model import Desk
from rlhpo_core.production.winner import crown
from rlhpo_core.report.study_report import failure_report, log_report, make_report
from rlhpo_core.storage.study_files import StudyRecord, Winner
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.listener import TrackingListener
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Trial


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


def start(spec: StudySpec, path: Path, console: Console, engine: Engine = Engine.INPROCESS) -> Result:
    """Tune a new study in a new folder. If anything is wrong with the study, fails before the first trial.

    Raises: UserError, on wrong data, settings or space; if MLflow cannot be reached; if all trials fail.
    """
    torch.set_num_threads(1)
    with console.status("reading the data"):
        evaluator = build_evaluator(spec, threads(spec.execution))
        evaluator.check_space(spec.space)
    folder = StudyFolder.create(path, spec, StudyRecord.new(spec))
    with folder.locked():
        try:
            begin_study(folder, spec)
            tracker = _open_tracker(folder, spec, console)
        except UserError:
            # Nothing has happened in it: the next attempt should find the place free.
            shutil.rmtree(path)
            raise
        return _conduct(folder, spec, evaluator, tracker, console, engine)


def resume(path: Path, console: Console, engine: Engine = Engine.INPROCESS) -> Result:
    """Go on with the study in a folder: finish its trials, or what MLflow misses of it.

    Raises: UserError as ``start`` does, and if another process is tuning in the folder.
    """
    torch.set_num_threads(1)
    folder = StudyFolder.open(path)
    with folder.locked():
        spec = folder.spec()
        with console.status("reading the data"):
            evaluator = build_evaluator(spec, threads(spec.execution))
            evaluator.check_space(spec.space)
        begin_study(folder, spec)
        return _conduct(folder, spec, evaluator, _open_tracker(folder, spec, console), console, engine)


@dataclass(frozen=True)
class Retuned:
    """What a retuning came to."""

    look: retuning.Look
    result: Result | None
    """``None`` if there was nothing to do."""
    record: Record | None
    """What was decided; ``None`` if nothing was to do, or if the study was interrupted."""


def retune(
    spec: StudySpec, path: Path, console: Console, engine: Engine = Engine.INPROCESS, force: bool = False
) -> Retuned:
    """Look whether the data is new, tune from what is known, and let the gate decide about the winner.

    Raises: UserError as ``start`` does, and if the registered model or its ledger cannot be reached. A failure is
    recorded, and an alert sent, before it is raised.
    """
    torch.set_num_threads(1)
    desk = Desk.of_study(spec, path.resolve().parent)

    def warn(text: str) -> None:
        console.print(text, style="yellow", markup=False)

    with retuning.failures_told(spec, desk, warn):
        with console.status("comparing the data and scoring the champion"):
            found = retuning.look(spec, desk, force, warn)
        if not found.go:
            return Retuned(found, None, None)
        console.print(found.reason, markup=False)
        result = start(spec.model_copy(update={"warm_start": found.warm_start}), path, console, engine)
        if not result.finished:
            return Retuned(found, result, None)
        with console.status("comparing the winner with the champion"):
            record = _conclude_retuning(spec, desk, result.folder, found, warn)
    return Retuned(found, result, record)


def _conclude_retuning(
    spec: StudySpec, desk: Desk, folder: StudyFolder, found: retuning.Look, warn: Callable[[str], None]
) -> Record | None:
    """Let the gate decide about a finished study's winner; its run and its report say what came of it."""
    tracker = StudyTracker.open(spec, folder.record().study_id, folder.path.resolve().parent)
    data = build_evaluator(spec, threads(spec.execution)).data()
    if data is not None:
        tracker.log_data(data)
    record = retuning.conclude(spec, desk, folder, tracker, found, warn)
    write_report(folder, folder.spec())
    tracker.finish("FINISHED")
    return record


def write_report(folder: StudyFolder, spec: StudySpec, interactive: Path | None = None) -> Path:
    """Write the study's report as one HTML page into its folder; with ``interactive``, the one with charts there.

    Returns the path. Raises: UserError if it cannot be written.
    """
    path, found = interactive or folder.path / "report.html", make_report(folder, spec)
    try:
        write_atomically(path, (found.html if interactive is None else found.interactive).encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    return path


def _open_tracker(folder: StudyFolder, spec: StudySpec, console: Console) -> StudyTracker:
    # All studies beside each other share one local MLflow store.
    with console.status("opening MLflow (a new local store takes some seconds)"):
        return StudyTracker.open(spec, folder.record().study_id, folder.path.resolve().parent)


def _conduct(
    folder: StudyFolder,
    spec: StudySpec,
    evaluator: Evaluator,
    tracker: StudyTracker,
    console: Console,
    engine: Engine,
) -> Result:
    display = LiveProgress(console, spec, folder.history())
    mirror = TrackingListener(tracker, folder.history(), folder.state().summaries, display.warn)
    if (data := evaluator.data()) is not None:
        tracker.log_data(data)
    if (prior := folder.state().prior) is not None:
        tracker.log_prior(prior)
        card = prior.card
        console.print(
            f"begins with what {len(card.studies)} earlier studies have taught: prior {card.registered or card.name} "
            "(`prior: none` leaves it out)",
            markup=False,
            soft_wrap=True,
        )
    with _Interrupts(display.warn) as interrupts:
        with display:
            if engine is Engine.KFP:
                uri = tracker.connection.uri
                outcome = local_pipeline.run(folder, spec, uri, [display, mirror], lambda: interrupts.count)
            else:
                outcome = _run_here(folder, spec, [display, mirror], interrupts)
        best = folder.history().best()
        winner: Winner | None = None
        logged = mirror.flush()
        try:
            if outcome.finished and best is not None:
                with console.status("training the best configuration on train + validation"):
                    winner = crown(folder, spec, evaluator, tracker, best)
            with console.status("drawing and logging the report"):
                found = make_report(folder, spec)
                write_atomically(folder.path / "report.html", found.html.encode())
                log_report(tracker, found)
            tracker.finish("KILLED" if not outcome.finished else "FINISHED" if best is not None else "FAILED")
            if outcome.finished:
                told = {"study": spec.name, "reason": outcome.reason, "best": best.value if best is not None else None}
                alerts.send(spec.alerts, "budget_spent", told, display.warn)
        except UserError as error:
            display.warn(f"{error}\nThe study is whole in {folder.path}; `rlhpo resume {folder.path}` logs the rest.")
            logged, winner = False, folder.record().winner
    if outcome.finished and best is None:
        raise UserError(
            f"{failure_report(folder.history())}\n"
            f"Their full errors are in {folder.path}/report.html. Mend the cause and start the study again."
        )
    return Result(folder, outcome.reason, outcome.finished, best, winner, logged, tracker.url)


def _run_here(
    folder: StudyFolder, spec: StudySpec, listeners: Sequence[runner.Listener], interrupts: _Interrupts
) -> runner.Outcome:
    count = min(workers(spec.execution), spec.tuner.trials_per_round)
    with TrialPool(spec, count, threads(spec.execution)) as pool:
        interrupts.cancel = pool.cancel
        return runner.run(folder, spec, pool, listeners, lambda: interrupts.count > 0)


class _Interrupts:
    """Ctrl-C once: no further trial is started. Twice, or SIGTERM: trials at hand are given up, and run again later."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.cancel: Callable[[], None] = lambda: None
        """Called at the second."""
        self.count = 0
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.count = 2 if number == signal.SIGTERM else self.count + 1
        if self.count > 1:
            self.cancel()
        else:
            self.warn("Finishing the trials at hand; press Ctrl-C again to give them up.")
