"""The pipeline's steps, run one after another as KFP would, and again after every kind of interruption."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.execution.runner import run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.kubeflow.steps import round_under_way, tuning
from rlhpo_core.storage import lease
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import parse_study
from rlhpo_core.trial import Proposal, Trial, TrialStatus
from tests.helpers.comparison import comparable
from tests.helpers.mlflow_store import new_store
from tests.helpers.pool_study import kept_workers
from tests.helpers.stepwise import DATA, study


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    uri = new_store(tmp_path_factory.mktemp("mlflow"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        # KFP's backend sets this in every pod; trials must not end up in that run (mlflow#15713).
        patch.setenv("MLFLOW_RUN_ID", "0" * 32)
        yield uri


@pytest.fixture(scope="module")
def workers() -> Iterator[None]:
    with kept_workers():
        yield


class Chunk:
    """A run of the pipeline: rounds after one another, artifacts as files."""

    def __init__(self, text: str, store: Path, folder: Path) -> None:
        self.store, self.folder = str(store), folder
        folder.mkdir()
        self.table, self.state = folder / "table", folder / "state-0"
        put_study(self.store, parse_study(text, "sent"))
        self.prepared = tuning.prepare(self.store, "", self.table, self.state)
        self.more = self.prepared.more

    def train(self, proposals: list[str]) -> list[Path]:
        paths = []
        for index, proposal in enumerate(proposals):
            paths.append(self.folder / f"{self.state.name}-trial-{index}")
            run_id, name = self.prepared.run_id, self.prepared.table_name
            tuning.train(self.store, run_id, proposal, self.table, name, paths[-1])
        return paths

    def round(self, number: int) -> None:
        trials = self.train(tuning.propose(self.store, self.state))
        fitted, after = self.folder / f"fitted-{number}", self.folder / f"state-{number}"
        tuning.fit_reward_model(self.state, trials, fitted)
        self.more = tuning.update_policy(self.store, self.prepared.run_id, fitted, after).more
        self.state = after

    def end(self) -> str:
        return tuning.conclude(self.store, self.table, self.prepared.table_name)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The trials of the same study by the runner on one machine."""
    spec = parse_study(study(), "here")
    folder = StudyFolder.create(tmp_path_factory.mktemp("whole") / "study", spec, StudyRecord.new(spec))
    with TrialPool(spec, 2, 1) as pool:
        run(folder, spec, pool, [])
    return comparable(folder.whole_history().trials)


