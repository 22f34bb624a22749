from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.places import Addresses, Cluster, Here, Place

#: "here", the path of a file with addresses, or nothing: then quick tests alone run, here.
WHERE = os.environ.get("RLHPO_CLUSTER", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/cluster/" not in str(item.path):
            continue
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(2400))
        if not WHERE and item.get_closest_marker("quick") is None:
            item.add_marker(pytest.mark.skip(reason="RLHPO_CLUSTER is not set: see CONTRIBUTING.md, make e2e-cluster"))
        if item.get_closest_marker("every") is not None and not os.environ.get("RLHPO_CLUSTER_ALL"):
            item.add_marker(pytest.mark.skip(reason="make e2e-cluster-all runs it"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A folder of its own, proxies of its own, and on this machine a cluster of its own."""
    found: Place = (
        Here(tmp_path)
        if WHERE in ("", "here")
        else Cluster(tmp_path, Addresses.model_validate(yaml.safe_load(Path(WHERE).read_text())))
    )
    try:
        yield found
    finally:
        found.close()
