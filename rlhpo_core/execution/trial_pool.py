"""Trials in worker processes: what a trial does, up to taking its process down with it, stays with the trial.

This is the parent's side; ``trial_worker`` is the other and has the messages. The parent alone decides how a trial
ended. It watches time and memory, and kills what goes beyond; a worker that is gone is replaced by a new one.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from rlhpo_core.data.schema import TableSchema
from rlhpo_core.errors import UserError
from rlhpo_core.execution import cgroup, worker_process
from rlhpo_core.execution.process_group import Guard
from rlhpo_core.execution.trial_worker import Message
from rlhpo_core.seeds import derive_seed
from rlhpo_core.stopping.watch import Watch
from rlhpo_core.storage.attempts import MOST_DEATHS
from rlhpo_core.storage.checkpoints import StoredCheckpoint
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.study.spec import ExecutionSpec, StudySpec
from rlhpo_core.trial import POD_MEMORY, Proposal, Stop, Trial, TrialStatus

#: Seconds between two looks at the clock, at memory and at whether to stop.
_POLL = 0.2
#: Seconds that a trial or a worker is given to end by itself.
_GRACE = 3.0
#: The share of a container's memory that is left free: what a trial may take between two looks.
_HEADROOM = 1 / 16
#: Seconds that a container is given to show that it has become emptier.
_RELIEF = 1.0


@dataclass
class _Job:
    """A trial that waits or is under way."""

    proposal: Proposal
    started_at: float = 0.0
    clock: float = 0.0
    """When it was started, by the monotonic clock, which does not go back."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    told_to_stop: float | None = None
    """When, by the monotonic clock."""
    deaths: int = 0
    """Worker processes that have died with it."""


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    connection: Connection
    guard: Guard
    """Ends what its trials have started, should this process be killed."""
    job: _Job | None = None
    fresh_memory: float | None = None
    """MB after building the evaluator; ``None`` until it is built."""
    doomed: str | None = None
    """Why it was killed. What it had still sent counts: a trial that ended in time is not lost to a late look."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What is kept of that with the trial."""

    @property
    def idle(self) -> bool:
        return self.fresh_memory is not None and self.job is None and self.doomed is None


