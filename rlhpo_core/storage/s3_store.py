"""Objects in S3: AWS's, and servers that speak as it does."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rlhpo_core import proxies
from rlhpo_core.errors import Outage, UserError
from rlhpo_core.retries import wait_out
from rlhpo_core.storage.keys import checked, checked_prefix, is_key

#: Requests that are sent at most for one answer.
_ATTEMPTS = 4
#: Metadata of an object that says who has made it.
_WRITER = "rlhpo-writer"
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the pod a role"
#: Environment variable, MLflow's, with what each upload is sent with besides, as JSON.
UPLOAD_VARIABLE = "MLFLOW_S3_UPLOAD_EXTRA_ARGS"
_ENCRYPTED = """{"ServerSideEncryption": "AES256"}, or {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "…"}"""
_RIGHTS = (
    "the credentials do not suffice; allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket (without the "
    "last, objects that do not exist look forbidden). If the bucket's policy wants uploads that name their encryption, "
    f"set {UPLOAD_VARIABLE} to {_ENCRYPTED}"
)
_FOREIGN = "what answers is not S3; check what stands between: a proxy, or a page to log in"
_UNREACHABLE = "the server does not answer; check AWS_ENDPOINT_URL and the network, and try again"
#: What to do about the codes of S3's answers and about botocore's exceptions.
_ADVICE = {
    "NoSuchBucket": "there is no such bucket; create it, or mend the name",
    "InvalidAccessKeyId": "the server does not know the access key; mend AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not belong to the access key; mend AWS_SECRET_ACCESS_KEY",
    "AccessDenied": _RIGHTS,
    "403": _RIGHTS,
    "ExpiredToken": "the credentials have expired; get new ones",
    "InvalidToken": "the session token is wrong; mend or unset AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "NotImplemented": "the server lacks what is needed, such as conditional writes; use a newer one",
    "NoCredentialsError": f"there are no credentials; {_CREDENTIALS}",
    "PartialCredentialsError": f"the credentials are incomplete; {_CREDENTIALS}",
    "CredentialRetrievalError": f"the credentials cannot be had; {_CREDENTIALS}",
    "EndpointConnectionError": _UNREACHABLE,
    "ProxyConnectionError": "the proxy does not answer",
    "ConnectTimeoutError": _UNREACHABLE,
    "ReadTimeoutError": _UNREACHABLE,
    "ConnectionClosedError": _UNREACHABLE,
    "ResponseStreamingError": _UNREACHABLE,
    "SSLError": "the server's certificate is not trusted; set AWS_CA_BUNDLE, or mend AWS_ENDPOINT_URL",
}
#: Exceptions of botocore, and codes of S3, for faults that pass; so are the statuses 429, 500, 502, 503 and 504.
_PASSING = {
    "EndpointConnectionError",
    "ProxyConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "ResponseStreamingError",
    "IncompleteReadError",
    "HTTPClientError",
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestTimeout",
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}|arn:[\w-]+:s3[\w-]*:[\w-]*:\d*:accesspoint[/:][A-Za-z0-9-]+")
_ACCESS_POINT = re.compile(r"(?P<arn>arn:[\w-]+:s3[\w-]*:[\w-]*:\d*:accesspoint[/:][A-Za-z0-9-]+)(?P<prefix>/.*)?$")

T = TypeVar("T")


def parts_of(rest: str) -> tuple[str, str]:
    """Bucket and prefix; an access point, named by its ARN, is a bucket with a slash or a colon before its name."""
    if (point := _ACCESS_POINT.match(rest)) is not None:
        return point["arn"], (point["prefix"] or "").strip("/")
    bucket, _, prefix = rest.partition("/")
    return bucket, prefix.strip("/")


def _connect() -> Any:
    """A client of S3, set up by what AWS's own tools read, or with MLflow's variable for the endpoint.

    Raises: UserError if the settings cannot be read.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    set_for_aws = "AWS_ENDPOINT_URL_S3" in os.environ or "AWS_ENDPOINT_URL" in os.environ
    # Checksums in trailers make a body "aws-chunked", which servers other than AWS's store with the framing in it.
    checksums = {
        f"{name}_checksum_{kind}": os.environ.get(f"AWS_{name}_checksum_{kind}".upper()) or "when_required"
        for name, kind in (("request", "calculation"), ("response", "validation"))
    }
    config = Config(
        **checksums,
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=32,
    )
    try:
        # A session of its own: boto3's common one must not be used by several threads.
        return boto3.session.Session().client(
            "s3", endpoint_url=None if set_for_aws else os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None, config=config
        )
    except (BotoCoreError, ValueError) as error:
        advice = _ADVICE.get(type(error).__name__, "mend the AWS_… variables or the files in ~/.aws")
        raise UserError(f"cannot set up S3: {advice} ({error})") from error


class _Client:
    """A client of S3 that is set up anew when the environment's settings for it have changed.

    As they do in a pod whose secret is renewed: keys that expire would otherwise be kept for as long as a trial takes.
    """

    def __init__(self) -> None:
        self._set_up()

    def __getattr__(self, name: str) -> Any:
        if self._settings != _settings():
            self._set_up()
        return getattr(self._client, name)

    def _set_up(self) -> None:
        self._settings, self._client = _settings(), _connect()


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "MLFLOW_S3_"))}


