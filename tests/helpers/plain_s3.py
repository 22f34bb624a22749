"""A server that speaks S3 as others than AWS do: it stores a body as it comes, framing and all; objects in memory."""

from __future__ import annotations

import hashlib
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class PlainS3:
    """What the server holds, and how it behaves."""

    heeds_conditions: bool = True
    """Whether If-None-Match has an effect."""
    wants_encryption: bool = False
    """Whether a bucket policy denies uploads that name no encryption."""
    objects: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    uploads: list[dict[str, str]] = field(default_factory=list)
    """Headers of each upload, by their names in small letters."""
    url: str = ""


def _tag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: PlainS3

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    @property
    def _key(self) -> str:
        return urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/")

    def do_PUT(self) -> None:
        body, headers = self._body(), {name.lower(): value for name, value in self.headers.items()}
        self.state.uploads.append(headers)
        if self.state.wants_encryption and "x-amz-server-side-encryption" not in headers:
            self._refuse(403, "AccessDenied")
        elif self.state.heeds_conditions and "if-none-match" in headers and self._key in self.state.objects:
            self._refuse(412, "PreconditionFailed")
        else:
            kept = {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
            self.state.objects[self._key] = (body, kept)
            self._answer(200, ETag=f'"{_tag(body)}"')

    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        if "list-type" in query:
            bucket, prefix = self._key.split("/")[0], query.get("prefix", [""])[0]
            keys = sorted(key.removeprefix(f"{bucket}/") for key in self.state.objects)
            found = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in keys if key.startswith(prefix))
            listed = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
            self._answer(200, listed.encode(), Content_Type="application/xml")
        elif self._key not in self.state.objects:
            self._refuse(404, "NoSuchKey")
        else:
            body, kept = self.state.objects[self._key]
            self._answer(200, body, ETag=f'"{_tag(body)}"', **kept)

    do_HEAD = do_GET  # noqa: N815

    def do_DELETE(self) -> None:
        self.state.objects.pop(self._key, None)
        self._answer(204)


@contextmanager
def serving(state: PlainS3, monkeypatch: pytest.MonkeyPatch, certificate: Path | None = None) -> Iterator[PlainS3]:
    """The server on loopback, and the environment of somebody who may use it.

    Args:
        certificate: A file with its key and its certificate, for TLS.
    """
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    state.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    for name, value in {**_CREDENTIALS, "AWS_ENDPOINT_URL_S3": state.url}.items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