class TrialPool:
    """Runs trials in worker processes. Use it as a context manager.

    Start it from a thread that outlives it: on Linux a worker dies with the thread that started it.
    ``execution.trial_memory_mb`` bounds the resident memory of a whole worker process with its children, libraries and
    data included, looked at five times a second: it stops a trial that grows, it is no hard wall. Workers import the
    module that was started as a script anew, so a script of one's own needs ``if __name__ == "__main__":``.

    A trial that has kept a checkpoint goes on from it in a new worker if its worker dies, once: it may have died of it.

    In a container, whose memory all processes share, the largest busy worker is stopped as well, in the same way, just
    below the container's own limit: beyond it the kernel would kill this process with it.

    Args:
        workers: Trials at once.
        threads: Of each trial.
        schema: By which the workers read the study's table; ``None`` if it has none.
        checkpoints: Address of the study's store, in which trials keep what they go on from if all of this is killed;
            ``None`` if they keep nothing. Whoever writes a trial's file clears it (``StudyFiles.write_trial``).
        container: The folder in which the kernel shows the container's limits.
    """

    def __init__(
        self,
        spec: StudySpec,
        workers: int,
        threads: int,
        schema: TableSchema | None = None,
        checkpoints: str | None = None,
        container: Path = cgroup.ROOT,
    ) -> None:
        self._spec = spec
        self._schema = schema
        self._size = workers
        self._threads = threads
        self._checkpoints = checkpoints
        limit = cgroup.memory_limit(container)
        self._container = container
        # In MB, as all that follows.
        self._container_most = None if limit is None else limit * (1 - _HEADROOM) / worker_process.MB
        self._relieved = -math.inf
        self._workers: list[_Worker] = []
        self._waiting: deque[_Job] = deque()
        self._cancelled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """End all workers: by closing their pipes, by SIGTERM to those that are busy, by SIGKILL to what is left."""
        for worker in self._workers:
            worker.connection.close()
            if not worker.idle:
                worker.process.terminate()
        deadline = time.monotonic() + _GRACE
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
        for worker in list(self._workers):
            self._discard(worker)

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    def begin(self, number: int) -> None:
        """Start workers ahead of the trials, so that they build the evaluator while something else is done.

        Args:
            number: How many there are to be, at most as many as the pool has.
        """
        for _ in range(min(number, self._size) - len(self._workers)):
            started = worker_process.start(self._spec, self._schema, self._threads, self._checkpoints)
            self._workers.append(_Worker(*started))

    def cancel(self) -> None:
        """End the pool's work for good; may be called from a signal handler or another thread.

        Trials under way are told to stop, and killed if they have not within seconds. They are not yielded.
        """
        # Just a flag, which the loop sees within _POLL: a lock could be held by whom the signal interrupted.
        self._cancelled = True

    def run(
        self,
        proposals: Sequence[Proposal],
        stop: Callable[[], bool],
        on_report: Callable[[Proposal, int, float], object],
        watch: Callable[[Proposal], Watch | None] = lambda proposal: None,
    ) -> Iterator[Trial]:
        """Yield the trials as they end. Once ``stop()`` is true no further one is started.

        Trials under way are then finished; they are killed when the consumer closes the iterator early.

        Args:
            proposals: Started in this order.
            stop: Asked before a trial is started, and several times a second.
            on_report: Called with a proposal, a step, and the objective's value at that step.
            watch: What watches over a proposal's trial and may stop it early, if anything does.

        Raises: UserError if a worker cannot build the evaluator.
        """
        waiting = self._waiting = deque(_Job(proposal) for proposal in proposals)
        try:
            while True:
                if waiting and (self._cancelled or stop()):
                    waiting.clear()
                self._hand_out(waiting, watch)
                if not waiting and not self._busy():
                    return
                yield from self._ended(on_report)
        finally:
            for worker, _ in self._busy():
                self._discard(worker)

    def _busy(self) -> list[tuple[_Worker, _Job]]:
        return [(worker, worker.job) for worker in self._workers if worker.job is not None]

    def _hand_out(self, waiting: deque[_Job], watch: Callable[[Proposal], Watch | None]) -> None:
        """Give the next trials to idle workers; start workers while there are more trials than workers."""
        for worker in [worker for worker in self._workers if worker.idle]:
            if not waiting:
                return
            job = waiting[0]
            proposal = job.proposal
            seed = derive_seed(self._spec.seed, proposal.round, "trial", proposal.index)
            drill = proposal.number + 1 in self._spec.execution.drill
            watched = watch(proposal)
            message = {
                "kind": "evaluate",
                "config": proposal.config,
                "seed": seed,
                "drill": drill,
                "trial": proposal.trial_id,
                "watch": None if watched is None else watched.model_dump(mode="json"),
            }
            if not self._worn_out(worker) and worker_process.send(worker.connection, message):
                worker.job = waiting.popleft()
                if not job.deaths:
                    job.started_at, job.clock = time.time(), time.monotonic()
            else:
                self._discard(worker)
        self.begin(len(self._busy()) + len(waiting))

    def _worn_out(self, worker: _Worker) -> bool:
        """Whether an idle worker has died, or holds on to so much memory that its next trial would be blamed for it."""
        limit = self._spec.execution.trial_memory_mb
        if limit is None or worker.fresh_memory is None or not worker.process.is_alive():
            return not worker.process.is_alive()
        # Half of what was left for trials. Some growth is common: the first trial imports what later ones need, too.
        return worker_process.memory(worker.process) > (worker.fresh_memory + limit) / 2

    def _ended(self, on_report: Callable[[Proposal, int, float], object]) -> list[Trial]:
        """Handle messages until a trial ends or _POLL has passed, then look after the workers; the ended trials."""
        trials: list[Trial | None] = []
        until = time.monotonic() + _POLL
        while not trials and (left := until - time.monotonic()) > 0:
            ready = connections.wait([worker.connection for worker in self._workers], timeout=left)
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                trials.extend(self._receive(worker, on_report))
        trials.extend(self._look_after())
        return [trial for trial in trials if trial is not None]

    def _receive(self, worker: _Worker, on_report: Callable[[Proposal, int, float], object]) -> list[Trial | None]:
        """Handle one message; the trial that it ended, if it did."""
        try:
            message: Message = json.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            return [self._died(worker)]
        if worker.fresh_memory is None:
            self._check_built(worker, message)
        elif worker.job is not None and message["kind"] == "report":
            _note_report(worker.job, message, on_report)
        elif worker.job is not None:
            job, worker.job = worker.job, None
            return [_trial(job, message)]
        return []

    def _check_built(self, worker: _Worker, message: Message) -> None:
        if message["kind"] == "failed":
            raise UserError(message["error"])
        worker.fresh_memory = worker_process.memory(worker.process)
        limit = self._spec.execution.trial_memory_mb
        if limit is not None and worker.fresh_memory >= limit:
            raise UserError(
                f"execution.trial_memory_mb: a worker needs {worker.fresh_memory:.0f} MB for libraries and data before "
                f"it trains anything, and the limit is {limit} MB; raise it"
            )
        most = self._container_most
        if most is not None and not self._busy() and (used := worker_process.used_by(self._container)) >= most:
            raise UserError(
                f"this container holds {used:.0f} MB before it trains anything, and {most:.0f} MB is the most that it "
                "may; raise its limit (on a cluster cluster.trial_memory)"
            )

    def _look_after(self) -> list[Trial | None]:
        """Kill what went beyond its time or memory; pass on a cancellation; notice deaths that closed no pipe."""
        for worker, job in self._busy():
            if self._cancelled and job.told_to_stop is None:
                job.told_to_stop = time.monotonic()
                worker_process.send(worker.connection, {"kind": "stop"})
            if worker.doomed is None and (excess := _excess(worker, job, self._spec.execution)) is not None:
                worker.doomed = excess
                worker_process.kill(worker.process)
        self._relieve_container()
        # A child that a trial has started may hold the pipe of a dead worker open.
        dead = [worker for worker in self._workers if not worker.process.is_alive() and not worker.connection.poll()]
        return [self._died(worker) for worker in dead]

    def _relieve_container(self) -> None:
        """Kill the largest busy worker if the container is about to run out of memory."""
        busy, most = self._busy(), self._container_most
        # What was killed just now gives its memory back in a moment.
        if most is None or not busy or time.monotonic() - self._relieved < _RELIEF:
            return
        if (used := worker_process.used_by(self._container)) <= most:
            return
        worker = max((worker for worker, _ in busy), key=lambda worker: worker_process.memory(worker.process))
        worker.doomed = (
            f"used {worker_process.memory(worker.process):.0f} MB of memory, {worker.fresh_memory:.0f} MB of it before "
            f"the trial; this container then held {used:.0f} MB, and {most:.0f} MB is the most that it may; raise its "
            "limit (on a cluster cluster.trial_memory) or narrow the search space"
        )
        self._relieved = time.monotonic()
        worker.metrics = {POD_MEMORY: round(most / (1 - _HEADROOM) * worker_process.MB / 1e6)}
        worker_process.kill(worker.process)

    def _died(self, worker: _Worker) -> Trial | None:
        """The trial that a dead worker leaves behind, if any; it may go on in another.

        Raises: UserError if the worker died before it was ready.
        """
        worker.process.join(_GRACE)
        reason = worker.doomed or _exit_reason(worker.process.exitcode)
        self._discard(worker)
        if worker.fresh_memory is None:
            raise UserError(f"{reason} while it loaded the data and built the evaluator; its output above may say why")
        if (job := worker.job) is None:
            return None
        job.deaths += 1
        if worker.doomed is None and job.told_to_stop is None and self._goes_on(job):
            # It will report all its values anew.
            job.curve.clear()
            self._waiting.appendleft(job)
            return None
        again = "" if job.deaths == 1 else ", after it had gone on from its checkpoint once before"
        return _trial(job, {"kind": "failed", "error": f"{reason}{again}", "metrics": worker.metrics})

    def _goes_on(self, job: _Job) -> bool:
        """Whether a trial whose worker has died has left something to go on from, and has not died of it before."""
        if self._checkpoints is None or job.deaths >= MOST_DEATHS:
            return False
        return StoredCheckpoint(partial(open_store, self._checkpoints), job.proposal.trial_id).exists()

    def _discard(self, worker: _Worker) -> None:
        """Let go of a worker: kill it, if it still lives, with whatever its trials have started."""
        self._workers.remove(worker)
        worker.connection.close()
        worker_process.kill(worker.process)
        worker.process.join()
        worker.guard.release()