@dataclass(frozen=True)
class S3Store:
    """Objects of a bucket whose names start with ``prefix/``. Several threads may use it at once."""

    bucket: str
    prefix: str = ""
    client: Any = field(default_factory=_Client, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.bucket) or not (self.prefix == "" or is_key(self.prefix)):
            raise UserError(f"{self.uri} names no bucket, or no place in one; write s3://bucket/prefix")

    @property
    def uri(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str) -> bytes | None:
        """The whole object; ``None`` if there is none. Raises: UserError if S3 refuses or cannot be reached."""
        place = self._place(key)

        def read() -> bytes | None:
            try:
                return self._body(place, _ATTEMPTS)
            except self.client.exceptions.NoSuchKey:
                return None

        return self._ask(f"read {key}", read)

    def write(self, key: str, data: bytes) -> None:
        """Replace the object, or make it. Raises: UserError as ``read`` does."""
        place = self._place(key)
        extra = _upload_arguments()
        self._ask(f"write {key}", lambda: self._genuine(self.client.put_object(**place, Body=data, **extra), "ETag"))

    def create(self, key: str, data: bytes) -> bool:
        """Make the object if there is none, by a conditional write. Raises: UserError as ``read`` does."""
        # One writer for all attempts: one whose answer was lost may have made the object.
        place, writer = self._place(key), secrets.token_hex(16)
        return self._ask(f"write {key}", lambda: self._put_new(place, data, writer, _ATTEMPTS))

    def delete(self, key: str) -> None:
        """Remove the object if there is one. Raises: UserError as ``read`` does."""
        place = self._place(key)
        self._ask(f"remove {key}", lambda: self.client.delete_object(**place))

    def keys(self, prefix: str = "") -> list[str]:
        """Objects below the prefix whose keys start with ``prefix``, sorted. Raises: UserError as ``read`` does."""
        above = f"{self.prefix}/" if self.prefix else ""
        below = checked_prefix(prefix)

        def listed() -> list[str]:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=above + below)
            entries = [entry for page in pages for entry in self._genuine(page, "IsTruncated").get("Contents", ())]
            return [entry["Key"].removeprefix(above) for entry in entries]

        return sorted(filter(is_key, self._ask("list objects", listed)))

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{checked(key)}".lstrip("/")}

    def _body(self, place: dict[str, str], attempts: int) -> bytes:
        """boto3 repeats requests, but does not read again when the connection breaks within an object."""
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        body = self._genuine(self.client.get_object(**place), "ETag")["Body"]
        try:
            return bytes(body.read())
        except (BotoCoreError, HTTPError):
            if attempts == 1:
                raise
        return self._body(place, attempts - 1)

    def _put_new(self, place: dict[str, str], data: bytes, writer: str, attempts: int) -> bool:
        try:
            metadata = {"Metadata": {_WRITER: writer}}
            answer = self.client.put_object(**place, Body=data, IfNoneMatch="*", **{**_upload_arguments(), **metadata})
        except self.client.exceptions.ClientError as error:
            if _code(error) == "PreconditionFailed":
                # boto3 repeats a request whose answer was lost, and then finds the object that it has made itself.
                return self._writer(place) == writer
            if _code(error) == "ConditionalRequestConflict" and attempts > 1:
                return self._put_new(place, data, writer, attempts - 1)
            raise
        self._genuine(answer, "ETag")
        return True

    def _writer(self, place: dict[str, str]) -> str | None:
        """Who made the object; ``None`` if it is gone, or was not made by ``create``."""
        try:
            metadata: dict[str, str] = self._genuine(self.client.head_object(**place), "ETag")["Metadata"]
        except self.client.exceptions.ClientError as error:
            if _code(error) == "404":
                return None
            raise
        return metadata.get(_WRITER)

    def _genuine(self, answer: Any, mark: str) -> Any:
        """The answer, if it has what each of S3's has. A proxy may answer in its place, with status 200, too."""
        if mark not in answer:
            raise Outage(f"{self._where()}: {_FOREIGN}")
        return answer

    def _where(self) -> str:
        address = self.client.meta.endpoint_url
        return f"{self.uri} at {address}{proxies.through(address)}"

    def _ask(self, what: str, ask: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError

        def attempt() -> T:
            try:
                return ask()
            except (BotoCoreError, ClientError) as error:
                code = _code(error) if isinstance(error, ClientError) else type(error).__name__
                kind = Outage if code in _PASSING or _status(error) in (429, 500, 502, 503, 504) else UserError
                advice = _ADVICE.get(code, "the request failed")
                raise kind(f"{self._where()}: {advice} ({error})") from error
            except HTTPError as error:
                # Not botocore's: the connection broke within an answer.
                raise Outage(f"{self._where()}: {_UNREACHABLE} ({error})") from error
            except ResponseParserError as error:
                raise Outage(f"{self._where()}: {_FOREIGN} ({error})") from error

        return wait_out(what, attempt)


def _upload_arguments() -> dict[str, Any]:
    """What each upload is sent with besides, such as how S3 is to encrypt it: from MLflow's variable, for both.

    Raises: UserError if it is no JSON object.
    """
    text = os.environ.get(UPLOAD_VARIABLE, "")
    try:
        given = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise UserError(f"{UPLOAD_VARIABLE} is no JSON ({error}); write for example {_ENCRYPTED}") from error
    if not isinstance(given, dict):
        raise UserError(f"{UPLOAD_VARIABLE} is no JSON object; write for example {_ENCRYPTED}")
    return given


def _status(error: Any) -> int:
    """HTTP's, of an answer that S3 has given; 0 without one."""
    response = getattr(error, "response", {})
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:
    return str(error.response["Error"]["Code"])
