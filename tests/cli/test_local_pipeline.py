"""A chunk that another process runs is watched by the study's files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rlhpo_core.cli import local_pipeline
from rlhpo_core.errors import UserError
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Proposal, RoundSummary, Trial, TrialStatus
from rlhpo_core.tuner import algorithm

SPEC = StudySpec.model_validate(
    {
        "name": "watched",
        "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
        "objective": {"metric": "score", "direction": "maximize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "budget": {"trials": 4},
        "tuner": {"mode": "random", "trials_per_round": 2},
    }
)


class Process:
    """Stands in for a process: each time it is polled it takes a step of the work, and at the last it has ended."""

    pid = 4711

    def __init__(self, work: Iterator[object], returncode: int = 0) -> None:
        self.work, self.returncode = work, returncode

    def poll(self) -> int | None:
        return None if next(self.work, self) is not self else self.returncode


class Log:
    def __init__(self) -> None:
        self.trials: list[int] = []
        self.rounds: list[int] = []

    def round_started(self, proposals: Any) -> None: ...
    def trial_progressed(self, proposal: Proposal, step: int, value: float) -> None: ...
    def trial_finished(self, trial: Trial) -> None:
        self.trials.append(trial.proposal.number)

    def round_finished(self, summary: RoundSummary) -> None:
        self.rounds.append(summary.round)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder.create(tmp_path / "study", SPEC, StudyRecord.new(SPEC))
    begin_study(folder, SPEC)
    return folder


def rounds(folder: StudyFolder, count: int = 1) -> Iterator[object]:
    """What a chunk does to the study's files, bit by bit, its trials without training."""
    for _ in range(count):
        state = folder.state()
        trials = [
            Trial(proposal=proposal, status=TrialStatus.COMPLETE, value=proposal.number / 10, seconds=1.0)
            for proposal in algorithm.propose(state, 2)
        ]
        for trial in reversed(trials):
            folder.write_trial(trial)
            yield
        state = algorithm.update_policy(algorithm.fit_reward_model(algorithm.observe(state, trials)))
        folder.write_state(state)
        yield


class Guarding:
    """Stands in for a guard: knows the groups that are not ended yet."""

    groups: ClassVar[list[int]] = []

    def __init__(self, group: int) -> None:
        self.groups.append(group)

    def end(self) -> None:
        self.groups.pop()


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Has these processes run one after another."""
    monkeypatch.setattr(local_pipeline, "_POLL", 0.0)
    monkeypatch.setattr(local_pipeline, "Guard", Guarding)

    def play(*processes: Process) -> None:
        waiting = iter(processes)
        monkeypatch.setattr(local_pipeline, "_start", lambda *_: next(waiting))

    yield play
    assert Guarding.groups == [], "no chunk outlives the run"


def test_every_trial_and_round_is_told_once(folder: StudyFolder, chunks: Callable[..., None]) -> None:
    chunks(Process(rounds(folder)), Process(rounds(folder)))
    log = Log()
    outcome = local_pipeline.run(folder, SPEC, "", [log])
    assert log.trials == [1, 0, 3, 2], "as they ended"
    assert log.rounds == [0, 1]
    assert outcome.finished
    assert outcome.reason == "all 4 trials done"
    assert [trial.proposal.number for trial in outcome.state.history.trials] == [0, 1, 2, 3]


def test_what_was_there_before_is_not_told(folder: StudyFolder, chunks: Callable[..., None]) -> None:
    for _ in rounds(folder):
        pass
    chunks(Process(rounds(folder)))
    log = Log()
    local_pipeline.run(folder, SPEC, "", [log])
    assert (sorted(log.trials), log.rounds) == ([2, 3], [1])


def test_the_state_is_read_only_when_it_was_replaced(
    folder: StudyFolder, chunks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly() -> Iterator[object]:
        for step in rounds(folder, 2):
            for _ in range(5):
                yield step

    chunks(Process(slowly()))
    reads: list[str] = []
    read = folder.store.read.__func__  # type: ignore[attr-defined]
    work = folder.state

    def counted(store: Any, key: str) -> bytes | None:
        if key.startswith("state/"):
            reads.append(key)
        content: bytes | None = read(store, key)
        return content

    monkeypatch.setattr(type(folder.store), "read", counted)
    assert local_pipeline.run(folder, SPEC, "", [Log()]).finished
    # Once at first, and once after each round; the stand-in for the process reads it at the start of each round.
    assert len(reads) == 3 + 2
    assert work().round == 2


def test_one_interruption_asks_for_the_end_and_another_kills(
    folder: StudyFolder, chunks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *arguments: killed.append(arguments))
    levels = iter([0, 1, 1, 3])
    asked: list[bool] = []

    def work() -> Iterator[object]:
        for _ in range(4):
            yield
            asked.append(folder.stop_requested())

    chunks(Process(work(), -signal.SIGKILL))
    outcome = local_pipeline.run(folder, SPEC, "", [], lambda: next(levels))
    assert asked == [False, True, True, True]
    assert killed == [(Process.pid, signal.SIGKILL)]
    assert (outcome.finished, outcome.reason) == (False, "interrupted")
    assert not folder.stop_requested(), "the study can go on"


@pytest.mark.parametrize("code", [1, 0])
def test_a_chunk_that_fails_or_does_nothing_is_an_error_with_the_end_of_its_log(
    folder: StudyFolder, chunks: Callable[..., None], code: int
) -> None:
    (folder.path / "pipeline.log").write_text("\n".join(f"line {number}" for number in range(99)))
    chunks(Process(iter([None]), code))
    with pytest.raises(UserError, match=r"(?s)the pipeline failed; .*pipeline\.log:\nline 69\n.*line 98$"):
        local_pipeline.run(folder, SPEC, "", [])


def test_a_failure_at_the_end_of_a_study_is_left_to_whoever_reports(
    folder: StudyFolder, chunks: Callable[..., None]
) -> None:
    chunks(Process(rounds(folder, 2), 1))
    assert local_pipeline.run(folder, SPEC, "", []).finished


def test_neither_a_chunk_nor_a_step_begins_with_the_import_of_torch_or_mlflow() -> None:
    for module in ("rlhpo_core.cli.local_pipeline", "rlhpo_core.kubeflow.steps.tuning"):
        program = (
            f"import sys, {module}; print(*[name for name in ('torch', 'mlflow', 'pandas') if name in sys.modules])"
        )
        found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        assert found.stdout.strip() == "", module
