"""A study as a chain of runs on a cluster in miniature: the compiled pipeline, KFP's API, and whatever goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.compiled import compiled
from pipelines.hpo_loop.pipeline import build
from pipelines.tuning import Shape
from pipelines.workflow_size import pods
from rlhpo_core.execution.engines import Steps
from rlhpo_core.execution.runner import run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.kubeflow import client
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.kubeflow.next_run import FURTHER, Link, begin_chain, put_study
from rlhpo_core.kubeflow.steps import chain
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec
from tests.helpers.comparison import comparable
from tests.helpers.kfp_engine import Engine, PodDied, Step, run_all
from tests.helpers.kfp_server import KfpServer
from tests.helpers.mlflow_store import new_store
from tests.helpers.pool_study import kept_workers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TRIALS, EACH = 7, 3
STUDY = {
    "name": "chained",
    "evaluator": {"kind": "function", "function": "tests.helpers.functions:hill", "options": {"peak": 0.3}},
    "objective": {"metric": "height", "direction": "maximize"},
    "space": {
        "x": {"type": "float", "low": 0.0, "high": 1.0},
        "y": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    },
    "budget": {"trials": TRIALS},
    "tuner": {"trials_per_round": EACH, "agent": {"nodes": 8}},
    "execution": {"threads": 1, "drill": [2]},
}


@dataclass
class Cluster:
    """KFP's API, what runs its pipelines, and a study."""

    server: KfpServer
    engine: Engine
    store: Path
    packages: Path

    def submit(self, rounds: int, further: int = 5, steps: Steps = Steps.COMPACT) -> str:
        """As `rlhpo submit` does; returns the run's id."""
        put_study(str(self.store), StudySpec.model_validate(STUDY))
        package = self.packages / f"{rounds}-{steps}.yaml"
        if not package.exists():
            package.write_text(compiled(build(Shape(rounds, EACH, steps=steps))))
        parameters = {"store": str(self.store), FURTHER: further}
        run_id = client.submit(Server.of(), package, "chained", parameters, "tuning").id
        begin_chain(self.files, run_id)
        return run_id

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
        patch.setenv("RLHPO_ALLOWED_MODULES", "tests")
        # Drawing takes longer than all else, and the report has tests of its own.
        patch.setattr(chain, "_report", lambda *_, **__: None)
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
    spec = StudySpec.model_validate(STUDY)
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
    wanted = f"tags.`rlhpo.study_id` = '{record.study_id}' and tags.`rlhpo.run` = 'study'"
    (parent,) = MlflowClient(tracking).search_runs(["1"], wanted)
    assert parent.info.status == "FINISHED"
    # As a schedule does that outlives its study: a look, and neither a round nor a trial.
    idle = cluster.submit(rounds, further=0, steps=steps)
    assert cluster.run() == ["SUCCEEDED"], cluster.engine.errors
    assert cluster.engine.names(idle) == ["prepare data", "submit next"]


def test_a_study_longer_than_a_run_is_a_chain_of_runs(cluster: Cluster, expected: list[dict[str, Any]]) -> None:
    cluster.submit(1)
    assert cluster.run() == ["SUCCEEDED"] * 3, cluster.engine.errors
    assert comparable(cluster.files.history().trials) == expected


@pytest.mark.parametrize(
    ("step", "number", "steps"),
    [
        ("prepare data", 0, Steps.COMPACT),
        ("train", 1, Steps.COMPACT),
        ("train", 4, Steps.COMPACT),
        ("learn and propose", 1, Steps.COMPACT),
        ("register best", 0, Steps.COMPACT),
        ("propose", 1, Steps.FIVE),
        ("fit reward model", 1, Steps.FIVE),
        ("update policy", 1, Steps.FIVE),
    ],
)
def test_a_run_that_failed_is_followed(
    cluster: Cluster, expected: list[dict[str, Any]], tracking: str, step: str, number: int, steps: Steps
) -> None:
    """A pod is killed with exit code 137 or evicted by the kubelet, and Argo does not run it again."""
    first = cluster.submit(3, steps=steps)

    def kill(one: Step, run: Callable[[], None]) -> None:
        if (one.run, one.name, one.number) == (first, step, number):
            raise PodDied
        run()

    cluster.engine.around = kill
    assert cluster.run() == ["FAILED", "SUCCEEDED"], cluster.engine.errors
    assert comparable(cluster.files.history().trials) == expected
    trained = [one for one in cluster.engine.names() if one == "train"]
    assert len(trained) <= TRIALS + EACH, "what was trained is not trained again"
    own = f"tags.`rlhpo.study_id` = '{cluster.files.record().study_id}' and tags.`rlhpo.run` != 'study'"
    logged = [run.data.tags["rlhpo.trial"] for run in MlflowClient(tracking).search_runs(["1"], own)]
    assert sorted(map(int, logged)) == list(range(1, TRIALS + 1)), "each once in MLflow"
    rounds = [[t for t in cluster.files.history().trials if t.proposal.round == n] for n in range(3)]
    taken = sum(max(t.started_at + t.seconds for t in one) - min(t.started_at for t in one) for one in rounds)
    assert cluster.files.record().seconds == pytest.approx(taken), "time is counted once"


def test_a_study_whose_runs_bring_nothing_is_given_up(cluster: Cluster) -> None:
    cluster.submit(3)

    def kill(one: Step, run: Callable[[], None]) -> None:
        if one.name == "learn and propose":
            raise PodDied
        run()

    cluster.engine.around = kill
    assert cluster.run() == ["FAILED"] * 4, "the first has brought the trials of a round"
    last = max((cluster.store / "next").iterdir())
    assert Link.model_validate_json(last.read_bytes()).given_up == "3 runs in a row have brought no new trial"


def test_a_run_without_a_last_step_is_followed_by_who_looks_after_the_study(
    cluster: Cluster, expected: list[dict[str, Any]]
) -> None:
    first = cluster.submit(1)

    def ruin(one: Step, run: Callable[[], None]) -> None:
        if (one.run, one.name) == (first, "submit next"):
            raise PodDied
        run()

    cluster.engine.around = ruin
    assert cluster.run() == ["FAILED"]
    assert len(cluster.server.runs) == 1
    assert "which was sent in its place" in chain.supervise(str(cluster.store), "chained-supervisor")
    assert cluster.run() == ["SUCCEEDED"] * 2, cluster.engine.errors
    assert comparable(cluster.files.history().trials) == expected
    assert "at its end" in chain.supervise(str(cluster.store), "chained-supervisor")
