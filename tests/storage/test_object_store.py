"""The object store: one contract, kept by a folder and by a real S3 server."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhpo_core.errors import UserError
from rlhpo_core.storage.object_store import FolderStore, Store, check_conditional_writes, open_store
from rlhpo_core.storage.s3_store import S3Store
from tests.helpers.servers import S3Server, shared_s3_server

NO_KEYS = [
    "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", ".a", "a/.b", "a\\b", "a\nb", "a\0b",
    "é" * 101, "x" * 201, "\ud800",
]  # fmt: skip


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    """The server, and an environment that knows of nothing but it."""
    server = shared_s3_server()
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(params=["folder", "s3"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens empty stores."""
    if request.param == "folder":
        return lambda: open_store(str(tmp_path / uuid.uuid4().hex))
    server: S3Server = request.getfixturevalue("s3")
    return lambda: open_store(f"s3://{server.bucket}/tests/{uuid.uuid4().hex}")


class TestContract:
    """What every store does."""

    @pytest.fixture
    def store(self, fresh: Callable[[], Store]) -> Store:
        return fresh()

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 8000], ids=["empty", "byte", "2 MB"])
    def test_what_is_written_is_read(self, store: Store, data: bytes) -> None:
        assert store.read("a/b.bin") is None
        store.write("a/b.bin", b"before")
        store.write("a/b.bin", data)
        assert store.read("a/b.bin") == data

    def test_an_object_is_created_once(self, store: Store) -> None:
        assert store.create("lock", b"first")
        assert not store.create("lock", b"second")
        assert not store.create("lock", b"first")
        assert store.read("lock") == b"first"
        store.write("lock", b"third")
        assert not store.create("lock", b"second")
        store.delete("lock")
        assert store.create("lock", b"fourth")
        assert store.read("lock") == b"fourth"

    def test_of_many_at_once_one_creates(self, store: Store) -> None:
        for attempt in range(3):
            barrier = threading.Barrier(8)

            def create(number: int, key: str = f"locks/{attempt}", barrier: threading.Barrier = barrier) -> bool:
                barrier.wait()
                return store.create(key, b"%d" % number)

            with ThreadPoolExecutor(8) as threads:
                won = [number for number, made in enumerate(threads.map(create, range(8))) if made]
            assert [b"%d" % number for number in won] == [store.read(f"locks/{attempt}")]

    def test_readers_see_whole_objects(self, store: Store) -> None:
        contents = [letter * 300_000 for letter in (b"a", b"b")]
        store.write("object", contents[0])
        done = threading.Event()

        def write() -> None:
            for number in range(20):
                store.write("object", contents[number % 2])
            done.set()

        seen = set()
        with ThreadPoolExecutor(1) as threads:
            writing = threads.submit(write)
            while not done.is_set() and not writing.done():
                seen.add(store.read("object"))
            writing.result()
        assert seen <= set(contents)

    def test_what_is_deleted_is_gone(self, store: Store) -> None:
        store.write("a/b", b"1")
        for _ in range(2):
            store.delete("a/b")
            assert store.read("a/b") is None
            assert store.keys() == []

    def test_keys_are_found_by_their_beginning_and_sorted(self, store: Store) -> None:
        names = ["trials/b.json", "trials/a.json", "trials/old/c.json", "trialsx/d", "study.yaml"]
        assert store.keys() == store.keys("trials/") == []
        for name in names:
            store.write(name, b"")
        assert store.keys() == sorted(names)
        assert store.keys("trials/") == ["trials/a.json", "trials/b.json", "trials/old/c.json"]
        assert store.keys("trials") == [*store.keys("trials/"), "trialsx/d"]
        assert store.keys("trials/o") == ["trials/old/c.json"]
        assert store.keys("study.yaml") == ["study.yaml"]
        assert store.keys("nothing/here") == []

    @pytest.mark.parametrize("key", ["my data (1).csv", "Größe/naïve.json", "a+b=c%20&d?e#f@g", "~a/,b;c'd", "x" * 200])
    def test_names_of_any_kind_are_kept(self, store: Store, key: str) -> None:
        assert store.create(key, b"1")
        assert not store.create(key, b"2")
        assert store.read(key) == b"1"
        assert store.keys() == store.keys(key[:3].rstrip("/")) == [key]

    @pytest.mark.parametrize("key", NO_KEYS)
    def test_what_is_no_key_is_refused(self, store: Store, key: str) -> None:
        for use in (store.read, store.delete, lambda key: store.write(key, b""), lambda key: store.create(key, b"")):
            with pytest.raises(UserError, match="nothing can be stored under"):
                use(key)
        assert store.keys() == []

    @pytest.mark.parametrize("prefix", ["/", "../", "a/../b", "a//", ".", "/etc/"])
    def test_what_begins_no_key_is_refused(self, store: Store, prefix: str) -> None:
        with pytest.raises(UserError, match="begins no name"):
            store.keys(prefix)

    def test_its_uri_opens_it_again(self, store: Store) -> None:
        store.write("a", b"1")
        again = open_store(store.uri)
        assert again == store
        assert again.uri == store.uri
        assert again.read("a") == b"1"

    def test_it_can_keep_two_processes_apart(self, store: Store) -> None:
        check_conditional_writes(store)
        assert store.keys() == []

    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])  # each opens its own store
    @given(data=st.data())
    def test_it_behaves_like_a_mapping(self, fresh: Callable[[], Store], data: st.DataObject) -> None:
        store, model = fresh(), dict[str, bytes]()
        keys = st.sampled_from(["a", "b.c", "d/e", "d/f", "d/g/h"])
        for _ in range(data.draw(st.integers(1, 12), label="operations")):
            key, content = data.draw(keys), data.draw(st.binary(max_size=20))
            match data.draw(st.sampled_from(["write", "create", "delete"])):
                case "write":
                    store.write(key, content)
                    model[key] = content
                case "create":
                    assert store.create(key, content) == (key not in model)
                    model.setdefault(key, content)
                case _:
                    store.delete(key)
                    model.pop(key, None)
            assert store.read(key) == model.get(key)
            prefix = data.draw(st.sampled_from(["", "d/", "d", "d/g/", "b."]))
            assert store.keys(prefix) == sorted(name for name in model if name.startswith(prefix))


