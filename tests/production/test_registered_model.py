from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlhpo_core.data import drift, holdout
from rlhpo_core.data.labelled import split
from rlhpo_core.data.schema import SCHEMA
from rlhpo_core.data.table import load_table
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.production.registered_model import RegisteredModel
from rlhpo_core.study.spec import StudySpec, TrackingSpec
from tests.helpers.mlflow_store import new_store
from tests.helpers.retuned_models import WINES, finished, registered_model, study

pytestmark = pytest.mark.usefixtures("only_these_settings")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> StudySpec:
    """A study whose winner is registered."""
    folder = tmp_path_factory.mktemp("models")
    new_store(folder)
    spec = study(folder, WINES[:600], "wine")
    finished(folder, spec)
    return spec


def test_a_loaded_version_knows_what_it_was_trained_on(spec: StudySpec) -> None:
    model = registered_model(spec)
    assert (model.name, model.ledger.model) == ("wine", "wine")
    assert spec.data is not None
    table = load_table(spec.data, spec.seed)
    parts = split(table, spec.data, spec.seed)
    with model.served("1") as served:
        version = served["1"]
        assert version.profile == drift.profile(table)
        trained = np.unique(holdout.row_keys(table, np.concatenate([parts.train, parts.validation])))
        assert np.array_equal(version.seen, trained)
        rows = holdout.unseen(table, parts.holdout, [version.seen])
        answers = version.model.predict(rows.rows)["prediction"]
    assert 0 < len(answers) == len(rows) < len(parts.holdout), "some wines are in the table twice"
    assert np.corrcoef(answers, rows.target)[0, 1] > 0.4
    assert model.tags("1")["rlhpo.data_digest"] == table.digest


def test_the_size_is_that_of_what_serves(spec: StudySpec) -> None:
    """Fingerprints, profile and schema grow with the table, and are not loaded where the model serves."""
    model = registered_model(spec)
    refit = build_evaluator(spec, threads=1).refit(json.loads(model.tags("1")["rlhpo.config"]))
    assert refit is not None
    unserved = (holdout.PROFILE, holdout.SEEN, SCHEMA)
    serving = {name: len(data) for name, data in refit.files.items() if name not in unserved}
    assert len(serving) == len(refit.files) - len(unserved)
    with model.served("1") as served:
        assert served["1"].size == sum(serving.values())


def test_a_version_that_is_not_there_is_named(spec: StudySpec) -> None:
    model = registered_model(spec)
    with pytest.raises(UserError, match=r"refused: .*wine.*7.* not found"), model.served("7"):
        pass
    with pytest.raises(UserError, match=r"refused: .*not found"):
        model.tags("7")


def test_a_study_without_a_model_cannot_be_retuned(spec: StudySpec, tmp_path: Path) -> None:
    nameless = spec.model_copy(update={"registry": spec.registry.model_copy(update={"model": None})})
    with pytest.raises(UserError, match="needs the name of the registered model"):
        RegisteredModel.of_study(nameless, tmp_path)


def test_an_mlflow_that_is_away_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9 .* cannot be reached"):
        RegisteredModel.open("wine", TrackingSpec(uri="http://127.0.0.1:9"), None, tmp_path)
