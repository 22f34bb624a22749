"""What a real cluster alone can say: what a run weighs, and who may use the registry's secret."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from pipelines import workflow_size
from tests.cluster.places import Cluster, Place
from tests.cluster.studies import EACH, submit, wait_for_end, write_study


@pytest.fixture
def cluster(place: Place) -> Cluster:
    if not isinstance(place, Cluster):
        pytest.skip("there is no Kubernetes here")
    return place


def test_a_run_weighs_what_the_formula_says(cluster: Cluster) -> None:
    """Argo's limit is on the specification and the compressed status together."""
    from kubernetes import client

    study, store = write_study(cluster.folder, "weighed", rounds=2), cluster.store("weighed")
    run = submit(cluster, study, store, "--rounds", "2")
    wait_for_end(cluster, store, trials=4)
    found = client.CustomObjectsApi().list_namespaced_custom_object(
        "argoproj.io", "v1alpha1", cluster.addresses.namespace, "workflows",
        label_selector=f"pipeline/runid={run}", _request_timeout=60,
    )  # fmt: skip
    (workflow,) = found["items"]
    nodes = workflow["status"].get("compressedNodes")
    if nodes is None:
        packed = gzip.compress(json.dumps(workflow["status"].get("nodes", {})).encode())
        nodes = base64.b64encode(packed).decode()
    weighed = len(json.dumps(workflow["spec"])) + len(nodes)
    expected = workflow_size.workflow_bytes(2, EACH)
    print(f"weighs {weighed} bytes, by the formula {expected:.0f}")
    assert expected / 1.3 < weighed < expected * 1.3


def test_the_registrys_secret_is_refused_to_other_pods(cluster: Cluster) -> None:
    from kubernetes.client.exceptions import ApiException

    def pod(step: str) -> dict[str, object]:
        use = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "rlhpo-registry", "key": "A", "optional": True}}}
        main = {"name": "main", "image": "none", "env": [use]}
        meta = {"generateName": "rlhpo-e2e-", "labels": {"rlhpo/step": step}}
        account = cluster.addresses.service_account or "default"
        return {"metadata": meta, "spec": {"serviceAccountName": account, "containers": [main]}}

    space = cluster.addresses.namespace
    with pytest.raises(ApiException, match="rlhpo") as refused:
        cluster._api.create_namespaced_pod(space, pod("train"), dry_run="All", _request_timeout=30)
    assert refused.value.status in (403, 422)
    cluster._api.create_namespaced_pod(space, pod("register-best"), dry_run="All", _request_timeout=30)
