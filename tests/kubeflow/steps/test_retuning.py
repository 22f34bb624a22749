"""The retuning pipeline's own steps around a small study: look at the data, tune, decide."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from pipelines.compiled import compiled
from pipelines.retune.pipeline import build
from pipelines.tuning import Shape
from pipelines.workflow_size import pods
from rlhpo_core.errors import UserError
from rlhpo_core.execution.engines import Steps
from rlhpo_core.kubeflow import client as kfp_client
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.kubeflow.steps import retuning
from rlhpo_core.kubeflow.steps.study import on_cpu
from rlhpo_core.production import retuning as production
from rlhpo_core.production.ledger import Ledger, Record
from rlhpo_core.storage import lease
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import parse_study
from tests.helpers import chunk
from tests.helpers.kfp_engine import Engine, PodDied, Step, run_all
from tests.helpers.kfp_server import KfpServer
from tests.helpers.mlflow_store import new_store
from tests.helpers.pool_study import kept_workers
from tests.helpers.webhooks import Hook

WINE = Path(__file__).parents[3] / "examples" / "data" / "winequality_white.csv"
STUDY = yaml.safe_dump(
    {
        "name": "wine",
        "data": {"path": "absent.csv", "target": "target", "task": "regression", "holdout": 0.3},
        "evaluator": {"kind": "xgboost"},
        "objective": "rmse",
        "space": {
            "n_estimators": {"type": "fixed", "value": 40},
            "max_depth": {"type": "int", "low": 2, "high": 8},
        },
        "budget": {"trials": 1},
        "execution": {"workers": 1, "threads": 1},
        "registry": {"model": "wine"},
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two months of wines; in the second the scale is turned round."""
    place = tmp_path_factory.mktemp("place")
    wines = pd.read_csv(WINE).sample(frac=1, random_state=0)
    wines.iloc[:1200].to_csv(place / "first.csv", index=False)
    wines.iloc[1200:2400].assign(alcohol=lambda month: 14 - month["alcohol"] / 2).to_csv(
        place / "second.csv", index=False
    )
    return place


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[MlflowClient]:
    uri = new_store(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield MlflowClient(uri)


def put(text: str, store: Path) -> str:
    put_study(str(store), parse_study(text, "sent"))
    return str(store)


def check(place: Path, table: str, force: bool = False, text: str = STUDY) -> tuple[retuning.Checked, str]:
    note = place / "note"
    return retuning.check(put(text, place / "model"), str(place / table), force, note), note.read_text()


def tune_and_decide(place: Path, table: str, checked: retuning.Checked) -> dict[str, float]:
    folder = StudyFolder(Path(checked.store))
    spec = folder.spec()
    # The pods of trials and of the refit may have a GPU, which is not here; those of all other steps have none.
    folder.write_spec(on_cpu(spec))
    chunk.main(checked.store, place / f"artifacts-{table}", 1, str(place / table))
    folder.write_spec(spec)
    return retuning.decide(checked.store, str(place / "model"), str(place / table), place / "note")


def test_a_model_is_tuned_left_alone_and_tuned_anew_when_its_data_has_changed(
    place: Path, client: MlflowClient
) -> None:
    checked, note = check(place, "first.csv")
    assert (checked.action, note) == (retuning.GO, "# wine\n\nthere is no champion yet\n")
    assert checked.store.startswith(f"{place}/model/studies/")
    assert tune_and_decide(place, "first.csv", checked) == {"promoted": 1.0}
    assert (place / "note").read_text().startswith("# first\n")

    checked, note = check(place, "first.csv")
    assert checked.action == retuning.STOP
    assert "unchanged: the data is that of the champion" in note
    checked, note = check(place, "first.csv", force=True)
    assert checked.action == retuning.GO
    assert "forced" in note

    on_gpu = yaml.safe_dump(yaml.safe_load(STUDY) | {"execution": {"workers": 1, "threads": 1, "device": "cuda"}})
    checked, note = check(place, "second.csv", text=on_gpu)
    assert checked.action == retuning.GO
    assert "drifted alcohol" in note
    assert StudyFolder(Path(checked.store)).spec().execution.device == "cuda"
    values = tune_and_decide(place, "second.csv", checked)
    assert values["promoted"] == 1.0
    assert values["gain"] == pytest.approx(values["champion"] - values["challenger"])
    assert values["low"] > values["margin"] >= 0
    assert 250 <= values["rows"] <= 360, "the holdout without rows that the champion has seen"
    state = StudyFolder(Path(checked.store)).state()
    assert state.inherited is not None
    assert len(state.inherited.trials) == 1
    assert (place / "note").read_text().startswith("# promoted\n\nrmse")
    aliases = client.get_registered_model("wine").aliases
    assert {name: str(version) for name, version in aliases.items()} == {"champion": "2", "previous": "1"}
    events = [record.outcome for record in Ledger.of("wine", str(place / "model" / "registry")).records()]
    assert events == ["first", "skipped", "promoted"]


def test_what_cannot_be_retuned_is_refused(place: Path, client: MlflowClient) -> None:
    with pytest.raises(UserError, match=r"cannot read the table .*absent\.csv"):
        retuning.check(put(STUDY, place / "other"), "", False, place / "note")
    without = yaml.safe_dump(
        {
            "name": "f",
            "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
            "objective": {"metric": "score", "direction": "maximize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"trials": 1},
            "registry": {"model": "f"},
        }
    )
    with pytest.raises(UserError, match="there is no model to register of a function"):
        retuning.check(put(without, place / "other"), "", False, place / "note")
    failures = [record.outcome for record in Ledger.of("wine", str(place / "other" / "registry")).records()]
    assert failures == ["failed"], "what has failed is recorded"


# -- a run that dies between the look at the data and the decision -----------------------------------------------------


@dataclass
class Retunings:
    """Runs of the compiled pipeline, on a cluster in miniature."""

    place: Path
    server: KfpServer
    package: Path
    engine: Engine
    alerts: Hook
    mlflow: MlflowClient

    @property
    def model(self) -> str:
        """No other test has one of this name."""
        return self.place.name

    def run(self, budget: int = 1) -> tuple[str, str]:
        """One to its end; its id and its state."""
        study = yaml.safe_load(STUDY) | {
            "name": self.model, "budget": {"trials": budget}, "registry": {"model": self.model}, "prior": "none",
            "tuner": {"trials_per_round": 1, "agent": {"nodes": 8}},
            "alerts": {"url": self.alerts.url, "events": ["failed"]},
        }  # fmt: skip
        parameters = {"store": put(yaml.safe_dump(study), self.place), "table_source": str(self.place / "first.csv")}
        root = str(self.place / "root")
        run = kfp_client.submit(Server.of(), self.package, "dying", parameters, "tuning", pipeline_root=root).id
        (state,) = run_all(self.server, self.engine)
        return run, state

    def kill(self, *steps: str) -> None:
        """From now on their pods are killed; KFP shows it, and their logs."""
        killed: dict[str, str] = {}

        def around(step: Step, run: Callable[[], None]) -> None:
            if step.name not in steps:
                run()
                return
            killed[step.name] = "FAILED"
            self.server.set_steps(step.run, killed)
            log = self.place / "root" / "rlhpo-retune" / step.run / step.name / "uuid" / "executor-logs"
            log.parent.mkdir(parents=True)
            log.write_text("beginning\nthe last words\n")
            raise PodDied

        self.engine.around = around

    def records(self) -> list[Record]:
        return Ledger.of(self.model, str(self.place / "registry")).records()

    def told(self) -> list[str]:
        return [json.loads(body)["reason"] for _, body in self.alerts.heard]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "retune.yaml"
    path.write_text(compiled(build(Shape(1, 1, steps=Steps.COMPACT))))
    return path


@pytest.fixture(scope="module")
def _workers() -> Iterator[None]:
    with kept_workers():
        yield


@pytest.fixture
def retunings(
    place: Path, client: MlflowClient, package: Path, hook: Hook, _workers: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, no_kfp_settings: None,
) -> Iterator[Retunings]:  # fmt: skip
    (tmp_path / "first.csv").write_bytes((place / "first.csv").read_bytes())
    server = KfpServer()
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    # Drawing takes longer than all else.
    monkeypatch.setattr(production, "make_report", lambda *_: None)
    monkeypatch.setattr(production, "log_report", lambda *_: None)
    yield Retunings(tmp_path, server, package, Engine(tmp_path / "artifacts"), hook, client)
    server.stop()


@pytest.mark.parametrize(
    ("step", "trained"),
    [
        ("look at the data", "nothing was trained"),
        ("prepare data", "trials trained: 0"),
        ("train", "trials trained: 0"),
        ("register best", "trials trained: 1"),
        ("decide", "trials trained: 1"),
    ],
)
def test_a_run_that_dies_before_its_decision_is_recorded_and_alerted(
    retunings: Retunings, step: str, trained: str
) -> None:
    retunings.kill(step)
    run, state = retunings.run()
    assert state == "FAILED"
    (record,) = retunings.records()
    assert (record.outcome, record.run) == ("failed", run)
    assert record.reason.startswith(f"step {step!r} has failed; its log ends with the last words; {trained}")
    assert retunings.told() == [record.reason]
    # The exit task is run again, and there is nothing left to say.
    assert retuning.end(str(retunings.place), run) == ""
    assert len(retunings.records()) == 1
    for study in (retunings.place / "studies").glob("*"):
        assert lease.refused(StudyFolder(study).store) is None, "another run may have it"
    runs = retunings.mlflow.search_runs(["1"], "attributes.status = 'RUNNING'")
    assert runs == [], "nothing says that it goes on"


def test_a_step_that_cannot_do_its_work_is_quoted(retunings: Retunings) -> None:
    def remove_the_table(step: Step, run: Callable[[], None]) -> None:
        if step.name == "prepare data":
            (retunings.place / "first.csv").unlink()
        run()

    retunings.engine.around = remove_the_table
    retunings.run()
    (record,) = retunings.records()
    assert record.reason.startswith("prepare: cannot read the table")
    assert "; trials trained: 0, see" in record.reason


def test_a_run_that_comes_to_its_end_has_not_failed(retunings: Retunings) -> None:
    run, state = retunings.run(budget=2)
    assert state == "SUCCEEDED"
    assert retunings.records() == [], "budget is left, and nothing was to be decided"
    assert retunings.engine.pods == pods(1, 1, Steps.COMPACT, retuning=True)
    _, state = retunings.run()
    assert state == "SUCCEEDED"
    _, state = retunings.run()
    assert state == "SUCCEEDED"
    assert [record.outcome for record in retunings.records()] == ["first", "skipped"]
    assert retunings.told() == []
    assert retuning.end(str(retunings.place), run) == ""


def test_a_run_that_dies_without_its_exit_task_is_recorded_by_the_next(
    retunings: Retunings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RUN_EXPIRY", 1.0)
    retunings.kill("train", "end")
    dead, _ = retunings.run()
    assert retunings.records() == []
    time.sleep(1.5)
    retunings.kill()
    _, state = retunings.run()
    assert state == "SUCCEEDED"
    failed, first = retunings.records()
    assert (failed.outcome, failed.run, first.outcome) == ("failed", dead, "first")
    assert failed.reason.startswith("step 'train' has failed; its log ends with the last words; step 'end' has failed")
    assert "; trials trained: 0, see" in failed.reason
    assert retunings.told() == [failed.reason]
