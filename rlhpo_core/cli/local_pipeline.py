"""The looping pipeline on this machine, by KFP's local runner: the same steps as on a cluster, each a process.

A chunk of rounds runs in a process of its own (this module as a program), since KFP's local runner takes over logging;
its output goes to ``pipeline.log`` in the study's folder. Meanwhile this process watches the study's files and tells
the listeners what has happened.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhpo_core.cli.checkout import pipelines_module
from rlhpo_core.errors import UserError
from rlhpo_core.execution.process_group import Guard
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study import rounds
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec

# The process of a chunk, which this module is as well, is spared the import of torch.
if TYPE_CHECKING:
    from rlhpo_core.execution.runner import Listener, Outcome
    from rlhpo_core.tuner.state import TunerState

#: Seconds between two looks at the study's files.
_POLL = 0.5
_LOG = "pipeline.log"


def run(
    folder: StudyFolder,
    spec: StudySpec,
    tracking_uri: str,
    listeners: Sequence[Listener],
    interrupted: Callable[[], int] = lambda: 0,
) -> Outcome:
    """Tune until the budget is spent, or until ``interrupted()`` is 1 (finish the trials at hand) or more (kill them).

    Safe to kill at any moment.

    Args:
        folder: It is locked by the caller.
        tracking_uri: MLflow's, for the steps that log.

    Raises: UserError if the pipeline fails, with the end of its log.
    """
    from rlhpo_core.execution.runner import Outcome

    pipelines_module("tuning")
    folder.clear_stop()
    watch = _Watch(folder, listeners)
    while (reason := watch.spent(spec)) is None:
        before = watch.state.round
        process = _start(folder, spec, tracking_uri, watch.state)
        guard = Guard(process.pid)
        try:
            stopped = _accompany(process, folder, watch, interrupted)
        finally:
            guard.end()
        if stopped:
            folder.clear_stop()
            return Outcome(watch.state, "interrupted", finished=False)
        # A study without a success fails at its end, and what is wrong with it is said better than by a log.
        if watch.spent(spec) is None and (process.returncode != 0 or watch.state.round == before):
            raise UserError(f"the pipeline failed; the end of {folder.path / _LOG}:\n{_end_of_log(folder)}")
    return Outcome(watch.state, reason, finished=True)


def chunk(store: str, number: int, trials_per_round: int, root: str) -> None:
    """Run one chunk in this process, which becomes KFP's.

    Args:
        store: Where the study's files live, its study file among them.
        number: Of rounds.
        trials_per_round: At most.
        root: The folder in which KFP keeps the run's artifacts.
    """
    from kfp import local

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
    shape = pipelines_module("tuning").Shape(number, trials_per_round, cluster=None)
    pipelines_module("hpo_loop.pipeline").build(shape)(store=store, log_trials=False)


class _Watch:
    """Looks at the files of a study that other processes tune, and tells the listeners what is new."""

    def __init__(self, folder: StudyFolder, listeners: Sequence[Listener]) -> None:
        self._folder = folder
        self._listeners = listeners
        self.state = folder.state()
        """As of the latest look."""
        self._seen = {trial.trial_id for trial in folder.history(self.state).trials}

    def spent(self, spec: StudySpec) -> str | None:
        """Why the study is at its end; ``None`` while budget is left."""
        return spent(spec.budget, self.state.history, self._folder.record().seconds)

    def look(self) -> None:
        """Read the files anew, the state only if there is a newer one, and pass on trials and rounds that are new."""
        known = len(self.state.summaries)
        if self._folder.latest_round() != self.state.round:
            self.state = self._folder.state()
        new = [trial for trial in self._folder.history(self.state).trials if trial.trial_id not in self._seen]
        self._seen.update(trial.trial_id for trial in new)
        for listener in self._listeners:
            for trial in new:
                listener.trial_finished(trial)
            for summary in self.state.summaries[known:]:
                listener.round_finished(summary)


def _accompany(
    process: subprocess.Popen[bytes], folder: StudyFolder, watch: _Watch, interrupted: Callable[[], int]
) -> bool:
    """Watch the study until the process has ended, passing interruptions on; whether there was any."""
    passed_on = 0
    while process.poll() is None:
        if (level := min(interrupted(), 2)) > passed_on:
            passed_on = level
            if level == 1:
                folder.request_stop()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        watch.look()
        time.sleep(_POLL)
    watch.look()
    return passed_on > 0


def _start(folder: StudyFolder, spec: StudySpec, tracking_uri: str, state: TunerState) -> subprocess.Popen[bytes]:
    """A chunk in a process group of its own, so that Ctrl-C does not reach it.

    Args:
        state: From which it goes on.
    """
    left = rounds.count(spec.tuner, spec.budget.trials - len(state.history), first=state.round)
    fitting = min(left, pipelines_module("tuning").MOST_ROUNDS)
    settings = [str(folder.path.resolve()), str(fitting), str(spec.tuner.trials_per_round)]
    # What a step trains with is bounded by the study; everything else in it is small and best on one core.
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "OMP_NUM_THREADS": "1"}
    with (folder.path / _LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "rlhpo_core.cli.local_pipeline", *settings],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _end_of_log(folder: StudyFolder, lines: int = 30) -> str:
    path = folder.path / _LOG
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"


def main() -> None:
    """``python -m rlhpo_core.cli.local_pipeline FOLDER ROUNDS TRIALS_PER_ROUND``: what ``run`` starts."""
    path, number, trials_per_round = sys.argv[1:]
    folder = StudyFolder.open(Path(path))
    # The steps do not know the folder, to which paths in the study file may be relative.
    folder.write_spec(folder.spec())
    chunk(path, int(number), int(trials_per_round), str(Path(path) / "pipeline"))


if __name__ == "__main__":
    main()
