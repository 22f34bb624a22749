from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from rlhpo_core.tracking.registry import (
    aliases_of_model,
    aliases_of_version,
    create_registered_model,
    registered_model,
    set_aliases,
)
from tests.helpers.mlflow_store import new_store


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(new_store(tmp_path_factory.mktemp("registry")))


def test_a_model_is_made_once(client: MlflowClient) -> None:
    create_registered_model(client, "wine", "true")
    create_registered_model(client, "wine", "other")
    assert registered_model(client, "wine").tags == {"rlhpo": "true"}
    with pytest.raises(MlflowException, match="name"):
        create_registered_model(client, "", "true")


def test_a_model_that_is_not_there_has_no_aliases(client: MlflowClient) -> None:
    assert registered_model(client, "unknown") is None
    assert aliases_of_model(client, "unknown") == {}


def test_the_first_version_is_champion_and_a_later_one_only_if_it_is_said(client: MlflowClient, tmp_path: Path) -> None:
    create_registered_model(client, "beer", "true")
    for _ in range(3):
        client.create_model_version("beer", source=str(tmp_path))
    set_aliases(client, "beer", "1", ["challenger"])
    assert aliases_of_version(client, "beer", "1") == ("challenger", "champion")
    set_aliases(client, "beer", "2", ["challenger"])
    assert aliases_of_model(client, "beer") == {"champion": "1", "challenger": "2"}
    set_aliases(client, "beer", "3", ["champion", "tried"])
    assert aliases_of_version(client, "beer", "3") == ("champion", "tried")
    set_aliases(client, "beer", "1", [])
    assert aliases_of_model(client, "beer")["champion"] == "3"
