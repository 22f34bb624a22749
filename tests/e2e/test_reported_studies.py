"""Studies that have surprised users of other tools, by the command line; tests of single modules have the rest.

ray-project/ray#13517 and scikit-optimize/scikit-optimize#653 tell of the spaces, ultralytics/ultralytics#1810 of the
name, mlflow/mlflow#689 of the deleted run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.storage.study_folder import StudyFolder
from tests.helpers.command_line import ROOT, children, client, rlhpo, trials, write_study

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SPACE = {
    "dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
    "batch_size": {"type": "int", "low": 32, "high": 512, "step": 32},
    "hidden": {"type": "categorical", "choices": [[64], [64, 64], [128, 64, 32]]},
    "max_features": {"type": "categorical", "choices": [None, "sqrt", "log2"]},
}


JOB = """\
def train(config, report):
    assert config["batch_size"] % 32 == 0, config
    assert isinstance(config["hidden"], list), config
    assert config["max_features"] in (None, "sqrt", "log2"), config
    return {"score": len(config["hidden"]) - abs(config["batch_size"] - 256) / 256 - config["dropout"]}
"""


def test_steps_lists_and_nothing_reach_the_function(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    function = {"kind": "function", "function": "job:train"}
    path = write_study(tmp_path, "choices", evaluator=function, space=SPACE, budget={"trials": 4})
    rlhpo("tune", path, cwd=tmp_path, RLHPO_ALLOWED_MODULES="job", PYTHONPATH=f"{ROOT}:{tmp_path}")
    done = trials(tmp_path / "runs" / "choices")
    assert len(done) == 4
    for trial in done:
        assert trial.status == "complete", trial.error
        assert trial.config["batch_size"] % 32 == 0  # type: ignore[operator]
        assert trial.config["hidden"] in ((64,), (64, 64), (128, 64, 32))
    (run,) = [
        run for run in children(client(tmp_path), tmp_path / "runs" / "choices") if run.data.tags["rlhpo.trial"] == "1"
    ]
    assert run.data.params["hidden"].startswith("[")


def test_a_name_that_the_registry_refuses_costs_no_trial(tmp_path: Path) -> None:
    path = write_study(tmp_path, "named", registry={"model": "team/churn"})
    said = rlhpo("tune", path, cwd=tmp_path, code=1)
    assert "registry.model: 'team/churn'" in said
    assert "'/'" in said
    assert not (tmp_path / "runs").exists()


def test_a_study_whose_run_was_deleted_goes_on_in_a_new_one(tmp_path: Path) -> None:
    path = write_study(tmp_path, "gone", budget={"trials": 3}, execution={"workers": 1})
    rlhpo("tune", path, cwd=tmp_path)
    store = client(tmp_path)
    study_id = StudyFolder.open(tmp_path / "runs" / "gone").record().study_id
    experiment = store.get_experiment_by_name("rlhpo").experiment_id
    wanted = f"tags.`rlhpo.run` = 'study' AND tags.`rlhpo.study_id` = '{study_id}'"
    (deleted,) = store.search_runs([experiment], wanted)
    store.delete_run(deleted.info.run_id)
    rlhpo("resume", "runs/gone", "--trials", "6", cwd=tmp_path)
    (again,) = store.search_runs([experiment], wanted)
    below = store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{again.info.run_id}'")
    assert sorted(run.data.tags["rlhpo.trial"] for run in below) == list("123456")
