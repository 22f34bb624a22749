from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from rlhpo_core.data.schema import ColumnSchema, TableSchema
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import DataDescription, Refit
from rlhpo_core.production.registration import register
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Trial
from tests.helpers.mlflow_store import new_store
from tests.helpers.servers import shared_server
from tests.helpers.tracked_studies import make_spec, make_trial

pytestmark = pytest.mark.usefixtures("only_these_settings")

SERVING = """
import json
from pathlib import Path

import mlflow
import pandas as pd


class Linear(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.weights = json.loads(Path(context.artifacts["weights.json"]).read_text())

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        return pd.DataFrame({"prediction": sum(w * model_input[name] for name, w in self.weights.items())})


mlflow.models.set_model(Linear())
"""
DATA = DataDescription(
    name="toy", source=Path("toy.csv"), digest="d" * 32,
    rows={"train": 6, "validation": 2, "holdout": 2}, columns={"a": "float64", "b": "float64", "y": "float64"},
    schema=TableSchema(task="regression", columns={"a": ColumnSchema(kind="number"), "b": ColumnSchema(kind="number")}),
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("studies")
    new_store(store)
    return store


@pytest.fixture
def refit(tmp_path: Path) -> Refit:
    serving = tmp_path / "serving.py"
    serving.write_text(SERVING)
    return Refit(
        files={"weights.json": json.dumps({"a": 2.0, "b": -1.0}).encode()},
        serving=serving,
        requirements=(f"mlflow=={mlflow.__version__}", f"pandas=={pd.__version__}"),
        input_example=pd.DataFrame({"a": [1.0, 2.0], "b": [0.5, 1.0]}),
        output_example=pd.DataFrame({"prediction": [1.5, 3.0]}),
        metrics={"rmse": 0.25, "r2": 0.9},
        constant={"rmse": 0.8, "r2": 0.0},
    )


def open_study(store: Path, study_id: str, **tracking: str) -> StudyTracker:
    spec = make_spec("registry", tracking={"experiment": "registry", **tracking})
    tracker = StudyTracker.open(spec, study_id, store)
    tracker.log_data(DATA)
    return tracker


def winner(study_id: str) -> Trial:
    return make_trial(2, study=study_id)


def load(tracker: StudyTracker, uri: str, monkeypatch: pytest.MonkeyPatch) -> mlflow.pyfunc.PyFuncModel:
    """As someone who serves the model does: in an environment that names the server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.connection.uri)
    return mlflow.pyfunc.load_model(uri)


def test_the_winner_becomes_a_version_that_can_be_served(
    store: Path, refit: Refit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tracker = open_study(store, "study-1")
    trial = winner("study-1")
    registered = register(tracker, "prices", refit, trial, tracker.spec)
    assert (registered.name, registered.version) == ("prices", "1")
    assert registered.aliases == ("challenger", "champion")
    assert list(Path().iterdir()) == [], "nothing is left in the working folder"

    model = load(tracker, "models:/prices@challenger", monkeypatch)
    assert model.predict(pd.DataFrame({"a": [10.0], "b": [1.0]}))["prediction"].tolist() == [19.0]
    assert load(tracker, registered.uri, monkeypatch).metadata.run_id == tracker.run_id
    assert model.metadata.get_input_schema().input_names() == ["a", "b"]
    assert model.metadata.get_output_schema().input_names() == ["prediction"]
    requirements = Path(mlflow.pyfunc.get_model_dependencies("models:/prices@challenger")).read_text().split()
    assert requirements == list(refit.requirements)


def test_the_models_page_has_its_parameters_scores_and_origin(store: Path, refit: Refit) -> None:
    tracker = open_study(store, "study-2")
    trial = winner("study-2")
    registered = register(tracker, "pages", refit, trial, tracker.spec)
    version = tracker.client.get_model_version("pages", registered.version)
    assert version.run_id == tracker.run_id
    wanted = {
        "rlhpo.study_id": "study-2", "rlhpo.trial_id": trial.trial_id, "rlhpo.data_digest": DATA.digest,
    }  # fmt: skip
    assert wanted.items() <= version.tags.items()
    assert len(version.tags) <= 5, "the gate adds one"
    about = tracker.client.get_registered_model("pages").description
    assert "models:/pages@champion" in about

    outputs = tracker.client.get_run(tracker.run_id).outputs.model_outputs
    model = tracker.client.get_logged_model(outputs[0].model_id)
    assert model.status == "READY"
    assert model.source_run_id == tracker.run_id
    assert model.params == {"x": "0.2", "kind": "a"}
    scores = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    assert scores == {
        "holdout.rmse": (0.25, "toy-holdout"),
        "holdout.r2": (0.9, "toy-holdout"),
        "validation.log_loss": (trial.value, "toy-validation"),
    }
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "pages", "version": "1"}]
    assert [output.model_id for output in outputs] == [model.model_id]


def test_a_winner_is_registered_once(store: Path, refit: Refit) -> None:
    tracker = open_study(store, "study-3")
    first = register(tracker, "once", refit, winner("study-3"), tracker.spec)
    again = register(open_study(store, "study-3"), "once", refit, winner("study-3"), tracker.spec)
    assert again == first
    assert len(tracker.client.search_model_versions("name = 'once'")) == 1


def test_a_later_winner_challenges_the_champion(store: Path, refit: Refit) -> None:
    earlier, later = open_study(store, "study-4"), open_study(store, "study-5")
    register(earlier, "contested", refit, winner("study-4"), earlier.spec)
    second = register(later, "contested", refit, winner("study-5"), later.spec)
    assert second.aliases == ("challenger",)
    # The earlier study resumed: it takes nothing back.
    assert register(earlier, "contested", refit, winner("study-4"), earlier.spec).aliases == ("champion",)
    client = later.client
    assert str(client.get_model_version_by_alias("contested", "challenger").version) == second.version
    # Promoted and then registered again: the gate's decision stands.
    client.set_registered_model_alias("contested", "champion", second.version)
    client.delete_registered_model_alias("contested", "challenger")
    assert register(later, "contested", refit, winner("study-5"), later.spec).aliases == ("champion",)


def test_a_crash_before_the_aliases_is_made_good(store: Path, refit: Refit) -> None:
    tracker = open_study(store, "study-6")
    first = register(tracker, "crashed", refit, winner("study-6"), tracker.spec)
    for alias in first.aliases:
        tracker.client.delete_registered_model_alias("crashed", alias)
    tracker.client.delete_registered_model_tag("crashed", "rlhpo.aliased")
    assert register(tracker, "crashed", refit, winner("study-6"), tracker.spec) == first


def test_a_model_that_predicts_otherwise_is_not_registered(store: Path, refit: Refit) -> None:
    tracker = open_study(store, "study-7")
    wrong = replace(refit, output_example=refit.output_example + 0.1)
    with pytest.raises(UserError, match=r"not registered: served by .*, the model predicts otherwise"):
        register(tracker, "wrong", wrong, winner("study-7"), tracker.spec)
    assert tracker.client.search_model_versions("name = 'wrong'") == []
    models = tracker.client.search_logged_models([tracker.experiment_id])
    assert [model.status for model in models if model.tags["rlhpo.study_id"] == "study-7"] == ["FAILED"]


def test_a_name_that_mlflow_refuses(store: Path, refit: Refit) -> None:
    tracker = open_study(store, "study-8")
    with pytest.raises(UserError, match="refused"):
        register(tracker, "a/b:c", refit, winner("study-8"), tracker.spec)


def test_on_a_server(refit: Refit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    tracker = open_study(tmp_path, "study-1", uri=shared_server().url)
    registered = register(tracker, "it's served", refit, winner("study-1"), tracker.spec)
    assert registered.aliases == ("challenger", "champion")
    assert register(tracker, "it's served", refit, winner("study-1"), tracker.spec) == registered
    model = load(tracker, "models:/it's served@champion", monkeypatch)
    assert model.predict(pd.DataFrame({"a": [10.0], "b": [1.0]}))["prediction"].tolist() == [19.0]
