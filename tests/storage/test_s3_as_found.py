"""S3 as it is found: servers that do not know aws-chunked, buckets that want encryption, servers without conditions.

boto/boto3#4435, kubeflow/pipelines#13314, mlflow/mlflow#1764 and awslabs/mountpoint-s3#534 tell of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.retries import patiently
from rlhpo_core.storage import object_store
from rlhpo_core.storage.lock import acquire
from rlhpo_core.storage.object_store import check_conditional_writes, open_store, sure_of
from rlhpo_core.storage.s3_store import S3Store
from tests.helpers.certificates import self_signed
from tests.helpers.plain_s3 import PlainS3, serving

BODY = b"0123456789" * 3
AES = '{"ServerSideEncryption": "AES256"}'


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REQUEST_CHECKSUM_CALCULATION", "MLFLOW_S3_UPLOAD_EXTRA_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(object_store, "_SURE_OF", set())
    with patiently(0):
        yield


def test_what_is_written_over_tls_comes_back_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(PlainS3(), monkeypatch, self_signed(tmp_path)) as server:
        store = open_store("s3://studies/rlhpo")
        store.write("study/state", BODY)
        assert store.read("study/state") == BODY
        assert (store.create("study/lock", b"me"), store.create("study/lock", b"you")) == (True, False)
        assert store.read("study/lock") == b"me"
        assert store.keys("study/") == ["study/lock", "study/state"]
        assert [upload for upload in server.uploads if "aws-chunked" in upload.get("content-encoding", "")] == []
        assert server.objects["studies/rlhpo/study/state"][0] == BODY
        sure_of(store)


def test_framing_that_somebody_has_asked_for_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    with serving(PlainS3(), monkeypatch, self_signed(tmp_path)), pytest.raises(UserError, match="aws-chunked"):
        check_conditional_writes(open_store("s3://studies/rlhpo"))


def test_uploads_name_their_encryption(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(PlainS3(wants_encryption=True), monkeypatch) as server:
        store = open_store("s3://studies/rlhpo")
        with pytest.raises(UserError, match="uploads that name their encryption, set MLFLOW_S3_UPLOAD_EXTRA_ARGS"):
            store.write("a", BODY)
        monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", AES)
        store.write("a", BODY)
        assert store.create("b", BODY)
        assert not store.create("b", BODY)
        assert store.read("a") == BODY
        assert [upload["x-amz-server-side-encryption"] for upload in server.uploads[1:]] == ["AES256"] * 3


@pytest.mark.parametrize("text", ["AES256", '["AES256"]'])
def test_what_is_no_json_object_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", text)
    with (
        serving(PlainS3(), monkeypatch) as server,
        pytest.raises(UserError, match=re.escape('{"ServerSideEncryption": "AES256"}')),
    ):
        open_store("s3://studies").write("a", BODY)
    assert server.objects == {}


def test_where_conditions_are_ignored_there_is_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(PlainS3(heeds_conditions=False), monkeypatch) as server:
        store = open_store("s3://studies/rlhpo")
        with pytest.raises(UserError, match="ignores If-None-Match"):
            acquire(store, "somebody", expiry=60, patience=0)
        assert server.objects == {}


def test_conditions_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(PlainS3(), monkeypatch) as server:
        store = open_store("s3://studies/rlhpo")
        for _ in range(3):
            acquire(store, "somebody", expiry=60, patience=0).give_back()
        probes = [key for key in server.objects if "probe" in key]
        tried = [upload for upload in server.uploads if "if-none-match" in upload]
        assert probes == []
        assert len(tried) == 2 + 3


@pytest.mark.parametrize(
    ("address", "bucket", "prefix"),
    [
        ("s3a://bucket/a/b", "bucket", "a/b"),
        ("arn:aws:s3:::bucket/a", "bucket", "a"),
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/team/a/b",
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/team",
            "a/b",
        ),
        (
            "arn:aws:s3:eu-west-1:123456789012:accesspoint:team",
            "arn:aws:s3:eu-west-1:123456789012:accesspoint:team",
            "",
        ),
    ],
)
def test_other_names_of_places(address: str, bucket: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(PlainS3(), monkeypatch):
        store = open_store(address)
        assert isinstance(store, S3Store)
        assert (store.bucket, store.prefix) == (bucket, prefix)
        assert open_store(store.uri) == store
