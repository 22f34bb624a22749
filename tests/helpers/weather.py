"""Bad weather: a clock that tests move, and a network between a client and a server that fails as it is told."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rlhpo_core.retries import Patience, current

#: What a request meets: it passes; the connection breaks before the server hears of it, within the request, before its
#: answer arrives, or within the answer; a status; or a body of JSON or HTML with status 200.
PASS, AWAY, CUT, LOST, HALF = "pass", "away", "cut", "lost", "half"


@dataclass
class FakeTime:
    """Seconds pass only when someone sleeps. ``at`` is called with the time after each nap."""

    now: float = 0.0
    at: Callable[[float], None] = lambda now: None
    said: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.at(self.now)

    @contextmanager
    def waiting(self, seconds: float = 0.0) -> Iterator[None]:
        """Whatever waits, waits in this time, by itself for so many seconds at most."""
        patience = Patience(seconds, tell=self.said.append, clock=lambda: self.now, sleep=self.sleep)
        token = current.set(patience)
        try:
            yield
        finally:
            current.reset(token)


class Network(ThreadingHTTPServer):
    """Passes requests on, unless ``weather`` says otherwise of "METHOD path".

    Args:
        to: A port of this machine, or "host:port".
        listen: Where clients find it; "0.0.0.0" for pods.
        renamed: Whether requests name the server as their host, for one that refuses other names. The signature of S3
            covers the name of the host, so there they must not.
        most: Bytes of a request's body that are let through, as nginx has it; ``None`` for any number.
    """

    def __init__(
        self,
        to: int | str,
        weather: Callable[[str], str] = lambda request: PASS,
        listen: str = "127.0.0.1",
        renamed: bool = False,
        most: int | None = None,
    ) -> None:
        super().__init__((listen, 0), _Passing)
        self.to = f"127.0.0.1:{to}" if isinstance(to, int) else to
        self.weather, self.renamed, self.most = weather, renamed, most
        self.requests: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def open(self) -> Iterator[Network]:
        """Serve meanwhile."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing on the test's output."""


class _Passing(BaseHTTPRequestHandler):
    server: Network
    #: As clients of S3 want it: they ask whether to go on before they send a body, and wait a second for the answer.
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {self.path}"
        weather = self.server.weather(request)
        self.server.requests.append((request, weather))
        self.close_connection = True
        if self.server.most is not None and len(body) > self.server.most:
            page = b"<html><head><title>413 Request Entity Too Large</title></head></html>"
            self._answer(413, [("Content-Type", "text/html")], page)
            return
        if weather == AWAY:
            return
        if weather.isdigit():
            self._answer(int(weather), [], b"")
            return
        if weather not in (PASS, CUT, LOST, HALF):
            kind = "text/html" if weather.startswith("<") else "application/json"
            self._answer(200, [("Content-Type", kind)], weather.encode())
            return
        onward = http.client.HTTPConnection(self.server.to, timeout=30)
        onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() == "host" and self.server.renamed:
                onward.putheader("Host", self.server.to)
            elif name.lower() != "expect":
                onward.putheader(name, value)
        if weather == CUT:
            onward.endheaders(body[: len(body) // 2] or None)
            onward.close()
            self._reset()
            return
        onward.endheaders(body or None)
        answer = onward.getresponse()
        content, headers = answer.read(), answer.getheaders()
        onward.close()
        if weather == LOST:
            return
        own = ("date", "server", "connection", "transfer-encoding", "content-length")
        kept = [(name, value) for name, value in headers if name.lower() not in own]
        self._answer(answer.status, kept, content, len(content) // 2 if weather == HALF else len(content))
        if weather == HALF:
            self._reset()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, sent: int | None = None) -> None:
        """Answer; of the content, only so many bytes are sent."""
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(content))), ("Connection", "close")]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])

    def _reset(self) -> None:
        """End the connection as a crash does: with RST in place of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's output."""
