"""Trials that stop early, in worker processes and as steps of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhpo_core.evaluators.function import ALLOWED_MODULES
from rlhpo_core.execution import earlier_rounds
from rlhpo_core.execution.runner import run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.storage.object_store import FolderStore
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.budget import cost
from rlhpo_core.study.spec import StudySpec, parse_study
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Trial, TrialStatus
from tests.helpers import chunk, pictures, stepwise
from tests.helpers.comparison import comparable
from tests.helpers.mlflow_store import new_store
from tests.helpers.pool_study import kept_workers
from tests.helpers.stopping_study import study
from tests.helpers.tracked_studies import children

RULES: dict[str, Any] = {
    "median": {"rule": "median", "min_trials": 3},
    "asha": {"rule": "asha", "grace": 2, "reduction": 2},
    "learned": {"rule": "learned", "min_trials": 5},
}


@pytest.fixture(scope="module", autouse=True)
def _allowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ALLOWED_MODULES, "tests")
        patch.setenv("MLFLOW_TRACKING_URI", new_store(tmp_path_factory.mktemp("mlflow")))
        yield


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[int, TrialPool]]:
    """One worker, and three: for all studies, whose rule the pool is told."""
    spec = parse_study(study("none"), "here")
    with TrialPool(spec, 1, 1) as one, TrialPool(spec, 3, 1) as three:
        yield {1: one, 3: three}


def tuned(folder: Path, spec: StudySpec, pool: TrialPool) -> StudyFolder:
    files = StudyFolder.create(folder, spec, StudyRecord.new(spec))
    run(files, spec, pool, [])
    return files


def stopped(trials: tuple[Trial, ...]) -> dict[int, int | None]:
    """Number and step of those that were stopped."""
    return {trial.proposal.number: trial.stop.step for trial in trials if trial.stop is not None}


@pytest.mark.parametrize("rule", RULES)
def test_one_worker_three_workers_and_the_pipeline_stop_the_same_trials_at_the_same_steps(
    rule: str, pools: dict[int, TrialPool], tmp_path: Path
) -> None:
    text = study(RULES[rule])
    spec = parse_study(text, "here")
    one, three = (tuned(tmp_path / str(count), spec, pool) for count, pool in pools.items())
    put_study(str(tmp_path / "store"), spec)
    with kept_workers():
        chunk.main(str(tmp_path / "store"), tmp_path / "artifacts", 10)
    expected = one.whole_history().trials
    assert len(stopped(expected)) >= 3
    assert {trial.status for trial in expected} == {TrialStatus.COMPLETE, TrialStatus.PRUNED}
    for files in (three, StudyFiles(FolderStore(tmp_path / "store"))):
        trials = files.whole_history().trials
        assert stopped(trials) == stopped(expected)
        assert comparable(trials) == comparable(expected)
    assert len(expected) == spec.budget.trials, "a stopped trial counts"
    best = one.history().best()
    assert best is not None
    assert best.status is TrialStatus.COMPLETE


def test_an_interrupted_study_stops_the_same_trials_when_it_goes_on(
    pools: dict[int, TrialPool], tmp_path: Path
) -> None:
    spec = parse_study(study(RULES["median"]), "here")
    whole = tuned(tmp_path / "whole", spec, pools[3])
    parts = StudyFolder.create(tmp_path / "parts", spec, StudyRecord.new(spec))
    for most in (2, 7, 9):
        run(parts, spec, pools[1], [], interrupted=lambda most=most: len(list(parts.store.keys("trials/"))) >= most)  # type: ignore[misc]
    run(parts, spec, pools[3], [])
    assert comparable(parts.whole_history().trials) == comparable(whole.whole_history().trials)


@pytest.mark.parametrize("function", ["climb_regardless", "wrap_the_signal"])
def test_what_a_routine_makes_of_the_signal_is_no_score(
    function: str, pools: dict[int, TrialPool], tmp_path: Path
) -> None:
    plain = tuned(tmp_path / "plain", parse_study(study(RULES["median"]), "here"), pools[3])
    spec = parse_study(study(RULES["median"], function=function), "here")
    with TrialPool(spec, 2, 1) as pool:
        found = tuned(tmp_path / "found", spec, pool)
    assert comparable(found.whole_history().trials) == comparable(plain.whole_history().trials)


def test_a_stopped_trial_is_a_finished_run_with_its_curve_and_no_objective(
    pools: dict[int, TrialPool], tmp_path: Path
) -> None:
    spec = parse_study(study(RULES["median"], name="logged"), "here")
    files = tuned(tmp_path / "study", spec, pools[3])
    tracker = StudyTracker.open(spec, files.record().study_id, tmp_path)
    assert tracker.complete(files.history(), files.state().summaries, files.with_curve) == []
    runs = children(tracker)
    for trial in files.whole_history().trials:
        run_of = runs[trial.trial_id]
        assert run_of.info.status == "FINISHED"
        assert ("objective" in run_of.data.metrics) == (trial.stop is None)
        if trial.stop is not None:
            assert run_of.data.tags["rlhpo.stopped"] == trial.stop.reason
            assert run_of.data.tags["rlhpo.stopped_step"] == str(trial.stop.step)
            assert run_of.data.metrics["curve.height"] == trial.stop.value
    whole = tracker.client.get_run(tracker.run_id).data
    assert whole.params["stopping.rule"] == "median"


class Watched(FolderStore):
    """Remembers what was read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.seen: list[str] = []

    def read(self, key: str) -> bytes | None:
        self.seen.append(key)
        return super().read(key)

    def keys(self, prefix: str) -> Iterator[str]:  # type: ignore[override]
        raise AssertionError(f"{prefix} was listed")


