"""Finished studies, wherever they are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from rlhpo_core.errors import UserError
from rlhpo_core.priors.common_space import InSpace
from rlhpo_core.priors.sources import Source, agreed_objective, read
from rlhpo_core.priors.training import FinishedStudy
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import TrackingSpec
from rlhpo_core.tracking.connection import Connection
from rlhpo_core.trial import Direction
from tests.helpers.finished_studies import SPACE, study, tuned
from tests.helpers.mlflow_store import new_store
from tests.helpers.servers import shared_s3_server

pytestmark = pytest.mark.usefixtures("only_these_settings")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/ of two finished studies, one of which is to minimise."""
    place = tmp_path_factory.mktemp("team")
    new_store(place / "runs")
    tuned(place / "runs", study("two", 0.7))
    tuned(place / "runs", study("low", 0.7, objective={"metric": "height", "direction": "minimize"}))
    return place


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def connection(place: Path) -> Connection:
    return Connection.of(TrackingSpec(), place / "runs")


def sources(place: Path, *places: str) -> list[Source]:
    return read(places, connection(place))


def trials_of(source: Source) -> list[tuple[str, float, float | None]]:
    """Configuration, reward and seconds, in an order of their own."""
    study = source.in_space.study
    assert study.seconds is not None
    rows = zip(study.configs, study.rewards.tolist(), study.seconds.tolist(), strict=True)
    return sorted((str(sorted(config.items())), reward, seconds) for config, reward, seconds in rows)


def test_wherever_a_study_is_kept_it_is_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files,) = sources(here, "runs/two")
    client = MlflowClient(tracking_uri=connection(here).uri)
    experiment = client.get_experiment_by_name("rlhpo")
    tag = f"tags.`rlhpo.study_id` = '{files.name}' and tags.`rlhpo.run` = 'study'"
    run = client.search_runs([experiment.experiment_id], tag)[0]
    server = shared_s3_server()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    stored = StudyFiles(open_store(f"s3://{server.bucket}/priors/two"))
    kept = StudyFolder(here / "runs" / "two").store
    *_, state = kept.keys("state/")
    for key in ("study.yaml", "study.json", state):
        stored.store.write(key, kept.read(key) or b"")
    for address in (run.info.run_id, stored.store.uri, f"runs/two/{state}"):
        (found,) = sources(here, address)
        assert found.name == files.name
        assert found.in_space.space == files.in_space.space
        assert found.direction == "maximize"
        assert found.metric == (None if address.endswith(".safetensors") else "height")
        assert trials_of(found) == trials_of(files)
    assert sorted(found.name for found in sources(here, "mlflow:rlhpo")) == sorted(
        found.name for found in sources(here, "runs")
    )


def test_the_run_of_a_trial_is_no_study(here: Path) -> None:
    client = MlflowClient(tracking_uri=connection(here).uri)
    experiment = client.get_experiment_by_name("rlhpo")
    trial = client.search_runs([experiment.experiment_id], "tags.`rlhpo.run` = 'trial'", max_results=1)[0]
    with pytest.raises(UserError, match=r"\(trial-\d+\) is not the run of a study of rlhpo; its parent is"):
        sources(here, trial.info.run_id)


def test_rewards_are_higher_where_the_objective_is_better(here: Path) -> None:
    for name, better in (("two", 1.0), ("low", -1.0)):
        (source,) = sources(here, f"runs/{name}")
        values = [trial.value for trial in StudyFolder(here / "runs" / name).history().trials]
        assert source.in_space.study.rewards.tolist() == [better * (value or 0.0) for value in values]


def of(name: str, metric: str | None, direction: Direction) -> Source:
    space = SearchSpace.model_validate(SPACE)
    return Source(InSpace(FinishedStudy(name, [], np.zeros(0)), space), metric, direction)


def test_studies_are_about_one_objective() -> None:
    assert agreed_objective([of("a", None, "maximize"), of("b", "auc", "maximize")]) == "auc"
    assert agreed_objective([of("a", None, "maximize")]) == "an objective that is not known"
    with pytest.raises(UserError, match="b is to maximize auc and a to minimize its objective"):
        agreed_objective([of("a", None, "minimize"), of("b", "auc", "maximize")])
    with pytest.raises(UserError, match="a is to maximize auc and b to maximize logloss: a prior is about one"):
        agreed_objective([of("a", "auc", "maximize"), of("b", "logloss", "maximize")])
