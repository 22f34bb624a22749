"""The loop on this machine: the tuner's four steps, with trials in worker processes, until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.execution.earlier_rounds import watching
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.retries import patiently
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study import rounds
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Proposal, RoundSummary, Trial
from rlhpo_core.tuner import algorithm
from rlhpo_core.tuner.state import TunerState


class Listener(Protocol):
    """Hears what happens, as it happens. Must not raise."""

    def round_started(self, proposals: Sequence[Proposal]) -> None:
        """A round was proposed, and its training begins."""

    def trial_progressed(self, proposal: Proposal, step: int, value: float) -> None:
        """A running trial has reported the objective's value at one of its steps."""

    def trial_finished(self, trial: Trial) -> None:
        """A trial has ended, and its file is written."""

    def round_finished(self, summary: RoundSummary) -> None:
        """The tuner has learnt from a round, and its state is written."""


@dataclass(frozen=True)
class Outcome:
    """Why and with what a run ended."""

    state: TunerState
    reason: str
    """For a person to read."""
    finished: bool
    """False if there is budget left: the run was interrupted."""


def run(
    files: StudyFiles,
    spec: StudySpec,
    pool: TrialPool,
    listeners: Sequence[Listener],
    interrupted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Tune until the budget is spent or ``interrupted()`` turns true; then trials at hand are finished first.

    Safe to kill at any moment.

    Args:
        files: The study's files; the caller sees to it that no one else tunes the study.
        pool: Trains the trials; the caller opens and closes it.
        listeners: Called in this thread, as things happen.

    Raises: UserError if the evaluator cannot be built in a worker.
    """
    state, before, started = begin_study(files, spec), files.record().seconds, time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - started

    while (reason := spent(spec.budget, state.history, seconds())) is None:
        left = spec.budget.trials - len(state.history)
        proposals = algorithm.propose(state, min(rounds.size(spec.tuner, state.round), left))
        for listener in listeners:
            listener.round_started(proposals)
        trials = _train(files, spec, state, proposals, pool, listeners, interrupted, seconds)
        if interrupted() and len(trials) < len(proposals):
            return Outcome(state, "interrupted", finished=False)
        if trials:
            known = len(state.summaries)
            state = algorithm.update_policy(algorithm.fit_reward_model(algorithm.observe(state, trials)))
            with patiently(give_up=lambda: pool.cancelled):
                state = files.write_state(state)
            for summary in state.summaries[known:]:
                for listener in listeners:
                    listener.round_finished(summary)
        if interrupted():
            return Outcome(state, "interrupted", finished=spent(spec.budget, state.history, seconds()) is not None)
    return Outcome(state, reason, finished=True)


def _train(
    files: StudyFiles,
    spec: StudySpec,
    state: TunerState,
    proposals: Sequence[Proposal],
    pool: TrialPool,
    listeners: Sequence[Listener],
    interrupted: Callable[[], bool],
    seconds: Callable[[], float],
) -> list[Trial]:
    """The round's trials in the order of their numbers: those on file, and the rest trained and filed.

    Fewer than there are proposals if the study was interrupted, ran out of time or money, or only fails.
    """
    trials = [trial for proposal in proposals if (trial := files.trial(proposal.trial_id))]
    history = state.history.extended(trials)
    # A round is the unit in which the policy learns; lack of improvement does not end it early.
    budget = spec.budget.model_copy(update={"patience": None})

    def stop() -> bool:
        return interrupted() or spent(budget, history, seconds()) is not None

    def report(proposal: Proposal, step: int, value: float) -> None:
        for listener in listeners:
            listener.trial_progressed(proposal, step, value)

    watch = watching(files, spec, state.round)
    while waiting := _missing(proposals, trials):
        for finished in pool.run(waiting, stop, report, watch):
            # What was trained is not lost to a disk that is full or a store that is away: the study waits, and says so.
            with patiently(give_up=lambda: pool.cancelled):
                trial = files.write_trial(finished)
                files.write_record(files.record().model_copy(update={"seconds": seconds()}))
            trials.append(trial)
            history = history.extended([trial])
            for listener in listeners:
                listener.trial_finished(trial)
        # Where only failures made it stop, a trial at hand may have succeeded since: then the round goes on.
        if stop() or len(_missing(proposals, trials)) == len(waiting):
            break
    return _in_order(trials)


def _missing(proposals: Sequence[Proposal], trials: Sequence[Trial]) -> list[Proposal]:
    done = {trial.trial_id for trial in trials}
    return [proposal for proposal in proposals if proposal.trial_id not in done]


def _in_order(trials: Sequence[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: trial.proposal.number)
