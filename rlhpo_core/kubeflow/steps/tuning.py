"""The steps of the looping pipeline, up to the winner's registration.

Each reads the study from its store, so a run's parameters hold its address alone, however long the study file is. They
call the same functions of the tuner as the runner on one machine does, on the same seeds. So, on machines of one
kind, the same study has the same trials here and there. What must outlive a pod lies in the study's store: every
finished trial, and the state after every round. A step that is run again finds there what it had done: a trial is not
trained twice, a round not learnt from twice.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import pod
from rlhpo_core.kubeflow.steps import round_under_way
from rlhpo_core.kubeflow.steps.round_under_way import MORE, NOTHING, OVER
from rlhpo_core.kubeflow.steps.study import (
    catch_up,
    died,
    files_of,
    keep,
    log_trial,
    on_cpu,
    open_run,
    tracked,
    with_table,
)
from rlhpo_core.storage import lease
from rlhpo_core.storage.attempts import marked
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.storage.tables import fetch_table
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, Proposal, Trial

# What is slow to import (torch, MLflow, XGBoost) is imported by the step that needs it: each has a process of its own.
if TYPE_CHECKING:
    from rlhpo_core.tuner.state import TunerState

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Prepared:
    """What the first step hands on, apart from its files."""

    run_id: str
    """The study's run in MLflow; empty if the steps should not log to it."""
    table_name: str
    """File name of the table, whose ending tells its format; empty without a table."""
    proposals: list[str]
    """Of the round under way, as ``propose`` returns them."""
    more: str
    """MORE, or OVER if there is nothing to train."""
    open: str
    """MORE, or OVER if the study is at its end and its winner registered."""