# -- names of stores -------------------------------------------------------------------------------------------------


def test_a_folder_is_named_by_a_path_or_a_file_uri(tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    assert open_store(str(folder)) == open_store(folder.as_uri()) == FolderStore(folder)
    assert open_store("runs/a") == FolderStore(Path("runs/a"))
    assert open_store("runs/a").uri == "runs/a"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "the store has no name"),
        ("gs://bucket/a", "a store cannot be at gs://"),
        ("file://elsewhere/a", "did you mean 'file:///elsewhere/a'"),
        ("file://", "is no address"),
        ("s3://", "names no bucket"),
        ("s3:///a", "did you mean 's3://a'"),
        ("s3://no bucket/a", "names no bucket"),
        ("s3://bucket/a/../b", "names no bucket, or no place in one"),
        ("s3://bucket/a//b", "names no bucket, or no place in one"),
    ],
)
def test_what_names_no_store_is_refused(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_store(uri)


def test_without_s3_boto3_is_not_imported() -> None:
    code = (
        "import sys; from rlhpo_core.storage.object_store import open_store; open_store('a'); "
        "sys.exit('boto3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- a folder --------------------------------------------------------------------------------------------------------


def test_hidden_files_are_no_objects(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name in (".hidden", ".git/config", "seen"):
        (tmp_path / name).write_text("")
    (tmp_path / os.fsdecode(b"\xff")).write_text("")
    assert FolderStore(tmp_path).keys() == ["seen"]


def test_a_folder_is_no_object(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("a/b", b"")
    assert store.read("a") is None
    assert store.read("a/b/c") is None
    with pytest.raises(UserError, match="cannot write"):
        store.write("a", b"")
    with pytest.raises(UserError, match="cannot write"):
        store.create("a/b/c", b"")
    with pytest.raises(UserError, match="cannot remove"):
        store.delete("a")


@pytest.mark.parametrize("operation", [FolderStore.write, FolderStore.create])
def test_a_full_disk_leaves_things_as_they_were(
    operation: Callable[[FolderStore, str, bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    store.write("a", b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for key in ("a", "b"):
        with pytest.raises(UserError, match=f"cannot write {tmp_path}/{key}: .*No space left"):
            operation(store, key, b"after")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a", b"before")]


def test_no_other_files_are_left_behind(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for _ in range(2):
        store.write("a", b"")
        store.create("b", b"")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


# -- S3 --------------------------------------------------------------------------------------------------------------


def test_a_prefix_holds_only_what_is_below_it(s3: S3Server) -> None:
    place = f"s3://{s3.bucket}/{uuid.uuid4().hex}"
    for name in ("a", "ab", "a/b"):
        open_store(f"{place}/{name}").write("key", b"")
    assert open_store(f"{place}/a").keys() == ["b/key", "key"]
    assert open_store(f"{place}/a/").uri == f"{place}/a"
    above, name = open_store(f"s3://{s3.bucket}"), place.rpartition("/")[2]
    assert above.keys(f"{name}/ab") == [f"{name}/ab/key"]


def test_keys_come_from_all_pages(s3: S3Server) -> None:
    store = S3Store(s3.bucket, uuid.uuid4().hex)
    names = [f"trials/{number:02}.json" for number in range(11)]
    for name in names:
        store.write(name, b"")
    pages = []

    def ask_for_few(params: dict[str, Any], **_: object) -> dict[str, Any]:
        pages.append(params.get("ContinuationToken"))
        return {**params, "MaxKeys": 3}

    store.client.meta.events.register("provide-client-params.s3.ListObjectsV2", ask_for_few)
    assert store.keys("trials/") == names
    assert len(pages) == 4


def test_what_others_named_otherwise_is_passed_over(s3: S3Server) -> None:
    prefix = uuid.uuid4().hex
    for name in (".hidden", "folder/", "seen"):
        s3.client().put_object(Bucket=s3.bucket, Key=f"{prefix}/{name}", Body=b"")
    assert S3Store(s3.bucket, prefix).keys() == ["seen"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "there are no credentials; set AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "hunter2"}, "the secret does not belong to the access key; mend AWS_SECRET"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "the server does not know the access key; mend AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "the server does not answer; check AWS_ENDPOINT_URL"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    s3: S3Server, changes: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    with pytest.raises(UserError, match=f"^s3://studies/a at {endpoint}: {message}") as caught:
        open_store("s3://studies/a").read("key")
    assert "hunter2" not in str(caught.value)


def test_a_bucket_that_does_not_exist_is_named(s3: S3Server) -> None:
    store = open_store("s3://elsewhere/a")
    for use in (lambda: store.read("a"), store.keys, lambda: store.delete("a")):
        with pytest.raises(UserError, match=r"s3://elsewhere/a at .* there is no such bucket; create it"):
            use()


def test_a_reader_may_not_write(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(f"s3://{s3.bucket}/shared").write("a", b"1")
    for name, value in s3.environment("reader").items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{s3.bucket}/shared")
    assert store.read("a") == b"1"
    assert store.keys() == ["a"]
    for use in (lambda: store.write("a", b""), lambda: store.create("b", b""), lambda: store.delete("a")):
        with pytest.raises(UserError, match="the credentials do not suffice; allow s3:GetObject"):
            use()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_ENDPOINT_URL_S3", "nonsense", "mend the AWS_… variables .*nonsense"),
        ("MLFLOW_S3_ENDPOINT_URL", "nonsense", "mend the AWS_… variables .*nonsense"),
        ("AWS_PROFILE", "nobody", "mend the AWS_… variables or the files in ~/.aws .*nobody"),
        ("AWS_SECRET_ACCESS_KEY", "", "the credentials are incomplete; set AWS_ACCESS_KEY_ID"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    s3: S3Server, name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"cannot set up S3: {message}"):
        open_store("s3://studies/a")


def test_credentials_that_are_renewed_are_used_from_then_on(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pod whose secret is replaced while its trial runs."""
    store = S3Store(s3.bucket, uuid.uuid4().hex)
    store.write("key", b"before")
    right = os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY"):
        store.read("key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", right)
    assert store.read("key") == b"before"


def test_the_endpoint_may_be_the_one_that_mlflow_uses(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.url)
    open_store(f"s3://{s3.bucket}/mlflow").write("a", b"1")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    assert open_store(f"s3://{s3.bucket}/mlflow").read("a") == b"1"


def test_a_server_that_overwrites_is_found_out(s3: S3Server) -> None:
    """The server heeds the condition, so it is taken out of the requests."""
    store = S3Store(s3.bucket, uuid.uuid4().hex)

    def forget(request: Any, **_: object) -> None:
        del request.headers["If-None-Match"]

    store.client.meta.events.register("before-sign.s3.PutObject", forget)
    with pytest.raises(UserError, match="overwrites objects that were to be made only if they did not exist"):
        check_conditional_writes(store)
    assert store.keys() == []


# -- S3 over a bad network -------------------------------------------------------------------------------------------


class BadNetwork(ThreadingHTTPServer):
    """Passes requests on to the server; cuts the first ``losses`` answers to a method after ``passed`` bytes of body.

    With ``passed`` below 0, nothing of the answer comes through.
    """

    def __init__(self, server: S3Server, method: str, losses: int, passed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.to, self.method, self.losses, self.passed = server.ports["s3.port"], method, losses, passed
        self.requests = 0


class _Passing(BaseHTTPRequestHandler):
    server: BadNetwork

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        onward = http.client.HTTPConnection("127.0.0.1", self.server.to, timeout=30)
        # The signature covers the name of the host, so headers go on as they are.
        onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                onward.putheader(name, value)
        onward.endheaders(body or None)
        answer = onward.getresponse()
        content = answer.read()
        onward.close()
        self.close_connection = True
        lost = False
        if self.command == self.server.method:
            self.server.requests += 1
            lost = self.server.requests <= self.server.losses
        if lost and self.server.passed < 0:
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("date", "server", "connection"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: self.server.passed] if lost else content)

    do_GET = do_PUT = do_HEAD = handle_any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def bad_network(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int, int], BadNetwork]]:
    """Puts one between boto3 and the server."""
    started = []

    def start(method: str, losses: int, passed: int) -> BadNetwork:
        network = BadNetwork(s3, method, losses, passed)
        threading.Thread(target=network.serve_forever, daemon=True).start()
        started.append(network)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{network.server_port}")
        return network

    yield start
    for network in started:
        network.shutdown()
        network.server_close()


def test_who_created_an_object_knows_it_though_the_answer_was_lost(
    s3: S3Server, bad_network: Callable[[str, int, int], BadNetwork]
) -> None:
    store = S3Store(s3.bucket, uuid.uuid4().hex)
    network = bad_network("PUT", 1, -1)
    behind = S3Store(s3.bucket, store.prefix)
    assert behind.create("lock", b"mine")
    assert network.requests == 2
    network.requests = 0
    assert not behind.create("lock", b"mine")
    assert store.read("lock") == b"mine"


def test_an_object_whose_transfer_breaks_off_is_read_again(
    s3: S3Server, bad_network: Callable[[str, int, int], BadNetwork]
) -> None:
    store, content = S3Store(s3.bucket, uuid.uuid4().hex), b"0123456789" * 10_000
    store.write("a", content)
    network = bad_network("GET", 2, 1000)
    assert S3Store(s3.bucket, store.prefix).read("a") == content
    assert network.requests == 3


def test_a_network_that_stays_bad_is_an_error_in_the_end(
    s3: S3Server, bad_network: Callable[[str, int, int], BadNetwork]
) -> None:
    S3Store(s3.bucket, "bad").write("a", b"0" * 10_000)
    bad_network("GET", 100, 1000)
    with pytest.raises(UserError, match="the server does not answer"):
        S3Store(s3.bucket, "bad").read("a")
