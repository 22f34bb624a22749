"""Networks on images are registered, judged and retuned as models of tables are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.production.retuning import check, decide
from rlhpo_core.study.spec import StudySpec
from tests.helpers.mlflow_store import new_store
from tests.helpers.pictures import SMALL, pictures, study
from tests.helpers.retuned_models import finished, registered_model

pytestmark = pytest.mark.usefixtures("only_these_settings")


def tuned(folder: Path, model: str, x: np.ndarray[Any, Any], y: list[str], epochs: int, **fields: Any) -> StudySpec:
    """A study of a small network; its images, store and ledger lie in the folder."""
    path = folder / f"{model}.npz"
    np.savez(path, x=x[..., 0], y=np.array(y))
    params = {name: value for name, value in SMALL.items() if name != "learning_rate"}
    return study(
        path,
        epochs=epochs,
        data={"holdout": 0.4},
        evaluator={"params": params},
        name=model,
        space={"learning_rate": {"type": "float", "low": 0.04, "high": 0.06}},
        prior="none",
        execution={"workers": 1, "threads": 1},
        tracking={"uri": f"sqlite:///{folder}/mlflow.db"},
        registry={"model": model, "store": str(folder / "registry"), "must_beat_constant": False},
        gate={"margin": 0.0, "latency_ratio": None, "size_ratio": None, "log_loss_increase": None, "min_rows": 20},
        **fields,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    new_store(folder)
    return folder


def test_new_images_bring_a_better_champion(folder: Path) -> None:
    x, y = pictures(360)
    first = tuned(folder, "corners", x[:120], y[:120], epochs=1)
    finished(folder, first)
    model = registered_model(first)
    assert check(first, model).reason == "unchanged: the data is that of the champion"

    spec = tuned(folder, "corners", x[60:] // 2, y[60:], epochs=12)
    findings = check(spec, model)
    assert findings.drift is not None
    assert findings.drift.drifted[0] in ("grey mean", "grey deviation", "roughness")
    assert findings.champion_score is not None
    files, tracker = finished(folder, spec, model.schema("1"))
    decision = decide(spec, model, files, tracker, findings, print)
    assert decision is not None
    assert (decision.outcome, decision.champion) == ("promoted", "2"), decision.reason
    card = tracker.client.get_model_version("corners", "2").description
    assert "corners.npz" in card
    with model.served("1", "2") as served:
        assert all(version.schema is not None and version.profile is not None for version in served.values())
        assert len(served["2"].seen) == 180


def test_images_that_the_champion_was_trained_on_judge_nobody(folder: Path) -> None:
    x, y = pictures(240, seed=5)
    first = tuned(folder, "repeated", x[:180], y[:180], epochs=1)
    finished(folder, first)
    model = registered_model(first)
    # The champion's training images, and some new ones.
    grown = tuned(folder, "repeated", x[:200], y[:200], epochs=1)
    findings = check(grown, model)
    assert 0 < findings.rows < 80


def test_images_of_another_size_break_the_champions_schema(folder: Path) -> None:
    x, y = pictures(120, seed=7)
    first = tuned(folder, "sized", x, y, epochs=1)
    finished(folder, first)
    x, y = pictures(120, seed=8, size=12)
    other = tuned(folder, "sized", x, y, epochs=1)
    with pytest.raises(UserError, match="breaks the schema of the images that were tuned on first"):
        check(other, registered_model(other))