def _renewing(step: Callable[Concatenate[str, P], R]) -> Callable[Concatenate[str, P], R]:
    """While the step works, its run holds the study."""

    @wraps(step)
    def renewing(store: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with lease.renewed(open_store(store)):
            return step(store, *args, **kwargs)

    return renewing


@pod.step
def prepare(
    store: str, table_source: str, table: Path, state: Path, log_trials: bool = True, kfp_run: str = ""
) -> Prepared:
    """Check the study, copy its table, open its run in MLflow, and hand out the state from which it goes on.

    A study that begins also gets the score of the library's defaults, which trials have to beat.

    Args:
        store: Where the study's files live, its study file among them, here as in all steps.
        table_source: A path or an address (``s3://…``) that takes the place of ``data.path``; empty for that itself.
        table: Written: the table, empty without one.
        state: Written: the tuner's state.
        log_trials: Whether the steps log to MLflow.
        kfp_run: This run's id in KFP, for which the study is held; empty if the caller holds it, or nobody.

    Raises: UserError if there is no study in the store, if another run or a process tunes it, if its data or its space
    cannot be used, or if MLflow cannot be reached.
    """
    files = open_store(store)
    with lease.held_by_run(files, kfp_run) if kfp_run else lease.held_while_prepared(files):
        return _prepare(store, table_source, table, state, log_trials)


def _prepare(store: str, table_source: str, table: Path, state: Path, log_trials: bool) -> Prepared:
    from rlhpo_core.evaluators.kinds import build_evaluator
    from rlhpo_core.execution.beginning import baseline_of
    from rlhpo_core.kubeflow import next_run
    from rlhpo_core.tuner import state_file

    files = files_of(store)
    next_run.note_beginning(files)
    spec, name = files.spec(), ""
    if spec.data is not None:
        name = fetch_table(table_source or spec.data.source, table)
    else:
        table.write_bytes(b"")
    # Trains with the library's defaults at most, and its pod has no accelerator.
    with with_table(on_cpu(spec), table, name) as local:
        evaluator = build_evaluator(local, 1, files.schema())
        evaluator.check_space(spec.space)
        data = evaluator.data()
        current = round_under_way.begun(files, spec, data)
        if (baseline := baseline_of(files, evaluator, current)) is not None:
            print(baseline.text, flush=True)
        # A study that is at its end stays FINISHED in MLflow: no later step would close its run again.
        over = next_run.is_over(files, spec) is not None
        run_id = open_run(spec, files, data) if log_trials and not over else ""
    state_file.save(current, state)
    if data is not None:
        print(f"{name}: {sum(data.rows.values())} rows, digest {data.digest}", flush=True)
    return Prepared(run_id, name, *round_under_way.proposed(files, spec, current), OVER if over else MORE)


@pod.step
def propose(store: str, state: Path) -> list[str]:
    """The round's proposals as JSON; ``[NOTHING]`` once the budget is spent or a stop was asked for.

    They are made once for a round, by ``prepare`` or by the ``update_policy`` of the round before, which have the state
    in memory: whoever comes to the round finds them in the store, and is mostly spared the import of torch.

    Args:
        state: The tuner's state at the start of the round.

    Raises: UserError if the study's files or the state cannot be read.
    """
    files = files_of(store)
    spec = files.spec()
    if (made := round_under_way.made_before(files, spec, state)) is not None:
        return made
    from rlhpo_core.tuner import state_file

    proposals, _ = round_under_way.proposed(files, spec, state_file.load(state))
    return proposals


@pod.step
@_renewing
def train(store: str, run_id: str, proposal: str, table: Path, table_name: str, trial: Path) -> Trial | None:
    """Train one proposal, in a process that may crash, hang or run out of memory; write its trial.

    A trial that took its pod down with it, twice, is not trained again and has failed.

    Args:
        run_id: The study's run in MLflow; if empty, nothing is logged.
        proposal: JSON of ``propose``, or ``NOTHING``.
        table: The table of ``prepare``.
        table_name: Its file name, whose ending tells its format.
        trial: Written: the trial as JSON; empty if none was trained.

    Returns: the trial; ``None`` for ``NOTHING``, and after a stop was asked for.

    Raises: UserError if the worker cannot build the evaluator, or if the store cannot be read. A trial that fails is a
    result. A store that fails once the trial is trained is waited for, and then left to ``update_policy``.
    """
    if proposal == NOTHING:
        trial.write_bytes(b"")
        return None
    files, wanted = files_of(store), Proposal.model_validate_json(proposal)
    spec, finished = files.spec(), files.trial(wanted.trial_id)
    if finished is None and files.stop_requested():
        trial.write_bytes(b"")
        return None
    if finished is None:
        finished = _trained(files, spec, wanted, table, table_name)
        # The artifact first: with it the trial goes on its way, even if the store stays away for good.
        trial.write_text(finished.model_dump_json(), encoding="utf-8")
        finished = keep(files, finished)
    trial.write_text(finished.model_dump_json(), encoding="utf-8")
    if run_id:
        log_trial(spec, run_id, finished)
    return finished


def _trained(files: StudyFiles, spec: StudySpec, proposal: Proposal, table: Path, table_name: str) -> Trial:
    """The trial of a proposal; one whose pods have died of it is not trained."""
    from rlhpo_core.execution.earlier_rounds import watching
    from rlhpo_core.execution.trial_pool import TrialPool

    counted = pod.in_pod()
    if counted and (failed := died(files, spec, proposal)) is not None:
        return failed
    watch = watching(files, spec, proposal.round)
    with (
        marked(files.store, proposal.trial_id, spec.cluster.trial_memory) if counted else nullcontext(),
        with_table(spec, table, table_name) as local,
        TrialPool(local, 1, pod.threads(spec.execution), files.schema(), files.address) as pool,
    ):
        (trial,) = pool.run([proposal], lambda: False, lambda *_: None, watch)
    return trial


def scores(trial: Trial | None) -> dict[str, float]:
    """What KFP shows of a trial of ``train``: its number, counted from 1, its value, and its other scores.

    Of one that was stopped early, the step of that.
    """
    if trial is None:
        return {}
    value = {} if trial.value is None else {"objective": trial.value}
    stopped = {} if trial.stop is None or trial.stop.step is None else {"stopped_at_step": float(trial.stop.step)}
    return {"trial": float(trial.proposal.number + 1), **value, **stopped, **trial.metrics}


@pod.step
def fit_reward_model(previous: Path, trials: Sequence[Path], state: Path) -> dict[str, float]:
    """Take the round's trials into the state and fit F; returns its diagnostics.

    The state stays as it was if one of the trials is missing: a round that was stopped is gone through again later.

    Args:
        previous: The state with which the round was proposed.
        trials: The round's files from ``train``.
        state: Written: the state with the trials and a fitted model.

    Returns: R² and rank correlation on trials that the model was not fitted on, coverage of its intervals (a share),
    and the number of trials; empty if there is no model yet.
    """
    from rlhpo_core.tuner import algorithm, state_file

    texts = [path.read_bytes() for path in trials]
    if not all(texts):
        shutil.copyfile(previous, state)
        return {}
    finished = [Trial.model_validate_json(text) for text in texts]
    fitted = algorithm.fit_reward_model(algorithm.observe(state_file.load(previous), finished))
    state_file.save(fitted, state)
    diagnostics = fitted.model.diagnostics if fitted.model is not None else None
    if diagnostics is None:
        return {}
    return {
        "r2": diagnostics.r2,
        "rank_correlation": diagnostics.rank_correlation,
        "coverage": diagnostics.coverage,
        "trials": float(diagnostics.n),
    }


@dataclass(frozen=True)
class RoundEnd:
    """What the last step of a round hands on, apart from the state."""

    more: str
    """MORE or OVER."""
    summary: dict[str, float]
    """Of the round; empty if it has no trials."""


@pod.step
@_renewing
def update_policy(store: str, run_id: str, previous: Path, state: Path) -> RoundEnd:
    """Move the policy, end the round, and put the state, and the proposals of the next round, into the store.

    Without trials in the round, the state stays as it was.

    Args:
        run_id: The study's run in MLflow; if empty, nothing is logged.
        previous: The state of ``fit_reward_model``.
        state: Written: the state at the start of the next round.

    Raises: UserError if the study's files cannot be read or written.
    """
    from rlhpo_core.tuner import algorithm, state_file

    before = state_file.load(previous)
    trials = [trial for trial in before.history.trials if trial.proposal.round == before.round]
    if not trials:
        shutil.copyfile(previous, state)
        return RoundEnd(OVER, {})
    files = files_of(store)
    spec, latest = files.spec(), files.state()
    if latest.round <= before.round:
        # The time is counted before the state says that the round is over: a step run again counts it at most twice.
        seconds = max(t.started_at + t.seconds for t in trials) - min(t.started_at for t in trials)
        record = files.record()
        files.write_record(record.model_copy(update={"seconds": record.seconds + seconds}))
        kept = [files.trial(trial.trial_id) or files.write_trial(trial) for trial in trials]
        latest = files.write_state(algorithm.update_policy(before if kept == trials else _learnt_from(before, kept)))
    # Where another run was first, both go on from what that one wrote.
    state_file.save(latest, state)
    if run_id:
        catch_up(spec, files, run_id)
    summary = latest.summaries[-1].model_dump(exclude={"model_phase"}, exclude_none=True)
    values = {name: float(value) for name, value in summary.items()}
    _, more = round_under_way.proposed(files, spec, latest)
    return RoundEnd(more, values)


@dataclass(frozen=True)
class Learnt:
    """What a step hands on that ends a round and begins the next, apart from the state."""

    proposals: list[str]
    """Of the next round, as ``propose`` returns them."""
    more: str
    """MORE, or OVER if there is nothing to train."""
    values: dict[str, float]
    """What ``fit_reward_model`` and ``update_policy`` say of the round."""


@pod.step
def learn(store: str, run_id: str, previous: Path, trials: Sequence[Path], state: Path) -> Learnt:
    """``fit_reward_model``, ``update_policy`` and the ``propose`` of the next round.

    Args:
        run_id: The study's run in MLflow; if empty, nothing is logged.
        previous: The state with which the round was proposed.
        trials: The round's files from ``train``.
        state: Written: the state at the start of the next round.

    Raises: UserError if the study's files cannot be read or written.
    """
    with tempfile.TemporaryDirectory() as folder:
        fitted = Path(folder) / "state"
        diagnostics = fit_reward_model(previous, trials, fitted)
        end = update_policy(store, run_id, fitted, state)
    proposals = propose(store, state) if end.more == MORE else [NOTHING]
    return Learnt(proposals, MORE if all(proposals) else OVER, {**diagnostics, **end.summary})


@pod.step
@_renewing
def conclude(store: str, table: Path, table_name: str) -> str:
    """Refit, score and register the winner if the budget is spent; returns what was registered, empty if nothing was.

    While budget is left, only sees to it that MLflow has all trials.

    Args:
        table: The table of ``prepare``.
        table_name: Its file name, whose ending tells its format.

    Returns: name and version of the registered model.

    Raises: UserError if the budget is spent and no trial has succeeded, or if MLflow cannot be reached.
    """
    from rlhpo_core.evaluators.kinds import build_evaluator
    from rlhpo_core.kubeflow import next_run
    from rlhpo_core.production.winner import register_winner
    from rlhpo_core.report.causes import failure_report
    from rlhpo_core.tracking.tracker import StudyTracker

    files = files_of(store)
    spec = files.spec()
    tracker = StudyTracker.open(spec, files.record().study_id, tracked(spec))
    history = files.history()
    if missing := tracker.complete(history, files.state().summaries, files.with_curve):
        print(f"warning: MLflow misses a part of the study ({', '.join(missing)}); the store has it all", flush=True)
    if (reason := spent(spec.budget, history, files.record().seconds)) is None:
        return ""
    if (best := history.best()) is None:
        tracker.finish("FAILED")
        raise UserError(f"{reason}; {failure_report(history)}")
    with with_table(spec, table, table_name) as local:
        evaluator = build_evaluator(local, pod.threads(spec.execution), files.schema())
        if (data := evaluator.data()) is not None:
            tracker.log_data(data)
        winner = register_winner(files, spec, evaluator, tracker, best)
    if winner is not None and winner.warning is not None:
        print(f"warning: {winner.warning}")
    tracker.finish("FINISHED")
    next_run.note_conclusion(files)
    return (winner.registered or "") if winner is not None else ""


def _learnt_from(state: TunerState, trials: Sequence[Trial]) -> TunerState:
    """The state with other trials of the round under way: those that another run was first to write."""
    from rlhpo_core.tuner import algorithm

    earlier = tuple(trial for trial in state.history.trials if trial.proposal.round < state.round)
    before = replace(state, history=History(direction=state.history.direction, trials=earlier))
    return algorithm.fit_reward_model(algorithm.observe(before, trials))
