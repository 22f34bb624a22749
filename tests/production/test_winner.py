from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlhpo_core.evaluators.kinds import build_evaluator
from rlhpo_core.evaluators.protocol import Refit
from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
from rlhpo_core.production import registration
from rlhpo_core.production.winner import register_winner
from rlhpo_core.report.study_report import make_report
from rlhpo_core.trial import Config
from tests.helpers.mlflow_store import new_store
from tests.helpers.retuned_models import WINES, study, tuned

pytestmark = pytest.mark.usefixtures("only_these_settings")


class Counting(XGBoostEvaluator):
    """Counts how often the holdout was scored."""

    refits = 0

    def refit(self, config: Config) -> Refit:
        self.refits += 1
        return super().refit(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("winners")
    new_store(folder)
    return folder


def test_the_winner_is_scored_on_the_holdout_once_and_registered_once(folder: Path) -> None:
    spec = study(folder, WINES[:600], "once")
    files, tracker, trial = tuned(folder, spec)
    evaluator = Counting(spec, threads=1)
    winner = register_winner(files, spec, evaluator, tracker, trial)
    assert winner is not None
    assert winner.registered == "once version 1"
    assert set(winner.holdout) == {"r2", "rmse", "mae"}
    assert files.record().winner == winner
    assert register_winner(files, spec, evaluator, tracker, trial) == winner
    assert evaluator.refits == 1


def test_without_a_name_it_is_scored_and_not_registered(folder: Path) -> None:
    spec = study(folder, WINES[:600], "nameless", registry={})
    files, tracker, trial = tuned(folder, spec)
    winner = register_winner(files, spec, build_evaluator(spec, threads=1), tracker, trial)
    assert winner is not None
    assert winner.registered is None
    assert tracker.client.search_model_versions("name = 'nameless'") == []
    logged = tracker.client.get_run(tracker.run_id).data.metrics
    assert logged["holdout.rmse"] == pytest.approx(winner.holdout["rmse"])


def test_the_score_survives_a_registry_that_is_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holdout is to be scored once: what it said is written down before MLflow is asked."""
    spec = study(folder, WINES[:600], "away")
    files, tracker, trial = tuned(folder, spec)
    evaluator = build_evaluator(spec, threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(registration, "register", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            register_winner(files, spec, evaluator, tracker, trial)
    before = files.record().winner
    assert before is not None
    assert before.registered is None
    after = register_winner(files, spec, evaluator, tracker, trial)
    assert after is not None
    assert (after.holdout, after.registered) == (before.holdout, "away version 1")


#: Nothing in the columns tells of the target.
_NOISE = WINES[:600].assign(target=np.random.default_rng(0).normal(size=600))


def test_a_winner_no_better_than_the_mean_is_said_loudly_and_not_registered(folder: Path) -> None:
    spec = study(folder, _NOISE, "noise")
    files, tracker, trial = tuned(folder, spec)
    evaluator = Counting(spec, threads=1)
    winner = register_winner(files, spec, evaluator, tracker, trial)
    assert winner is not None
    assert winner.registered is None
    assert winner.warning is not None
    assert f"its rmse on the holdout is {winner.holdout['rmse']:.6g}" in winner.warning
    assert tracker.client.search_model_versions("name = 'noise'") == []
    assert tracker.client.get_run(tracker.run_id).data.tags["rlhpo.warning"] == winner.warning
    assert winner.warning in make_report(files, spec).note
    assert register_winner(files, spec, evaluator, tracker, trial) == winner
    assert evaluator.refits == 1


def test_where_the_study_allows_it_a_winner_of_no_use_is_registered(folder: Path) -> None:
    registry = {"model": "allowed", "store": str(folder / "registry"), "must_beat_constant": False}
    spec = study(folder, _NOISE, "allowed", registry=registry)
    files, tracker, trial = tuned(folder, spec)
    winner = register_winner(files, spec, build_evaluator(spec, threads=1), tracker, trial)
    assert winner is not None
    assert (winner.registered, winner.warning is None) == ("allowed version 1", False)


def test_a_constant_model_is_of_no_use_whatever_float32_rounds(folder: Path) -> None:
    spec = study(folder, WINES[:600], "flat", evaluator={"kind": "xgboost", "params": {"gamma": 1e9}})
    files, tracker, trial = tuned(folder, spec)
    winner = register_winner(files, spec, build_evaluator(spec, threads=1), tracker, trial)
    assert winner is not None
    assert winner.warning is not None
    assert winner.registered is None
