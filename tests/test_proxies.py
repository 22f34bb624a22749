"""Where a proxy stands in between, messages name it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core import proxies
from rlhpo_core.errors import UserError
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.study.spec import TrackingSpec
from rlhpo_core.tracking.connection import Connection

#: What KFP puts into all pods of a cluster behind a company's proxy (kubeflow/pipelines#11744); nothing listens there.
PROXY = "http://127.0.0.1:9"
NO_PROXY = "localhost,127.0.0.1,.svc.cluster.local,.svc,kubernetes.default"


@pytest.fixture(autouse=True)
def _behind_a_proxy(monkeypatch: pytest.MonkeyPatch, only_these_settings: None) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", NO_PROXY)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://mlflow:5000", True),
        ("http://mlflow.rlhpo:5000", True),
        ("http://mlflow.rlhpo.svc:5000", False),
        ("http://mlflow.rlhpo.svc.cluster.local:5000", False),
        ("http://127.0.0.1:5000", False),
        ("https://mlflow:5000", False),
        ("sqlite:////tmp/mlflow.db", False),
    ],
)
def test_short_names_go_through_the_proxy_and_whole_ones_do_not(url: str, named: bool) -> None:
    assert ("through the proxy http://127.0.0.1:9 (from HTTP_PROXY;" in proxies.through(url)) == named
    assert bool(proxies.through(url)) == named


def test_a_login_to_the_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:se:cr@et@proxy.example.com:3128")
    said = proxies.through("https://s3.example.com")
    assert said.startswith(" through the proxy http://proxy.example.com:3128 (from https_proxy; ")
    monkeypatch.setenv("https_proxy", "proxy.example.com:3128")
    assert " through the proxy proxy.example.com:3128 (" in proxies.through("https://s3.example.com")


def test_mlflow_and_s3_that_are_not_reached_for_a_proxy_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "s"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://object-store:8333")
    named = (
        r"through the proxy http://127\.0\.0\.1:9 \(from HTTP_PROXY; if it is to be asked directly, add {} to NO_PROXY"
    )
    connection = Connection.of(TrackingSpec(uri="http://mlflow:5000"), tmp_path)
    with pytest.raises(UserError, match=named.format("mlflow")) as caught:
        connection.contact(lambda client: client.search_experiments(max_results=1))
    assert caught.value.passing
    monkeypatch.setattr("rlhpo_core.storage.s3_store._ATTEMPTS", 1)
    with pytest.raises(UserError, match=named.format("object-store")) as caught:
        open_store("s3://rlhpo/studies").read("study.yaml")
    assert caught.value.passing
    assert "the proxy does not answer" in str(caught.value)
