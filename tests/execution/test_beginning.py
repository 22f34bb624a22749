from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.execution import beginning
from rlhpo_core.execution.beginning import begin_study
from rlhpo_core.priors.store import builtin_names, load_prior
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec, load_study
from rlhpo_core.trial import POD_MEMORY, TrialStatus
from rlhpo_core.tuner.state import initial_state
from rlhpo_core.tuner.state_file import to_bytes
from tests.helpers.studies import CUBE, after_rounds, bowl, small_settings

SETTINGS = small_settings(model={"kind": "gp"}, screening={"candidates": 64})


def write(place: Path, name: str, **more: object) -> StudySpec:
    fields = {
        "name": name, "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
        "objective": {"metric": "score", "direction": "maximize"}, "space": CUBE.model_dump(),
        "tuner": SETTINGS.model_dump(mode="json"), **more,
    }  # fmt: skip
    path = place / f"{name}.json"
    path.write_text(StudySpec.model_validate(fields).model_dump_json())
    return load_study(path)


def test_a_study_names_an_earlier_one_by_its_folder(tmp_path: Path) -> None:
    before = write(tmp_path, "before")
    folder = StudyFolder.create(tmp_path / "runs" / "before", before, StudyRecord(study_id="earlier"))
    state = after_rounds(initial_state("earlier", 0, CUBE, "maximize", SETTINGS), bowl, 4)
    folder.write_state(state)
    spec = write(tmp_path, "after", warm_start="runs/before")
    assert spec.warm_start is not None
    assert spec.warm_start.study == str(tmp_path / "runs" / "before")
    files = StudyFolder.create(tmp_path / "runs" / "after", spec, StudyRecord(study_id="after"))
    start = begin_study(files, spec)
    assert to_bytes(files.state()) == to_bytes(start)
    assert start.inherited is not None
    assert start.inherited.source == "earlier"
    going = replace(start, round=1)
    files.write_state(going)
    assert begin_study(files, spec).round == 1, "a study that has begun is left alone"

    lost = write(tmp_path, "lost", warm_start="runs/nowhere")
    with pytest.raises(UserError, match="holds no study"):
        begin_study(StudyFolder.create(tmp_path / "runs" / "lost", lost, StudyRecord.new(lost)), lost)
    f1 = {"metric": "f1", "direction": "maximize"}
    other = write(tmp_path, "other", warm_start="runs/before", objective=f1)
    with pytest.raises(UserError, match="has the objective score; scores do not mix"):
        begin_study(StudyFolder.create(tmp_path / "runs" / "other", other, StudyRecord.new(other)), other)


def test_what_died_of_a_smaller_memory_limit_may_come_back(tmp_path: Path) -> None:
    """Its configuration counts as the worst in its own study, and in those that start from it under the same limit."""
    before = write(tmp_path, "small")
    folder = StudyFolder.create(tmp_path / "runs" / "small", before, StudyRecord(study_id="earlier"))
    state = after_rounds(initial_state("earlier", 0, CUBE, "maximize", SETTINGS), bowl, 2)
    dead = state.history.trials[1].model_copy(
        update={"status": TrialStatus.FAILED, "value": None, "error": "died", "metrics": {POD_MEMORY: 2000.0}}
    )
    trials = (state.history.trials[0], dead, *state.history.trials[2:])
    folder.write_state(replace(state, history=state.history.model_copy(update={"trials": trials})))
    for memory, count in (
        ("1G", len(trials)),
        ("2000M", len(trials)),
        ("2Gi", len(trials) - 1),
        ("4G", len(trials) - 1),
    ):
        spec = write(tmp_path, f"after-{memory}", warm_start="runs/small", cluster={"trial_memory": memory})
        start = begin_study(begun(tmp_path, spec.name, spec), spec)
        assert start.inherited is not None
        assert len(start.inherited.trials) == count, memory
        assert (dead.config in [trial.config for trial in start.inherited.trials]) == (count == len(trials))


def begun(tmp_path: Path, name: str, spec: StudySpec) -> StudyFolder:
    return StudyFolder.create(tmp_path / "runs" / name, spec, StudyRecord(study_id=name))


def test_the_first_state_is_worked_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write(tmp_path, "once")
    folder = begun(tmp_path, "once", spec)
    first = begin_study(folder, spec)

    def again(*_: object) -> None:
        raise AssertionError("the first state is worked out again")

    monkeypatch.setattr(beginning, "_first_state", again)
    assert to_bytes(begin_study(folder, spec)) == to_bytes(first) == to_bytes(folder.state())


