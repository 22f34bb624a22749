"""A study as a chain of runs on a cluster in miniature: the compiled pipeline, KFP's API, and whatever goes wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.compiled import compiled
from pipelines.hpo_loop.pipeline import build
from pipelines.workflow_size import pods
from rlhpo_core.execution.resources import Steps
from rlhpo_core.execution.runner import run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.kubeflow import client
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.kubeflow.next_run import FURTHER, put_study
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import parse_study
from tests.helpers.comparison import comparable
from tests.helpers.kfp_engine import Engine, run_all
from tests.helpers.kfp_server import KfpServer
from tests.helpers.mlflow_store import new_store
from tests.helpers.pool_study import kept_workers
from tests.helpers.stepwise import study

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TRIALS, EACH = 7, 3


@dataclass
class Cluster:
    """KFP's API, what runs its pipelines, and a study."""

    server: KfpServer
    engine: Engine
    store: Path
    packages: Path

    def submit(self, rounds: int, further: int = 5, steps: Steps = Steps.COMPACT, **fields: Any) -> str:
        """As `rlhpo submit` does; returns the run's id."""
        put_study(str(self.store), parse_study(study(TRIALS, **fields), "sent"))
        package = self.packages / f"{rounds}-{steps}.yaml"
        if not package.exists():
            package.write_text(compiled(build(rounds, EACH, steps=steps)))
        parameters = {"store": str(self.store), FURTHER: further}
        return client.submit(Server.of(), package, "stepwise", parameters, "tuning").id

    def run(self) -> list[str]:
        """Run all that was sent and what follows; the states in which the runs ended."""
        return run_all(self.server, self.engine)

    @property
    def files(self) -> StudyFolder:
        return StudyFolder(self.store)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    uri = new_store(tmp_path_factory.mktemp("mlflow"))
    with pytest.MonkeyPatch.context() as patch, kept_workers():
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


@pytest.fixture
def cluster(tracking: str, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    server = KfpServer()
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    for name in ("KFP_API_HOST", "RLHPO_KFP_TOKEN", "RLHPO_KFP_NAMESPACE", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    yield Cluster(server, Engine(tmp_path / "artifacts"), tmp_path / "store", packages)
    server.stop()


@pytest.fixture(scope="module")
def expected(tracking: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The trials of the same study in one process."""
    spec = parse_study(study(TRIALS), "here")
    folder = StudyFolder.create(tmp_path_factory.mktemp("whole") / "study", spec, StudyRecord.new(spec))
    with TrialPool(spec, 2, 1) as pool:
        run(folder, spec, pool, [])
    return comparable(folder.history().trials)


@pytest.mark.parametrize("steps", Steps)
def test_either_loop_makes_the_trials_of_one_process(
    cluster: Cluster, expected: list[dict[str, Any]], tracking: str, steps: Steps
) -> None:
    rounds = math.ceil(TRIALS / EACH)
    run_id = cluster.submit(rounds + 2, steps=steps)
    assert cluster.run() == ["SUCCEEDED"], cluster.engine.errors
    assert comparable(cluster.files.history().trials) == expected
    ran = cluster.engine.names(run_id)
    assert ran.count("train") == TRIALS, "none after the budget was spent, and none for what is missing in a round"
    assert ran.count("learn and propose" if steps is Steps.COMPACT else "update policy") == rounds
    lacking = 3 * (rounds * EACH - TRIALS)
    assert cluster.engine.pods == pods(rounds, EACH, steps) - lacking + 1, "one for all rounds that are left"
    record = cluster.files.record()
    assert record.winner is not None
    assert record.winner.registered is not None
    (parent,) = MlflowClient(tracking).search_runs(
        ["1"], f"tags.`rlhpo.study_id` = '{record.study_id}' and tags.`rlhpo.run` = 'study'"
    )
    assert parent.info.status == "FINISHED"


def test_a_study_longer_than_a_run_is_a_chain_of_runs(cluster: Cluster, expected: list[dict[str, Any]]) -> None:
    cluster.submit(1)
    assert cluster.run() == ["SUCCEEDED"] * 3, cluster.engine.errors
    assert comparable(cluster.files.history().trials) == expected