def test_the_steps_make_the_trials_that_the_runner_makes(
    workers: None, tracking: str, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    chunk = Chunk(study(), tmp_path / "store", tmp_path / "chunk")
    for number in range(1, math.ceil(7 / 3) + 1):
        assert chunk.more == round_under_way.MORE
        chunk.round(number)
    assert chunk.more == round_under_way.OVER
    assert tuning.propose(chunk.store, chunk.state) == [round_under_way.NOTHING]
    assert chunk.prepared.open == round_under_way.MORE
    assert chunk.end() == "stepwise version 1"
    # A run that finds the study at its end leaves it so in MLflow, where no later step would.
    idle = tuning.prepare(chunk.store, "", tmp_path / "table", tmp_path / "state")
    assert (idle.more, idle.open, idle.run_id) == (round_under_way.OVER, round_under_way.OVER, "")
    assert MlflowClient(tracking).get_run(chunk.prepared.run_id).info.status == "FINISHED"
    folder = StudyFolder(tmp_path / "store")
    trials = folder.whole_history().trials
    assert comparable(trials) == expected
    assert [trial.status for trial in trials].count(TrialStatus.FAILED) == 1
    assert "on purpose" in (trials[1].error or "")
    assert folder.record().baseline == build_evaluator(parse_study(study(), "here"), 1).baseline()

    store = MlflowClient(tracking)
    children = store.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{chunk.prepared.run_id}'")
    assert sorted(int(run.data.tags["rlhpo.trial"]) for run in children) == list(range(1, 8))
    assert sorted(run.info.status for run in children) == ["FAILED", *["FINISHED"] * 6]
    rounds = store.get_metric_history(chunk.prepared.run_id, "round.trials")
    assert [metric.step for metric in rounds] == [1, 2, 3]


def test_a_chunk_killed_in_the_middle_is_gone_through_again_without_repeating_anything(
    workers: None, tracking: str, expected: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    first = Chunk(study(), store, tmp_path / "first")
    first.round(1)
    # Killed after two of three trials of the second round.
    first.train(tuning.propose(str(store), first.state)[:2])

    second = Chunk(study(), store, tmp_path / "second")
    before = {path.name: path.stat().st_mtime_ns for path in (store / "trials").iterdir()}
    second.round(1)
    # KFP may repeat any step: none of them changes anything the second time.
    tuning.update_policy(str(store), second.prepared.run_id, tmp_path / "second" / "fitted-1", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == second.state.read_bytes()
    for number in (2, 3):
        second.round(number)
    folder = StudyFolder(store)
    assert comparable(folder.whole_history().trials) == expected
    assert {name: (store / "trials" / name).stat().st_mtime_ns for name in before} == before
    assert second.end()


def test_runs_that_begin_at_once_are_one_study_in_mlflow(
    workers: None, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a pipeline of one's own, which does not hold the study; MLflow is slow, so that all come to look first."""
    create_run = MlflowClient.create_run

    def slowly(*args: Any, **kwargs: Any) -> Run:
        time.sleep(1)
        return create_run(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", slowly)
    put_study(str(tmp_path / "store"), parse_study(study(), "sent"))
    with ThreadPoolExecutor(3) as threads:
        chunks = list(threads.map(lambda n: Chunk(study(), tmp_path / "store", tmp_path / n), ("one", "two", "three")))
    monkeypatch.undo()
    assert len({chunk.prepared.run_id for chunk in chunks}) == 1
    for chunk in chunks:
        chunk.round(1)
    children = f"tags.`mlflow.parentRunId` = '{chunks[0].prepared.run_id}'"
    assert len(MlflowClient(tracking).search_runs(["1"], children)) == 3
    lock = lease.refused(open_store(str(tmp_path / "store")))
    assert lock is None, "nobody holds it afterwards"


def test_a_stopped_round_is_not_learnt_from(workers: None, tracking: str, tmp_path: Path) -> None:
    chunk = Chunk(study(), tmp_path / "store", tmp_path / "chunk")
    proposals = tuning.propose(chunk.store, chunk.state)
    trials = chunk.train(proposals[:1])
    StudyFolder(tmp_path / "store").request_stop()
    trials += chunk.train(proposals[1:])[-2:]
    assert [bool(path.read_bytes()) for path in trials].count(True) <= 1
    tuning.fit_reward_model(chunk.state, trials, tmp_path / "fitted")
    assert (tmp_path / "fitted").read_bytes() == chunk.state.read_bytes()
    assert tuning.propose(chunk.store, chunk.state) == [round_under_way.NOTHING]
    assert chunk.end() == "", "budget is left: nothing is registered yet"
    again = Chunk(study(), tmp_path / "store", tmp_path / "again")
    assert tuning.propose(again.store, again.state) == proposals


def test_a_step_stands_alone_with_no_more_than_a_study_file(tracking: str, tmp_path: Path) -> None:
    chunk = Chunk(study(), tmp_path / "store", tmp_path / "chunk")
    (proposal, *_) = tuning.propose(chunk.store, chunk.state)
    put_study(str(tmp_path / "alone"), parse_study(study(), "sent"))
    found = tuning.train(
        str(tmp_path / "alone"), "", proposal, chunk.table, chunk.prepared.table_name, tmp_path / "trial"
    )
    assert found is not None
    assert Trial.model_validate_json((tmp_path / "trial").read_text()) == found
    assert StudyFolder(tmp_path / "alone").trial(found.trial_id) == found
    assert list((tmp_path / "store" / "trials").glob("*")) == []


def test_proposals_that_were_made_are_handed_out_without_torch(tracking: str, tmp_path: Path) -> None:
    chunk = Chunk(study(name="handed-out"), tmp_path / "store", tmp_path / "chunk")
    program = (
        "import sys; from pathlib import Path; from rlhpo_core.kubeflow.steps import tuning\n"
        "print(*tuning.propose(sys.argv[1], Path(sys.argv[2])), sep='\\n'); sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, chunk.store, str(chunk.state)]
    handed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert handed == chunk.prepared.proposals
    files = StudyFolder(tmp_path / "store")
    files.request_stop()
    assert tuning.propose(chunk.store, chunk.state) == [round_under_way.NOTHING]
    files.clear_stop()
    # Whoever finds none makes the same.
    files.store.delete("proposals/000000.json")
    assert tuning.propose(chunk.store, chunk.state) == handed


def test_the_end_of_a_round_makes_the_next_rounds_proposals(workers: None, tracking: str, tmp_path: Path) -> None:
    chunk = Chunk(study(name="made-ahead"), tmp_path / "store", tmp_path / "chunk")
    chunk.round(0)
    made = StudyFolder(tmp_path / "store").store.read("proposals/000001.json")
    assert made is not None
    handed = tuning.propose(chunk.store, chunk.state)
    assert [Proposal.model_validate_json(text) for text in handed] == [
        Proposal.model_validate_json(json.dumps(one)) for one in json.loads(made)
    ]
    # A state of a round that its files do not go with is read whole.
    for key in StudyFolder(tmp_path / "store").store.keys("trials/"):
        StudyFolder(tmp_path / "store").store.delete(key)
    assert tuning.propose(chunk.store, chunk.state) == handed


def test_without_a_study_in_the_store_a_step_says_so(tracking: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no study"):
        tuning.prepare(str(tmp_path / "store"), "", tmp_path / "table", tmp_path / "state")


def test_a_store_with_another_study_is_refused(tracking: str, tmp_path: Path) -> None:
    Chunk(study(), tmp_path / "store", tmp_path / "chunk")
    with pytest.raises(UserError, match=r"holds a study that differs in seed \(was 0, is 1\)"):
        Chunk(study(seed=1), tmp_path / "store", tmp_path / "other")
    Chunk(study(trials=9), tmp_path / "store", tmp_path / "longer")


def test_a_store_with_a_study_of_another_table_is_refused(tracking: str, tmp_path: Path) -> None:
    Chunk(study(), tmp_path / "store", tmp_path / "chunk")
    lines = DATA.read_text().splitlines()
    (tmp_path / "newer.csv").write_text("\n".join(lines[:-100]) + "\n")
    with pytest.raises(UserError, match=r"another table \(data\.path"):
        tuning.prepare(str(tmp_path / "store"), str(tmp_path / "newer.csv"), tmp_path / "table", tmp_path / "state")


def test_a_table_from_elsewhere_takes_the_place_of_the_studys(tracking: str, tmp_path: Path) -> None:
    put_study(str(tmp_path / "store"), parse_study(study(), "sent"))
    with pytest.raises(UserError, match=r"cannot read the table .*absent\.csv"):
        tuning.prepare(str(tmp_path / "store"), "absent.csv", tmp_path / "table", tmp_path / "state")
    found = tuning.prepare(str(tmp_path / "store"), str(DATA), tmp_path / "table", tmp_path / "state")
    assert found.table_name == "german_credit.csv"


def test_a_second_run_on_a_store_is_refused_as_long_as_the_first_may_live(tracking: str, tmp_path: Path) -> None:
    store, where = str(tmp_path / "store"), (tmp_path / "table", tmp_path / "state")
    put_study(store, parse_study(study(), "sent"))
    for _ in range(2):  # KFP may repeat the step.
        tuning.prepare(store, "", *where, kfp_run="first")
    with pytest.raises(UserError, match=r"store is being tuned by run first since .+; if it is dead, try again after"):
        tuning.prepare(store, "", *where, kfp_run="second")
    with pytest.raises(UserError, match=r"cannot read the table"):
        tuning.prepare(store, "absent.csv", *where, kfp_run="first")
    tuning.prepare(store, "", *where, kfp_run="second")


def test_without_a_server_a_pipeline_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    put_study(str(tmp_path / "store"), parse_study(study(), "sent"))
    with pytest.raises(UserError, match="a pipeline needs an MLflow server"):
        tuning.prepare(str(tmp_path / "store"), "", tmp_path / "table", tmp_path / "state")


def test_a_study_of_failures_ends_with_their_cause(workers: None, tracking: str, tmp_path: Path) -> None:
    text = study(trials=2, execution={"drill": [1, 2], "threads": 1})
    chunk = Chunk(text, tmp_path / "store", tmp_path / "chunk")
    chunk.round(1)
    with pytest.raises(UserError, match="none of the 2 trials succeeded"):
        chunk.end()


def test_steps_log_nothing_if_another_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    table, state = tmp_path / "table", tmp_path / "state"
    # No server is needed, where a step that logs would refuse to log into a pod's own files.
    put_study(str(tmp_path / "store"), parse_study(study(), "sent"))
    prepared = tuning.prepare(str(tmp_path / "store"), "", table, state, log_trials=False)
    assert prepared.run_id == ""
    (proposal, *_) = tuning.propose(str(tmp_path / "store"), state)
    tuning.train(str(tmp_path / "store"), "", proposal, table, prepared.table_name, tmp_path / "trial")
    assert Trial.model_validate_json((tmp_path / "trial").read_bytes()).value is not None


def test_preparing_needs_no_gpu_and_a_trial_does(tracking: str, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    put_study(store, parse_study(study(trials=3, execution={"device": "cuda"}), "sent"))
    table, state = tmp_path / "table", tmp_path / "state"
    prepared = tuning.prepare(store, "", table, state, log_trials=False)
    proposals = tuning.propose(store, state)
    assert len(proposals) == 3
    no_gpu = r"execution\.device: cuda, but XGBoost finds no GPU here"
    with pytest.raises(UserError, match=no_gpu):
        tuning.train(store, "", proposals[0], table, prepared.table_name, tmp_path / "trial")
    # As pods with a GPU would have trained them: what learns from them needs none, and the refit does.
    trials = [tmp_path / f"trial-{number}" for number in range(3)]
    for path, text in zip(trials, proposals, strict=True):
        one = Proposal.model_validate_json(text)
        trial = Trial(proposal=one, status=TrialStatus.COMPLETE, value=one.number / 10, started_at=0.0, seconds=1.0)
        path.write_text(trial.model_dump_json())
    learnt = tuning.learn(store, "", state, trials, tmp_path / "after")
    assert (learnt.more, learnt.values["trials"]) == (round_under_way.OVER, 3)
    with pytest.raises(UserError, match=no_gpu):
        tuning.conclude(store, table, prepared.table_name)


# -- words that mean something to what stands in between --------------------------------------------------------------

ODD = ["红", "🚀 {{ quarter }}", "{{workflow.name}}"]


def test_names_in_any_script_and_templates_arrive_as_they_stand(
    workers: None, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    fields = {"kind": "function", "function": "tests.helpers.functions:length", "options": {"of": "标签 🚀"}}
    text = study(
        trials=3, evaluator=fields, objective={"metric": "score", "direction": "maximize"}, data=None, registry={},
        space={"颜色": {"type": "categorical", "choices": ODD}}, tracking={"experiment": "{{ quarter }} 第三季度"},
        execution={"threads": 1},
    )  # fmt: skip
    chunk = Chunk(text, tmp_path / "store", tmp_path / "chunk")
    sent = [*chunk.prepared.proposals, *tuning.propose(chunk.store, chunk.state)]
    assert len(sent) == 6
    # KFP keeps them in its database, and Argo in a workflow.
    assert all(one.isascii() and "{{" not in one for one in sent)
    chunk.round(1)
    trials = StudyFolder(tmp_path / "store").history().trials
    assert {trial.proposal.config["颜色"] for trial in trials} <= set(ODD)
    assert [trial.value for trial in trials] == [len(trial.proposal.config["颜色"]) + 4 for trial in trials]
    store = MlflowClient(tracking)
    experiment = store.get_experiment_by_name("{{ quarter }} 第三季度")
    assert experiment is not None
    children = f"tags.`mlflow.parentRunId` = '{chunk.prepared.run_id}'"
    shown = [run.data.params["颜色"] for run in store.search_runs([experiment.experiment_id], children)]
    assert sorted(shown) == sorted(trial.proposal.config["颜色"] for trial in trials)


def test_a_table_in_another_script_is_learnt_and_logged(tracking: str, tmp_path: Path) -> None:
    rows = [f"{(n * 37) % 120},{'红绿'[n % 2]}😀,{'是否'[(n * 37) % 120 < 60]}" for n in range(120)]
    table = tmp_path / "数据.csv"
    table.write_text("\n".join(["数值,颜色,目标", *rows]) + "\n", encoding="utf-8")
    text = study(
        trials=1, data={"path": str(table), "target": "目标"}, execution={"threads": 1}, registry={"model": "m"}
    )
    chunk = Chunk(text, tmp_path / "store", tmp_path / "chunk")
    chunk.round(1)
    assert chunk.end() == "m version 1"
