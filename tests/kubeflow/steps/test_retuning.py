"""The retuning pipeline's own steps around a small study: look at the data, tune, decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.kubeflow.steps import retuning
from rlhpo_core.production.ledger import Ledger
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import parse_study
from tests.helpers import chunk
from tests.helpers.mlflow_store import new_store

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


def check(place: Path, table: str, force: bool = False) -> tuple[retuning.Checked, str]:
    note = place / "note"
    return retuning.check(put(STUDY, place / "model"), str(place / table), force, note), note.read_text()


def tune_and_decide(place: Path, table: str, checked: retuning.Checked) -> dict[str, float]:
    chunk.main(checked.store, place / f"artifacts-{table}", 1, str(place / table))
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

    checked, note = check(place, "second.csv")
    assert checked.action == retuning.GO
    assert "drifted alcohol" in note
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
    with pytest.raises(UserError, match="a retuning needs a table: the study has no data"):
        retuning.check(put(without, place / "other"), "", False, place / "note")
    failures = [record.outcome for record in Ledger.of("wine", str(place / "other" / "registry")).records()]
    assert failures == ["failed"], "what has failed is recorded"