@pytest.mark.parametrize("rule", ["none", "median"])
def test_a_trial_reads_the_files_of_the_latest_earlier_rounds_and_no_others(
    rule: str, pools: dict[int, TrialPool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_study(study(rule), "here")
    files = tuned(tmp_path / "study", spec, pools[3])
    monkeypatch.setattr(earlier_rounds, "MOST", 6)
    store = Watched(tmp_path / "study")
    trials = files.history().trials
    watch = earlier_rounds.watching(StudyFiles(store), spec, 3)(trials[12].proposal)
    if rule == "none":
        assert store.seen == []
        assert watch is None
        return
    wanted = {f"trials/{trial.trial_id}.json" for trial in trials if trial.proposal.round in (1, 2)}
    assert set(store.seen) == {"study.json", *wanted}
    assert watch is not None
    assert len(watch.earlier) == len(wanted) == 8
    assert watch.expected == trials[12].proposal.expected


def test_stopped_trials_cost_what_they_took(pools: dict[int, TrialPool], tmp_path: Path) -> None:
    spec = parse_study(study(RULES["median"], budget={"trials": 18, "cost": {"limit": 9, "per_trial_hour": 3600}}), "")
    history = tuned(tmp_path / "study", spec, pools[3]).history()
    assert cost(spec.budget, history) == pytest.approx(sum(trial.seconds for trial in history.trials))
    assert any(trial.stop is not None and trial.seconds > 0 for trial in history.trials)


def test_a_larger_budget_stops_the_trials_that_a_longer_study_would_have(
    pools: dict[int, TrialPool], tmp_path: Path
) -> None:
    short, long = (parse_study(study(RULES["asha"], trials=trials), "here") for trials in (8, 16))
    grown = tuned(tmp_path / "grown", short, pools[1])
    run(grown, long, pools[3], [])
    whole = tuned(tmp_path / "whole", long, pools[3])
    assert comparable(grown.whole_history().trials) == comparable(whole.whole_history().trials)


def test_xgboost_stops_between_its_trees(tmp_path: Path) -> None:
    text = stepwise.study(
        trials=12,
        space={**stepwise.SPACE, "n_estimators": {"type": "int", "low": 60, "high": 80}},
        tuner={"mode": "random", "trials_per_round": 6},
        stopping={"rule": "median", "grace": 20, "min_trials": 3},
        execution={"threads": 1},
    )
    spec = parse_study(text, "here")
    with TrialPool(spec, 2, 1) as pool:
        trials = tuned(tmp_path / "study", spec, pool).whole_history().trials
    early = [trial for trial in trials if trial.stop is not None]
    assert 1 <= len(early) <= 6
    assert all(trial.proposal.round == 1 for trial in early)
    for trial in trials:
        assert trial.curve
        assert [step for step, _ in trial.curve[:-1]] == list(range(10, 10 * len(trial.curve), 10))
        if trial.stop is None:
            assert trial.curve[-1] == (trial.config["n_estimators"], trial.value)
        else:
            assert trial.stop.step in (20, 30, 40, 50, 60, 70)
            assert trial.curve[-1] == (trial.stop.step, trial.stop.value)


def test_networks_stop_between_their_epochs_also_as_steps_of_the_pipeline(tmp_path: Path) -> None:
    spec = pictures.study(
        pictures.as_npz(tmp_path / "corners.npz"),
        metric="log_loss",
        epochs=5,
        evaluator={"params": {name: v for name, v in pictures.SMALL.items() if name != "learning_rate"}},
        space={"learning_rate": {"type": "float", "low": 0.0001, "high": 0.1, "log": True}},
        budget={"trials": 8},
        tuner={"mode": "random", "trials_per_round": 4},
        stopping="asha",
        execution={"threads": 1},
    )
    put_study(str(tmp_path / "store"), spec)
    with TrialPool(spec, 2, 1, checkpoints=str(tmp_path / "study")) as pool:
        expected = tuned(tmp_path / "study", spec, pool).whole_history().trials
    with kept_workers():
        chunk.main(str(tmp_path / "store"), tmp_path / "artifacts", 10)
    files = StudyFiles(FolderStore(tmp_path / "store"))
    assert comparable(files.whole_history().trials) == comparable(expected)
    early = [trial for trial in expected if trial.stop is not None]
    assert 1 <= len(early) <= 4
    assert all(trial.proposal.round == 1 for trial in early)
    for trial in expected:
        last = 5 if trial.stop is None else trial.stop.step
        assert [step for step, _ in trial.curve or ()] == list(range(1, (last or 0) + 1))
    for store in ("study", "store"):
        assert not list((tmp_path / store).glob("checkpoints/*"))