def test_what_auto_means_is_fixed_when_the_study_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "xgboost-accuracy"
    wide = {"evaluator": {"kind": "xgboost"}, "space": "xgboost-wide", "objective": "accuracy", "tuner": {}}
    spec = write(tmp_path, "pinned", data={"path": "table.csv", "target": "y"}, **wide)
    folder = begun(tmp_path, "pinned", spec)
    assert (prior := begin_study(folder, spec).prior) is not None
    assert prior.card.name == name
    monkeypatch.setattr(beginning, "builtin_names", list)
    assert (kept := begin_study(folder, spec).prior) is not None
    assert kept.card == prior.card


FUNCTION = {"kind": "function", "function": "tests.helpers.functions:act"}
FEW = {"C": {"type": "float", "low": 0.1, "high": 10.0, "log": True}, "gamma": {"type": "fixed", "value": 0.1}}


@pytest.mark.parametrize(
    ("evaluator", "space", "objective", "name"),
    [
        ({"kind": "xgboost"}, "xgboost-wide", "average_precision", "xgboost-auc"),
        ({"kind": "xgboost"}, "xgboost-wide", "rmse", "xgboost-r2"),
        (FUNCTION, "lightgbm", "log_loss", "lightgbm-log-loss"),
        (FUNCTION, "lightgbm", "r2", "lightgbm-r2"),
        (FUNCTION, "xgboost-wide", "f1", "xgboost-accuracy"),
        (FUNCTION, FEW, "accuracy", "svc-accuracy"),
        (FUNCTION, "extra-trees", "mae", "random-forest-r2"),
        # Of another kind of task, of a metric of one's own, of more hyperparameters, of ranges beyond, of other names.
        (FUNCTION, FEW, "rmse", None),
        (FUNCTION, "lightgbm", {"metric": "profit", "direction": "maximize"}, None),
        (FUNCTION, {**FEW, "degree": {"type": "int", "low": 1, "high": 5}}, "accuracy", None),
        (FUNCTION, {**FEW, "gamma": {"type": "float", "low": 0.1, "high": 100.0}}, "accuracy", None),
        ({"kind": "xgboost"}, "xgboost-paper", "accuracy", None),
        (FUNCTION, CUBE.model_dump(), "accuracy", None),
    ],
)
def test_auto_takes_the_prior_of_the_algorithm_whatever_trains_it(
    evaluator: dict[str, str], space: object, objective: object, name: str | None, tmp_path: Path
) -> None:
    data = {"data": {"path": "table.csv", "target": "y"}} if evaluator["kind"] == "xgboost" else {}
    fields = {"evaluator": evaluator, "space": space, "objective": objective, "tuner": {}, **data}
    found = beginning.prior_of(write(tmp_path, "mine", **fields), tmp_path)
    assert (found and found.card.name) == name
    assert beginning.prior_of(write(tmp_path, "mine", prior="none", **fields), tmp_path) is None


def test_of_several_that_begin_at_once_all_go_on_from_one_state(tmp_path: Path) -> None:
    spec = write(tmp_path, "race")
    folder = begun(tmp_path, "race", spec)
    others = [initial_state("race", seed, CUBE, "maximize", SETTINGS) for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = {to_bytes(state) for state in threads.map(folder.write_state, others)}
    assert found == {to_bytes(folder.state())}


@pytest.mark.parametrize(
    ("learnt", "wanted", "named", "said"),
    [
        ("accuracy", "rmse", "mine.safetensors", "that is classification, and this one is judged by rmse"),
        ("accuracy", "auc", "mine.safetensors", "judged by accuracy and this one is judged by auc"),
        ("accuracy", "accuracy", "mine.safetensors", None),
        ("accuracy", "rmse", "auto", None),
        ("regret", "rmse", "mine.safetensors", None),
    ],
)
def test_a_prior_that_was_learnt_for_another_goal_is_told(
    learnt: str, wanted: str, named: str, said: str | None, tmp_path: Path
) -> None:
    prior = load_prior(builtin_names()[0])
    prior = replace(prior, card=prior.card.model_copy(update={"objective": learnt}))
    spec = write(tmp_path, "judged", objective=wanted, prior=named)
    remark = beginning.objective_remark(prior, spec)
    assert remark == said or (said is not None and remark is not None and said in remark)