# -- from data to data -----------------------------------------------------------------------------------------------


def _trial(job: _Job, message: Message) -> Trial | None:
    """How a trial ended, by the last message about it; ``None`` if it had been told to stop, for it will run again."""
    if job.told_to_stop is not None:
        return None
    end: Message
    match message:
        case {"kind": "done", "value": value, "metrics": metrics, "step": step} if math.isfinite(value):
            finite = {name: number for name, number in metrics.items() if math.isfinite(number)}
            if step is not None and (not job.curve or step > job.curve[-1][0]):
                job.curve.append((step, value))
            end = {"status": TrialStatus.COMPLETE, "value": value, "metrics": finite}
        case {"kind": "done", "value": value}:
            error = f"the objective came out as {value}; a trial needs a finite value"
            end = {"status": TrialStatus.INFEASIBLE, "error": error}
        case {"kind": "infeasible", "error": error}:
            end = {"status": TrialStatus.INFEASIBLE, "error": error}
        case {"kind": "stopped", "stop": None}:
            step, value = job.curve[-1] if job.curve else (None, None)
            end = {"status": TrialStatus.PRUNED, "stop": Stop(reason="it gave up by itself", step=step, value=value)}
        case {"kind": "stopped", "stop": stop}:
            end = {"status": TrialStatus.PRUNED, "stop": Stop.model_validate(stop)}
        case _:
            end = {"status": TrialStatus.FAILED, "error": message["error"], "metrics": message.get("metrics", {})}
    # A worker counts its own; what an earlier one took is a part of it, too.
    seconds = time.monotonic() - job.clock if job.deaths else message.get("seconds", time.monotonic() - job.clock)
    return Trial(proposal=job.proposal, curve=tuple(job.curve), started_at=job.started_at, seconds=seconds, **end)


