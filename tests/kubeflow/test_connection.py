"""Where the server is, who asks, and what is said if it does not answer as it should."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import client, connection, schedules
from rlhpo_core.kubeflow.client import RunInfo
from rlhpo_core.kubeflow.connection import Server
from tests.helpers.certificates import self_signed
from tests.helpers.kfp_pipelines import schedule, submit
from tests.helpers.kfp_server import KfpServer

pytestmark = pytest.mark.usefixtures("no_kfp_settings")
SECRET = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0"

# -- who asks ---------------------------------------------------------------------------------------------------------


def test_namespaces_of_a_server_with_several_users(start: Callable[..., KfpServer], package: Path) -> None:
    backend = start(namespaces={"team-a", "team-b"})
    mine, yours = Server.of(backend.url, "team-a"), Server.of(backend.url, "team-b")
    submit(mine, package, "mine")
    submit(yours, package, "yours")
    version = client.upload(mine, package, "hello", "v1")
    client.upload(yours, package, "hello", "v1")
    schedule(mine, package)
    assert [run.name for run in client.runs(mine)] == ["mine"]
    assert [run.name for run in client.runs(yours, "tuning")] == ["yours"]
    assert schedules.schedules(yours) == []
    assert backend.pipelines[version.pipeline_id]["namespace"] == "team-a"
    with pytest.raises(UserError, match=r"(?s)has several users: give a --namespace"):
        submit(Server.of(backend.url), package)
    for attempt in (
        lambda server: submit(server, package),
        lambda server: client.runs(server),
        lambda server: client.upload(server, package, "hello", "v1"),
        lambda server: schedule(server, package),
    ):
        with pytest.raises(UserError, match=r"(?s)denies access.*kubeflow-edit in the namespace team-x"):
            attempt(Server.of(backend.url, "team-x"))


def test_a_server_for_one_user_ignores_the_namespace(backend: KfpServer, package: Path) -> None:
    submit(Server.of(backend.url, "team-a"), package)
    assert len(client.runs(Server.of(backend.url))) == 1


def test_a_wrong_token_is_refused_without_being_shown(
    start: Callable[..., KfpServer], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = start(tokens={"right"})
    assert submit(Server.of(backend.url, token="right\n"), package).id
    with pytest.raises(UserError, match="does not accept a request without a token") as missing:
        submit(Server.of(backend.url), package)
    assert "RLHPO_KFP_TOKEN" in str(missing.value)
    monkeypatch.setenv("RLHPO_KFP_TOKEN", SECRET)
    server = Server.of(backend.url)
    with pytest.raises(UserError, match="does not accept the token that was given") as wrong:
        submit(server, package)
    assert SECRET not in str(wrong.value)
    assert SECRET not in repr(server)


def test_a_server_that_repeats_the_token_does_not_get_it_shown(backend: KfpServer, package: Path) -> None:
    with pytest.raises(UserError) as refused:
        submit(Server.of(backend.url, token=SECRET), package, parameters={"text": "a", SECRET: 1})
    assert "not required by pipeline: ***" in str(refused.value)


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut", "nul\0"])
def test_what_cannot_be_a_token_is_not_sent_nor_shown(token: str) -> None:
    with pytest.raises(UserError, match="is not a token") as refused:
        Server.of("http://localhost", token=token)
    assert token not in str(refused.value)


def test_a_token_file_is_read_again_when_it_changes(
    start: Callable[..., KfpServer], package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = start(tokens={"monday"})
    file = tmp_path / "token"
    file.write_text("monday\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    server = Server.of(backend.url)
    run = submit(server, package)
    backend.states = ["RUNNING", "SUCCEEDED"]

    def renew(info: RunInfo) -> None:
        if info.state == "RUNNING":
            backend.tokens = {"tuesday"}
            file.write_text("tuesday\n")

    assert client.wait(server, run.id, poll=0.001, on_state=renew).succeeded
    backend.tokens = {"wednesday"}
    with pytest.raises(UserError, match=f"does not accept the token in {file}"):
        client.runs(server)
    file.write_text("")
    with pytest.raises(UserError, match=f"what is in {file} is not a token"):
        client.runs(server)
    file.unlink()
    with pytest.raises(UserError, match=f"cannot read the token file {file}"):
        client.runs(server)


def test_a_given_token_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("from-file")
    monkeypatch.setattr(connection, "TOKEN_FILE", tmp_path / "token")
    assert Server.of("http://localhost").bearer() == "from-file"
    monkeypatch.setenv("RLHPO_KFP_TOKEN", "from-variable")
    assert Server.of("http://localhost").bearer() == "from-variable"
    assert Server.of("http://localhost", token="from-option").bearer() == "from-option"
    monkeypatch.delenv("RLHPO_KFP_TOKEN")
    (tmp_path / "token").unlink()
    assert Server.of("http://localhost").bearer() is None


def test_where_the_server_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which KFP server"):
        Server.of()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    (tmp_path / "namespace").write_text("team-a\n")
    monkeypatch.setattr(connection, "_POD_NAMESPACE", tmp_path / "namespace")
    inside = Server.of()
    assert (inside.host, inside.namespace, inside.page("runs")) == (connection.IN_CLUSTER, "team-a", None)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "kubeflow.example.com/pipeline/")
    assert Server.of().host == "https://kubeflow.example.com/pipeline"
    monkeypatch.setenv("KFP_API_HOST", "http://localhost:8080/#/runs")
    assert Server.of().host == "http://localhost:8080"
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://pages.example.com/")
    assert Server.of("http://other").page("runs") == "https://pages.example.com/#/runs"
    monkeypatch.setenv("RLHPO_KFP_NAMESPACE", "team-b")
    assert Server.of("http://other").namespace == "team-b"
    assert Server.of("http://other", "team-c").namespace == "team-c"


@pytest.mark.parametrize(
    "host", ["ftp://example.com", "http://", "https://example.com/?a=b", "https://a:pw@example.com"]
)
def test_what_cannot_be_a_server(host: str) -> None:
    with pytest.raises(UserError, match="--host") as refused:
        Server.of(host)
    assert "pw" not in str(refused.value).replace("password", "")


# -- servers that are down, slow, or something else -------------------------------------------------------------------


def test_a_server_that_is_down(start: Callable[..., KfpServer], package: Path) -> None:
    backend = start()
    backend.stop()
    with pytest.raises(UserError, match=r"(?s)cannot be reached: .*refused.*port-forward"):
        submit(Server.of(backend.url), package)
    with pytest.raises(UserError, match="cannot be reached"):
        client.wait(Server.of(backend.url), "any")


def test_a_name_that_does_not_exist(package: Path) -> None:
    with pytest.raises(UserError, match=r"KFP at http://nonesuch.invalid \(from --host\) cannot be reached"):
        client.runs(Server.of("http://nonesuch.invalid"))


def test_a_server_that_hangs(backend: KfpServer, package: Path) -> None:
    submit(Server.of(backend.url), package)
    server = Server.of(backend.url, timeout=0.2)
    backend.hanging = True
    with pytest.raises(UserError, match=r"did not answer within 0.2 seconds\.$"):
        client.runs(server)


def test_a_server_that_hangs_over_a_change(backend: KfpServer, server: Server, package: Path) -> None:
    run = submit(server, package)
    backend.hanging = True
    with pytest.raises(UserError, match="may have been carried out all the same: look before you repeat it"):
        client.terminate(replace(server, timeout=0.2), run.id)


def test_a_server_that_closes_the_connection(backend: KfpServer, server: Server) -> None:
    backend.hanging = True
    timer = threading.Timer(0.1, backend.silence.set)
    timer.start()
    with pytest.raises(UserError, match="broke off"):
        client.runs(server)
    timer.join()


def test_a_login_page(start: Callable[..., KfpServer], package: Path) -> None:
    backend = start(tokens={"right"})
    backend.login_page = True
    with pytest.raises(UserError, match=r"(?s)sends to another page, maybe to log in.*RLHPO_KFP_TOKEN"):
        submit(Server.of(backend.url), package)
    assert submit(Server.of(backend.url, token="right"), package).id


def test_a_page_that_is_not_kfp(backend: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.helpers.kfp_server import _Handler

    def page(self: Any) -> None:
        self._send(200, b"<html>welcome</html>", "text/html")

    monkeypatch.setattr(_Handler, "do_GET", page)
    with pytest.raises(UserError, match=r"(?s)answers with text/html, not as KFP does.*--host"):
        client.runs(Server.of(backend.url))


def test_a_wrong_path(backend: KfpServer) -> None:
    with pytest.raises(UserError, match=r"(?s)has no such page.*Correct --host"):
        client.runs(Server.of(f"{backend.url}/wrong"))


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls(start: Callable[..., KfpServer], certificate: Path, tmp_path: Path) -> None:
    backend = start(certificate=certificate)
    with pytest.raises(UserError, match=r"(?s)cannot be trusted: self-signed certificate.*--ca-cert"):
        client.runs(Server.of(backend.url))
    assert client.runs(Server.of(backend.url, ca_cert=certificate)) == []
    assert client.runs(Server.of(backend.url, verify_ssl=False)) == []
    with pytest.raises(UserError, match="there is no certificate file"):
        Server.of(backend.url, ca_cert=tmp_path / "nonesuch.pem")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))
