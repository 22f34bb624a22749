"""The looping pipeline on this machine, by KFP's local runner: the same steps as on a cluster, each a process.

A chunk of rounds runs in a process of its own (this module as a program), since KFP's local runner takes over logging;
its output goes to ``pipeline.log`` in the study's folder. Meanwhile this process watches the study's files and tells
the listeners what has happened.
"""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from rlhpo_core.errors import UserError
from rlhpo_core.execution.runner import Listener, Outcome
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec, dump_study
from rlhpo_core.trial import Trial

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

    The folder is locked by the caller. Safe to kill at any moment.

    Raises: UserError if the pipeline fails, with the end of its log.
    """
    pipeline_module()
    seen = {trial.trial_id for trial in folder.history().trials}
    rounds = folder.state().round
    while (reason := spent(spec.budget, folder.state().history, folder.record().seconds)) is None:
        before = folder.state().round
        process = _start(folder, spec, tracking_uri)
        stopping = 0
        while process.poll() is None:
            if (level := min(interrupted(), 2)) > stopping:
                stopping = level
                if level == 1:
                    folder.request_stop()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
            rounds = _tell(folder, spec, listeners, seen, rounds)
            time.sleep(_POLL)
        rounds = _tell(folder, spec, listeners, seen, rounds)
        if stopping:
            folder.clear_stop()
            return Outcome(folder.state(), "interrupted", finished=False)
        over = spent(spec.budget, folder.state().history, folder.record().seconds) is not None
        # A study without a success fails at its end, and what is wrong with it is said better than by a log.
        if not over and (process.returncode != 0 or folder.state().round == before):
            raise UserError(f"the pipeline failed; the end of {folder.path / _LOG}:\n{_end_of_log(folder)}")
    return Outcome(folder.state(), reason, finished=True)


def chunk(study: str, store: str, rounds: int, trials_per_round: int, root: str) -> None:
    """Run one chunk in this process, which becomes KFP's."""
    from kfp import local

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
    pipeline_module().build(rounds, trials_per_round, cluster=False)(study=study, store=store, log_trials=False)


def pipeline_module() -> ModuleType:
    """``pipelines.hpo_loop.pipeline``, which lies in the checkout and in the image, not in the wheel.

    Raises: UserError if it is not there.
    """
    root = Path(__file__).resolve().parents[2]
    if importlib.util.find_spec("pipelines") is None and (root / "pipelines").is_dir():
        sys.path.append(str(root))
    try:
        return importlib.import_module("pipelines.hpo_loop.pipeline")
    except ModuleNotFoundError as error:
        raise UserError(
            f"the pipeline cannot be imported ({error}); "
            "use a checkout of rlhpo, installed with pip install --editable, or the image"
        ) from error


def _start(folder: StudyFolder, spec: StudySpec, tracking_uri: str) -> subprocess.Popen[bytes]:
    """A chunk in a process group of its own, so that Ctrl-C does not reach it."""
    left = spec.budget.trials - len(folder.state().history)
    rounds = min(math.ceil(left / spec.tuner.trials_per_round), pipeline_module().MOST_ROUNDS)
    settings = [str(folder.path.resolve()), str(rounds), str(spec.tuner.trials_per_round)]
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


def _tell(folder: StudyFolder, spec: StudySpec, listeners: Sequence[Listener], seen: set[str], rounds: int) -> int:
    """Tell the listeners of trials and rounds that are new; returns the number of rounds that are over."""
    state, trials = folder.state(), folder.history().trials
    new: list[Trial] = [trial for trial in trials if trial.trial_id not in seen]
    for listener in listeners:
        for trial in new:
            listener.trial_finished(trial)
        for summary in state.summaries[rounds:]:
            listener.round_finished(summary)
    seen.update(trial.trial_id for trial in new)
    return len(state.summaries)


def _end_of_log(folder: StudyFolder, lines: int = 30) -> str:
    path = folder.path / _LOG
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"


def main() -> None:
    """``python -m rlhpo_core.cli.local_pipeline FOLDER ROUNDS TRIALS_PER_ROUND``: what ``run`` starts."""
    path, rounds, trials_per_round = sys.argv[1:]
    spec = StudyFolder.open(Path(path)).spec()
    chunk(dump_study(spec), path, int(rounds), int(trials_per_round), str(Path(path) / "pipeline"))


if __name__ == "__main__":
    main()
