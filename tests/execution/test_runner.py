"""The loop on this machine."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest

from rlhpo_core.execution.runner import Outcome, run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.storage.study_files import StudyRecord, Winner
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Proposal, RoundSummary, Trial, TrialStatus
from tests.helpers.comparison import comparable


def study(**fields: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "test",
            "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
            "objective": {"metric": "score", "direction": "maximize"},
            "space": {"act": {"type": "fixed", "value": "score"}, "x": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"trials": 12},
            **fields,
        }
    )


class Log:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.reports: list[tuple[int, int, float]] = []
        self.finished: list[int] = []
        self.summaries: list[RoundSummary] = []

    def round_started(self, proposals: Sequence[Proposal]) -> None:
        self.rounds.append([proposal.number for proposal in proposals])

    def trial_progressed(self, proposal: Proposal, step: int, value: float) -> None:
        self.reports.append((proposal.number, step, value))

    def trial_finished(self, trial: Trial) -> None:
        self.finished.append(trial.proposal.number)

    def round_finished(self, summary: RoundSummary) -> None:
        self.summaries.append(summary)


@pytest.fixture(scope="module")
def pool() -> Iterator[TrialPool]:
    """Workers for all studies of this module: they differ in what only the tuner knows."""
    with pytest.MonkeyPatch.context() as patch, TrialPool(study(), workers=2, threads=1) as started:
        patch.setenv("RLHPO_ALLOWED_MODULES", "tests")
        yield started


def tune(pool: TrialPool, folder: StudyFolder, spec: StudySpec, log: Log | None = None, **options: Any) -> Outcome:
    return run(folder, spec, pool, [log or Log()], **options)


def test_a_study_goes_through_its_rounds(tmp_path: Path, pool: TrialPool) -> None:
    folder, log = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study())), Log()
    outcome = tune(pool, folder, study(), log)
    assert outcome.finished
    assert outcome.reason == "all 12 trials done"
    assert log.rounds == [[0], [1], [2], [3], [4], [5, 6, 7, 8, 9], [10, 11]]
    assert sorted(log.finished) == list(range(12))
    assert len(log.reports) == 36
    assert [summary.trials for summary in log.summaries] == [1, 2, 3, 4, 5, 10, 12]
    found = folder.history()
    assert [t.proposal.number for t in found.trials] == list(range(12))
    assert all(t.value == 2 * float(t.config["x"]) for t in found.trials)
    assert all(t.metrics == {"doubled": pytest.approx(4 * float(t.config["x"]))} for t in found.trials)


def after(count: int, folder: StudyFolder) -> Callable[[], bool]:
    return lambda: len(list((folder.path / "trials").glob("*.json"))) >= count


@pytest.mark.parametrize("mode", ["mbrl_sdp", "random"])
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(mode: str, tmp_path: Path, pool: TrialPool) -> None:
    spec = study(tuner={"mode": mode}, budget={"trials": 17})
    whole = StudyFolder.create(tmp_path / "whole", spec, StudyRecord.new(spec))
    tune(pool, whole, spec)
    parts = StudyFolder.create(tmp_path / "parts", spec, StudyRecord.new(spec))
    for stop_at in (1, 7, 10, 11):
        outcome = tune(pool, parts, spec, interrupted=after(stop_at, parts))
        assert not outcome.finished
        assert outcome.reason == "interrupted"
        assert stop_at <= len(parts.history()) <= stop_at + 1
    log = Log()
    assert tune(pool, parts, spec, log).finished
    assert len(log.finished) <= 6
    assert comparable(parts.whole_history().trials) == comparable(whole.whole_history().trials)
    assert len(list((parts.path / "trials").iterdir())) == 17


def test_a_larger_budget_lets_a_finished_study_go_on(tmp_path: Path, pool: TrialPool) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    tune(pool, folder, study(budget={"trials": 7}))
    assert tune(pool, folder, study(budget={"trials": 7})).reason == "all 7 trials done"
    assert tune(pool, folder, study(budget={"trials": 9})).finished
    assert [t.proposal.number for t in folder.history().trials] == list(range(9))


def test_wall_time_holds_over_resumes_and_cuts_a_round_short(tmp_path: Path, pool: TrialPool) -> None:
    spec = study(budget={"trials": 12, "wall_time": "1h"})
    folder = StudyFolder.create(tmp_path / "a", spec, StudyRecord.new(spec))
    folder.write_record(folder.record().model_copy(update={"seconds": 3600.0}))
    outcome = tune(pool, folder, spec)
    assert outcome.finished
    assert outcome.reason == "wall time of 1:00:00 used up"
    assert len(folder.history()) == 0


def test_failed_trials_do_not_end_a_study(tmp_path: Path, pool: TrialPool) -> None:
    spec = study(
        space={
            "act": {"type": "categorical", "choices": ["score", "crash"]},
            "x": {"type": "float", "low": 0.0, "high": 1.0, "when": {"act": "score"}},
        },
        budget={"trials": 10},
    )
    folder = StudyFolder.create(tmp_path / "a", spec, StudyRecord.new(spec))
    outcome = tune(pool, folder, spec)
    statuses = {t.status for t in outcome.state.history.trials}
    assert len(outcome.state.history) == 10
    assert statuses == {TrialStatus.COMPLETE, TrialStatus.FAILED}


def test_a_study_that_only_fails_ends_within_a_round(tmp_path: Path, pool: TrialPool) -> None:
    spec = study(
        space={"act": {"type": "categorical", "choices": ["crash", "run_out_of_memory"]}},
        budget={"failures": 3},
        tuner={"mode": "random", "trials_per_round": 50},
    )
    folder = StudyFolder.create(tmp_path / "a", spec, StudyRecord.new(spec))
    outcome = tune(pool, folder, spec)
    assert outcome.finished
    assert outcome.reason == "3 trials in a row failed, and none has succeeded (budget.failures)"
    assert 3 <= len(folder.history()) <= 4, "three, and the one that was under way beside the last"
    assert tune(pool, folder, spec).reason == outcome.reason


def test_a_trial_at_hand_that_succeeds_lets_the_round_go_on(tmp_path: Path) -> None:
    class TwoAtOnce:
        """Begins trials by twos, of which the first, and only that, fails."""

        def run(self, proposals: Sequence[Proposal], stop: Callable[[], bool], *_: object) -> Iterator[Trial]:
            for pair in (proposals[i : i + 2] for i in range(0, len(proposals), 2)):
                if stop():
                    return
                for proposal in pair:
                    failed = {"status": TrialStatus.FAILED, "error": "no"}
                    good = {"status": TrialStatus.COMPLETE, "value": 1.0}
                    yield Trial(proposal=proposal, **(failed if proposal.number == 0 else good))

    spec = study(budget={"trials": 9, "failures": 1}, tuner={"mode": "random", "trials_per_round": 9})
    folder = StudyFolder.create(tmp_path / "a", spec, StudyRecord.new(spec))
    outcome = tune(TwoAtOnce(), folder, spec)  # type: ignore[arg-type]
    assert outcome.reason == "all 9 trials done"
    assert [summary.trials for summary in outcome.state.summaries] == [9], "one whole round"


class Noisy:
    """A pool whose trials score otherwise each time; it waits, for a moment, until the other run is as far."""

    cancelled = False

    def __init__(self, draw: random.Random, both: Barrier, trained: list[int]) -> None:
        self._draw, self._both, self._trained = draw, both, trained

    def run(self, proposals: Sequence[Proposal], *_: object) -> Iterator[Trial]:
        for proposal in proposals:
            with suppress(BrokenBarrierError):
                self._both.wait(0.2)
            self._trained.append(proposal.number)
            yield Trial(proposal=proposal, status=TrialStatus.COMPLETE, value=self._draw.random())


def test_two_runs_that_tune_one_study_at_once_agree_on_every_trial_and_round(tmp_path: Path) -> None:
    spec = study(budget={"trials": 12}, tuner={"mode": "random", "trials_per_round": 3})
    folder = StudyFolder.create(tmp_path / "a", spec, StudyRecord.new(spec))
    both, logs = Barrier(2), (Log(), Log())
    trained: tuple[list[int], list[int]] = ([], [])

    def tune_too(which: int) -> Outcome:
        pool = Noisy(random.Random(which), both, trained[which])  # noqa: S311
        return tune(pool, StudyFolder(folder.path), spec, logs[which])  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(tune_too, (0, 1)))
    kept = folder.state().history
    assert sum(map(len, trained)) > 12, "both have trained some of the trials"
    assert [trial.proposal.number for trial in kept.trials] == list(range(12))
    assert all(folder.trial(trial.trial_id) == trial for trial in folder.whole_history().trials)
    assert [trial.value for trial in folder.whole_history().trials] == [trial.value for trial in kept.trials]
    for outcome, log in zip(outcomes, logs, strict=True):
        assert outcome.finished
        assert outcome.state.history == kept
        assert log.summaries == list(folder.state().summaries), "each hears of each round once"


def test_files_of_a_study_are_plain_json(tmp_path: Path, pool: TrialPool) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    tune(pool, folder, study(budget={"trials": 1}))
    (file,) = (folder.path / "trials").iterdir()
    assert json.loads(file.read_text())["status"] == "complete"
    assert json.loads((folder.path / "study.json").read_text())["study_id"].startswith("test-")


def test_the_winner_survives_more_tuning(tmp_path: Path, pool: TrialPool) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    winner = Winner(trial_id="0" * 16, holdout={"accuracy": 0.5}, registered="m version 1")
    folder.write_record(folder.record().model_copy(update={"winner": winner}))
    tune(pool, folder, study(budget={"trials": 2}))
    assert folder.record().winner == winner
    assert folder.record().seconds > 0
