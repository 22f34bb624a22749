from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Param

from rlhpo_core.data.schema import ColumnSchema, TableSchema
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import DataDescription
from rlhpo_core.study.spec import load_study
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import History, RoundSummary, TrialStatus
from tests.helpers.servers import MlflowServer
from tests.helpers.tracked_studies import children, make_history, make_spec, make_trial, points

pytestmark = pytest.mark.usefixtures("only_these_settings")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies, whose name needs quoting; shared, since MLflow takes seconds to make a new database."""
    return tmp_path_factory.mktemp("my studies #1")


def test_a_study_is_one_run_that_a_resume_finds_again(store: Path) -> None:
    spec = make_spec("parent")
    tracker = StudyTracker.open(spec, "toy-1", store)
    run = tracker.client.get_run(tracker.run_id)
    assert run.info.run_name == "toy"
    assert run.info.status == "RUNNING"
    wanted = {
        "rlhpo.study_id": "toy-1", "rlhpo.mode": "mbrl_sdp", "rlhpo.seed": "7", "rlhpo.evaluator": "function",
        "rlhpo.objective": "log_loss", "rlhpo.direction": "minimize", "rlhpo.budget": "trials 100, failures 10",
    }  # fmt: skip
    assert wanted.items() <= run.data.tags.items()
    assert run.data.params["tuner.trials_per_round"] == "5"

    tracker.finish("FINISHED")
    assert tracker.client.get_run(tracker.run_id).info.status == "FINISHED"
    longer = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": 200})})
    again = StudyTracker.open(longer, "toy-1", store)
    assert again.run_id == tracker.run_id
    run = again.client.get_run(again.run_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["rlhpo.budget"] == "trials 200, failures 10"
    assert StudyTracker.open(spec, "toy-2", store).run_id != tracker.run_id


def test_the_study_file_is_logged(store: Path, tmp_path: Path) -> None:
    spec = make_spec("artifact")
    tracker = StudyTracker.open(spec, "toy-1", store)
    logged = Path(tracker.client.download_artifacts(tracker.run_id, "study.yaml", str(tmp_path)))
    assert load_study(logged) == spec
    assert store.joinpath("mlartifacts").is_dir()


def test_a_trial_is_a_run_with_its_values_in_the_users_units(store: Path) -> None:
    tracker = StudyTracker.open(make_spec("trial"), "toy-1", store)
    trial = make_trial(3, curve=tuple((step, 1.0 - step / 5000) for step in range(2000)))
    assert tracker.log_trial(trial)
    run = children(tracker)[trial.trial_id]
    assert run.info.run_name == "trial-004"
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (1_700_000_003_000, 1_700_000_005_500)
    assert run.data.params == {"x": "0.3", "kind": "a"}
    tags = {"rlhpo.round": "2", "rlhpo.trial": "4", "rlhpo.status": "complete", "rlhpo.study_id": "toy-1"}
    assert tags.items() <= run.data.tags.items()
    metrics = dict(run.data.metrics)
    assert metrics.pop("curve.log_loss") == pytest.approx(1.0 - 1999 / 5000)
    assert metrics == pytest.approx(
        {"objective": 0.7, "log_loss": 0.7, "accuracy": 0.8, "predicted": 0.4, "predicted_std": 0.1, "seconds": 2.5}
    )
    assert points(tracker, run.info.run_id, "curve.log_loss") == [(step, value) for step, value in trial.curve]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (TrialStatus.COMPLETE, "FINISHED"),
        (TrialStatus.PRUNED, "FINISHED"),
        (TrialStatus.FAILED, "FAILED"),
        (TrialStatus.INFEASIBLE, "FAILED"),
    ],
)
def test_how_a_trial_ended(store: Path, status: TrialStatus, expected: str) -> None:
    tracker = StudyTracker.open(make_spec("statuses"), f"toy-{status}", store)
    trial = make_trial(0, status)
    tracker.log_trial(trial)
    run = children(tracker)[trial.trial_id]
    assert run.info.status == expected
    assert run.data.tags["rlhpo.status"] == status.value
    assert ("objective" in run.data.metrics) == (trial.value is not None)
    if trial.stop:
        assert run.data.tags["rlhpo.stopped"] == "at step 2: it is worse than the median"
        assert run.data.tags["rlhpo.stopped_step"] == "2"
        assert run.data.metrics["curve.log_loss"] == 0.9
    if trial.error:
        assert run.data.tags["rlhpo.error"] == "MemoryError: out of memory"
        assert "Traceback" in run.data.tags["mlflow.note.content"]


def test_names_and_values_that_mlflow_does_not_take(store: Path) -> None:
    tracker = StudyTracker.open(make_spec("names"), "toy-1", store)
    trial = make_trial(0, TrialStatus.FAILED, error="killed\0by a signal")
    config: dict[str, Any] = {"learning rate (η)": 0.1, "../path": "", "text": "x" * 9000}
    config |= {f"p{i}": i for i in range(250)}
    trial = trial.model_copy(update={"proposal": trial.proposal.model_copy(update={"config": config})})
    tracker.log_trial(trial)
    run = children(tracker)[trial.trial_id]
    assert len(run.data.params) == 253
    assert run.data.params["learning rate _η_"] == "0.1"
    assert run.data.params["p249"] == "249"


def test_nothing_is_logged_twice(store: Path) -> None:
    spec, history = make_spec("twice"), make_history(5)
    summaries = [
        RoundSummary(round=0, trials=2, best=0.9, entropy=1.5),
        RoundSummary(round=1, trials=4, best=0.7, model_r2=0.5, kl=0.3, imagined_updates=12),
    ]
    tracker = StudyTracker.open(spec, "toy-1", store)
    assert tracker.sync(history, summaries) == 5
    assert tracker.sync(history, summaries) == 0
    assert not tracker.log_trial(history.trials[0])
    assert not tracker.log_round(summaries[0])
    # A later process knows only what it finds.
    again = StudyTracker.open(spec, "toy-1", store)
    assert again.sync(make_history(6), summaries) == 1
    assert len(children(again)) == 6
    assert points(again, again.run_id, "best") == [(i + 1, 1.0 - i / 10) for i in range(6)]
    assert points(again, again.run_id, "model.r2") == [(2, 0.5)]
    assert points(again, again.run_id, "policy.entropy") == [(1, 1.5)]
    assert points(again, again.run_id, "model.imagined_updates") == [(1, 0.0), (2, 12.0)]


def test_best_so_far_waits_for_trials_that_still_run(store: Path) -> None:
    tracker = StudyTracker.open(make_spec("best"), "toy-1", store)
    first, failed, third, fourth = make_trial(0), make_trial(1, TrialStatus.FAILED), make_trial(2), make_trial(3)
    tracker.sync(History(direction="minimize", trials=(first, third)), [])
    assert points(tracker, tracker.run_id, "best") == [(1, 1.0)]
    tracker.sync(History(direction="minimize", trials=(first, failed, third, fourth)), [])
    assert points(tracker, tracker.run_id, "best") == [(1, 1.0), (2, 1.0), (3, 0.8), (4, 0.7)]


def test_a_run_that_a_crash_left_half_written_is_completed(store: Path) -> None:
    tracker = StudyTracker.open(make_spec("half"), "toy-1", store)
    trial = make_trial(0)
    tags = {"rlhpo.trial_id": trial.trial_id, "mlflow.parentRunId": tracker.run_id}
    half = tracker.client.create_run(tracker.experiment_id, tags=tags)
    tracker.client.log_batch(half.info.run_id, params=[Param("x", "0.0")])
    assert tracker.log_trial(trial)
    run = children(tracker)[trial.trial_id]
    assert run.info.run_id == half.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params == {"x": "0.0", "kind": "a"}
    assert run.data.metrics["objective"] == 1.0


def test_of_two_runs_of_one_trial_the_complete_one_stays(store: Path) -> None:
    spec, trial = make_spec("duplicates"), make_trial(0)
    tracker = StudyTracker.open(spec, "toy-1", store)
    tracker.log_trial(trial)
    logged = children(tracker)[trial.trial_id].info.run_id
    tags = {"rlhpo.trial_id": trial.trial_id, "mlflow.parentRunId": tracker.run_id}
    tracker.client.create_run(tracker.experiment_id, tags=tags)
    assert StudyTracker.open(spec, "toy-1", store).sync(make_history(1), []) == 0
    assert children(tracker)[trial.trial_id].info.run_id == logged


def test_a_deleted_trial_stays_deleted(store: Path) -> None:
    spec = make_spec("deleted-trial")
    tracker = StudyTracker.open(spec, "toy-1", store)
    tracker.sync(make_history(2), [])
    run = children(tracker)[make_trial(0).trial_id]
    tracker.client.delete_run(run.info.run_id)
    assert StudyTracker.open(spec, "toy-1", store).sync(make_history(2), []) == 0
    assert len(children(tracker)) == 1


def test_data_artifacts_and_note(store: Path, tmp_path: Path) -> None:
    tracker = StudyTracker.open(make_spec("data"), "toy-1", store)
    data = DataDescription(
        name="titanic", source=tmp_path / "titanic.csv", digest="d" * 36,
        rows={"train": 60, "validation": 20, "holdout": 20},
        columns={"age": "float64", "sex": "category", "y": "int64"},
        schema=TableSchema(task="classification", classes=(0, 1), columns={"age": ColumnSchema(kind="number")}),
    )  # fmt: skip
    tracker.log_data(data)
    tracker.log_data(data)
    inputs = tracker.client.get_run(tracker.run_id).inputs.dataset_inputs
    logged = {
        next(tag.value for tag in entry.tags if tag.key == "mlflow.data.context"): entry.dataset for entry in inputs
    }
    assert len(inputs) == 3
    assert {context: json.loads(dataset.profile)["num_rows"] for context, dataset in logged.items()} == {
        "training": 60, "validation": 20, "holdout": 20,
    }  # fmt: skip
    assert {dataset.digest for dataset in logged.values()} == {"d" * 36}
    assert json.loads(logged["training"].source)["uri"].endswith("titanic.csv")
    schema = json.loads(logged["training"].schema)["mlflow_colspec"]
    assert [column["type"] for column in schema] == ["double", "string", "long"]
    trial = make_trial(0)
    tracker.log_trial(trial)
    assert children(tracker)[trial.trial_id].data.tags["rlhpo.data_digest"] == "d" * 36

    tracker.log_figures({"history": b"\x89PNG one", "importance.png": b"\x89PNG two"})
    names = sorted(file.path for file in tracker.client.list_artifacts(tracker.run_id, "figures"))
    assert names == ["figures/history.png", "figures/importance.png"]
    tracker.note("# Winner: trial 3")
    assert tracker.client.get_run(tracker.run_id).data.tags["mlflow.note.content"] == "# Winner: trial 3"


def test_a_run_id_in_the_environment_has_no_influence(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = StudyTracker.open(make_spec("environment"), "other", store)
    before = other.client.get_run(other.run_id).to_dictionary()
    monkeypatch.setenv("MLFLOW_RUN_ID", other.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    tracker = StudyTracker.open(make_spec("environment"), "toy-1", store)
    tracker.sync(make_history(2), [])
    tracker.finish()
    assert tracker.run_id != other.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in children(tracker).values()} == {tracker.run_id}
    assert other.client.get_run(other.run_id).to_dictionary() == before


def test_a_deleted_experiment_is_named(store: Path) -> None:
    tracker = StudyTracker.open(make_spec("deleted"), "toy-1", store)
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(UserError, match=r"'deleted' is deleted; restore it with .* --experiment-id \d+"):
        StudyTracker.open(make_spec("deleted"), "toy-1", store)


def test_a_password_in_the_uri_is_not_logged(server: MlflowServer, tmp_path: Path) -> None:
    uri = server.url.replace("127.0.0.1", "user:secret@127.0.0.1")
    tracker = StudyTracker.open(make_spec("x", tracking={"uri": uri, "experiment": "password"}), "toy-1", tmp_path)
    logged = Path(tracker.client.download_artifacts(tracker.run_id, "study.yaml", str(tmp_path))).read_text()
    assert "user:***@127.0.0.1" in logged
    assert "secret" not in logged
    assert "secret" not in tracker.url
