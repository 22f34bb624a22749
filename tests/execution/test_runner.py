"""The loop, its budgets and the study's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.execution.runner import Outcome, run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.report.study_report import failure_report
from rlhpo_core.storage.study_files import StudyRecord, Winner
from rlhpo_core.storage.study_folder import StudyFolder, studies
from rlhpo_core.study.budget import cost, spent
from rlhpo_core.study.spec import BudgetSpec, CostSpec, StudySpec
from rlhpo_core.trial import History, Proposal, RoundSummary, Trial, TrialStatus


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


def trial(number: int, value: float | None, seconds: float = 0.0) -> Trial:
    proposal = Proposal(trial_id=f"{number:016x}", number=number, round=0, index=number, config={}, actions=())
    status = TrialStatus.FAILED if value is None else TrialStatus.COMPLETE
    error = "Traceback …\nValueError: too deep" if value is None else None
    return Trial(proposal=proposal, status=status, value=value, seconds=seconds, error=error)


def history(*values: float | None, seconds: float = 0.0) -> History:
    return History(direction="maximize", trials=tuple(trial(n, v, seconds) for n, v in enumerate(values)))


# -- budgets ---------------------------------------------------------------------------------------------------------


def test_whichever_limit_comes_first_ends_the_study() -> None:
    budget = BudgetSpec(
        trials=10,
        wall_time=timedelta(seconds=60),
        cost=CostSpec(limit=2.0, per_trial_hour=3.0),
        patience=3,
    )
    assert spent(budget, history(), 0) is None
    assert spent(budget, history(*range(9)), 59) is None
    assert spent(budget, history(*range(10)), 0) == "all 10 trials done"
    assert spent(budget, history(1.0), 60) == "wall time of 0:01:00 used up"
    assert spent(budget, history(1.0, 2.0, seconds=1200), 0) == "cost limit of 2 used up"
    assert cost(budget, history(1.0, 2.0, seconds=1200)) == pytest.approx(2.0)
    assert spent(budget, history(1.0, 5.0, 4.0, 5.0), 0) is None
    assert spent(budget, history(1.0, 5.0, 4.0, 5.0, None), 0) == "no improvement in 3 trials"


def test_patience_waits_for_a_first_success() -> None:
    assert spent(BudgetSpec(trials=10, patience=2), history(None, None, None), 0) is None


def test_the_commonest_failures_are_counted() -> None:
    text = failure_report(history(None, None, None))
    assert text.splitlines() == ["none of the 3 trials succeeded:", "  3 × ValueError: too deep"]


# -- the folder ------------------------------------------------------------------------------------------------------


def test_a_folder_holds_one_study(tmp_path: Path) -> None:
    StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    with pytest.raises(UserError, match="holds a study already; continue it with `rlhpo resume"):
        StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    assert [folder.path.name for folder in studies(tmp_path)] == ["a"]
    assert StudyFolder.open(tmp_path / "a").spec() == study()


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no study"):
        StudyFolder.open(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the study folder"):
        StudyFolder.create(tmp_path / "file" / "a", study(), StudyRecord.new(study()))


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    (folder.path / "study.json").write_text('{"study_id": 3}')
    with pytest.raises(UserError, match=r"study\.json is missing or damaged"):
        folder.record()


def test_a_damaged_trial_is_named(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    (folder.path / "trials" / "0123.json").write_text("{")
    with pytest.raises(UserError, match=r"0123\.json is damaged"):
        folder.history()


def test_two_processes_cannot_tune_in_one_folder(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    assert not folder.busy()
    with folder.locked():
        assert folder.busy()
        with pytest.raises(UserError, match="being tuned by another process"), StudyFolder(folder.path).locked():
            pytest.fail("the lock was given twice")
    assert not folder.busy()


def test_the_winner_survives_more_tuning(tmp_path: Path, pool: TrialPool) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    winner = Winner(trial_id="0" * 16, holdout={"accuracy": 0.5}, registered="m version 1")
    folder.write_record(folder.record().model_copy(update={"winner": winner}))
    tune(pool, folder, study(budget={"trials": 2}))
    assert folder.record().winner == winner
    assert folder.record().seconds > 0


# -- the loop --------------------------------------------------------------------------------------------------------


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


def comparable(found: Iterable[Trial]) -> list[dict[str, Any]]:
    """All that has to be the same when a study is run again: everything but identities and times."""
    changing = {"proposal": {"trial_id"}, "started_at": True, "seconds": True}
    return [trial.model_dump(exclude=changing) for trial in found]


def test_a_study_goes_through_its_rounds(tmp_path: Path, pool: TrialPool) -> None:
    folder, log = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study())), Log()
    outcome = tune(pool, folder, study(), log)
    assert outcome.finished
    assert outcome.reason == "all 12 trials done"
    assert log.rounds == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert sorted(log.finished) == list(range(12))
    assert len(log.reports) == 36
    assert [summary.trials for summary in log.summaries] == [5, 10, 12]
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
    assert comparable(parts.history().trials) == comparable(whole.history().trials)
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


def test_files_of_a_study_are_plain_json(tmp_path: Path, pool: TrialPool) -> None:
    folder = StudyFolder.create(tmp_path / "a", study(), StudyRecord.new(study()))
    tune(pool, folder, study(budget={"trials": 1}))
    (file,) = (folder.path / "trials").iterdir()
    assert json.loads(file.read_text())["status"] == "complete"
    assert json.loads((folder.path / "study.json").read_text())["study_id"].startswith("test-")