def _note_report(job: _Job, message: Message, on_report: Callable[[Proposal, int, float], object]) -> None:
    step, value = message["step"], message["value"]
    if math.isfinite(value) and job.told_to_stop is None:
        job.curve.append((step, value))
        on_report(job.proposal, step, value)


def _excess(worker: _Worker, job: _Job, limits: ExecutionSpec) -> str | None:
    """Which limit a trial has gone beyond, for a person to read."""
    timeout = limits.trial_timeout.total_seconds() if limits.trial_timeout is not None else math.inf
    if time.monotonic() - job.clock > timeout:
        return f"ran longer than trial_timeout ({timeout:g} s)"
    if job.told_to_stop is not None and time.monotonic() - job.told_to_stop > _GRACE:
        return "did not heed the request to stop"
    if limits.trial_memory_mb is not None and (used := worker_process.memory(worker.process)) > limits.trial_memory_mb:
        return (
            f"used {used:.0f} MB of memory, {worker.fresh_memory:.0f} MB of it before the trial; the limit is "
            f"{limits.trial_memory_mb} MB; raise execution.trial_memory_mb or narrow the search space"
        )
    return None


def _exit_reason(code: int | None) -> str:
    if code is None:
        return "the process closed its pipe"
    if code >= 0:
        return f"the process exited with code {code}"
    names = {number.value: number.name for number in signal.Signals}
    reason = f"the process was killed by {names.get(-code, f'signal {-code}')}"
    return f"{reason} (out of memory?)" if -code == signal.SIGKILL else reason
