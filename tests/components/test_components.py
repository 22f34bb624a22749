"""Each component by its Python function, on real files, as KFP's executor would call it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.__main__ import load as load_component
from components.__main__ import names
from components.agent_proposal.component import agent_proposal
from components.data_prep.component import data_prep
from components.evaluator_training.component import evaluator_training
from components.ppo_update.component import ppo_update
from components.register_best.component import register_best
from components.reward_model_update.component import reward_model_update
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.study.spec import parse_study
from rlhpo_core.tuner.state_file import load
from tests.helpers.mlflow_store import new_store
from tests.helpers.pool_study import kept_workers
from tests.helpers.stepwise import study


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, kept_workers():
        patch.setenv("MLFLOW_TRACKING_URI", new_store(tmp_path_factory.mktemp("mlflow")))
        yield


def artifact(kind: type[Any], path: Path) -> Any:
    return kind(name=path.name, uri=str(path), metadata={})


def test_a_round_of_components(tracking: None, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    put_study(store, parse_study(study(trials=3), "sent"))
    table, state = artifact(dsl.Dataset, tmp_path / "table"), artifact(dsl.Model, tmp_path / "state")
    prepared = data_prep.python_func(store=store, table=table, state=state)
    assert prepared.more == "yes"
    assert prepared.table_name == "german_credit.csv"

    proposals = agent_proposal.python_func(store=store, state=state)
    assert [json.loads(proposal)["number"] for proposal in proposals] == [0, 1, 2]

    trials = []
    for number, proposal in enumerate(proposals):
        trial = artifact(dsl.Artifact, tmp_path / f"trial-{number}")
        metrics = artifact(dsl.Metrics, tmp_path / f"metrics-{number}")
        evaluator_training.python_func(
            proposal=proposal,
            table=table,
            table_name=prepared.table_name,
            trial=trial,
            metrics=metrics,
            store=store,
            run_id=prepared.run_id,
        )
        assert metrics.metadata["trial"] == number + 1
        assert ("objective" in metrics.metadata) == (number != 1), "the second is made to fail"
        trials.append(trial)

    fitted, quality = artifact(dsl.Model, tmp_path / "fitted"), artifact(dsl.Metrics, tmp_path / "quality")
    reward_model_update.python_func(previous=state, trials=trials, state=fitted, metrics=quality)
    updated, summary = artifact(dsl.Model, tmp_path / "updated"), artifact(dsl.Metrics, tmp_path / "summary")
    more = ppo_update.python_func(store=store, previous=fitted, state=updated, metrics=summary, run_id=prepared.run_id)
    assert more == "no", "all three trials are done"
    assert load(Path(updated.path)).round == 1
    assert summary.metadata["trials"] == 3

    registered = register_best.python_func(store=store, table=table, table_name=prepared.table_name)
    assert registered == "stepwise version 1"


@pytest.mark.parametrize("name", names())
def test_every_input_is_described(name: str) -> None:
    spec = load_component(name).component_spec
    assert spec.description
    assert all(item.description for item in (spec.inputs or {}).values())
