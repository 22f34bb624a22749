"""Answers with status 200 that are not MLflow's, before a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rlhpo_core.errors import Outage
from rlhpo_core.production import promotion
from rlhpo_core.production.ledger import Ledger
from rlhpo_core.study.spec import TrackingSpec
from rlhpo_core.tracking.connection import Connection
from tests.helpers.servers import shared_server
from tests.helpers.weather import PASS, FakeTime, Network

FOREIGN = ['{"status": "ok"}', "{}", '{"page": {"runs": 3}, "message": "please log in"}']


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    network = Network(shared_server().port)
    with network.open():
        yield network


@pytest.fixture
def client(network: Network) -> MlflowClient:
    network.weather = lambda request: PASS
    connection = Connection.of(TrackingSpec(uri=network.url), Path())
    return connection.contact(lambda client: client)


@pytest.fixture(scope="module")
def known(network: Network) -> dict[str, str]:
    """What is in MLflow: an experiment, a run in it, and a model with a version."""
    client = MlflowClient(network.url)
    experiment = client.create_experiment("foreign answers")
    run = client.create_run(experiment, tags={"rlhpo.study_id": "x"}).info.run_id
    client.create_registered_model("foreign")
    client.create_model_version("foreign", "s3://elsewhere/model")
    client.set_registered_model_alias("foreign", "champion", "1")
    client.set_registered_model_alias("foreign", "challenger", "1")
    return {"experiment": experiment, "run": run}


Request = Callable[[MlflowClient, dict[str, str]], object]
REQUESTS: dict[str, Request] = {
    "an experiment": lambda client, _: client.get_experiment_by_name("foreign answers"),
    "a new experiment": lambda client, _: client.create_experiment("another"),
    "a run": lambda client, known: client.get_run(known["run"]),
    "a new run": lambda client, known: client.create_run(known["experiment"]),
    "runs": lambda client, known: client.search_runs([known["experiment"]]),
    "runs that are not there": lambda client, known: client.search_runs([known["experiment"]], "tags.a = 'b'"),
    "a curve": lambda client, known: client.get_metric_history(known["run"], "best"),
    "a model": lambda client, _: client.get_registered_model("foreign"),
    "a new model": lambda client, _: client.create_registered_model("another"),
    "models": lambda client, _: client.search_registered_models("name = 'foreign'"),
    "a version": lambda client, _: client.get_model_version("foreign", "1"),
    "an alias": lambda client, _: client.get_model_version_by_alias("foreign", "champion"),
    "a new version": lambda client, _: client.create_model_version("foreign", "s3://elsewhere/model"),
    "versions": lambda client, _: client.search_model_versions("name = 'foreign'"),
    "to set an alias": lambda client, _: client.set_registered_model_alias("foreign", "previous", "1"),
    "to delete an alias": lambda client, _: client.delete_registered_model_alias("foreign", "challenger"),
    "to tag a model": lambda client, _: client.set_registered_model_tag("foreign", "a", "b"),
    "to tag a version": lambda client, _: client.set_model_version_tag("foreign", "1", "a", "b"),
}


@pytest.mark.parametrize("answer", FOREIGN)
@pytest.mark.parametrize("request_", REQUESTS)
def test_another_answer_is_not_taken_for_mlflows(
    network: Network, client: MlflowClient, known: dict[str, str], request_: str, answer: str
) -> None:
    network.weather = lambda request: answer
    with pytest.raises(Outage, match="is not MLflow"):
        REQUESTS[request_](client, known)
    network.weather = lambda request: PASS
    if "new" not in request_ and "delete" not in request_:
        REQUESTS[request_](client, known)


@pytest.mark.parametrize("answer", FOREIGN)
@pytest.mark.parametrize("path", ["registered-models/get", "registered-models/alias", "registered-models/set-tag"])
def test_a_promotion_is_carried_out_though_another_answers_meanwhile(
    network: Network, tmp_path: Path, path: str, answer: str
) -> None:
    network.weather = lambda request: PASS
    name = f"promoted {path.replace('/', ' ')} {FOREIGN.index(answer)}"
    connection, time = Connection.of(TrackingSpec(uri=network.url), tmp_path), FakeTime()
    client = connection.patient(connection.contact(lambda client: client))
    client.create_registered_model(name)
    client.create_model_version(name, "s3://elsewhere/model")
    network.weather = lambda request: answer if path in request and time.now < 5 else PASS
    ledger = Ledger.of(name, str(tmp_path / "ledger"))
    with time.waiting(600), connection.open():
        record = promotion.promote(client, ledger, "1", "by hand")
    assert time.now > 5
    model = client.get_registered_model(name)
    assert model.aliases["champion"] == "1"
    assert model.tags[promotion.APPLIED] == str(record.number)
