"""Bad weather: a clock that tests move, and a network between a client and a server that fails as it is told."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rlhpo_core.retries import Patience, current

#: What a request meets: it passes; the connection breaks before the server hears of it, or before its answer arrives;
#: a status; or a body of JSON with status 200.
PASS, AWAY, LOST = "pass", "away", "lost"


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
    """

    def __init__(
        self,
        to: int | str,
        weather: Callable[[str], str] = lambda request: PASS,
        listen: str = "127.0.0.1",
        renamed: bool = False,
    ) -> None:
        super().__init__((listen, 0), _Passing)
        self.to = f"127.0.0.1:{to}" if isinstance(to, int) else to
        self.weather, self.renamed = weather, renamed
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

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {self.path}"
        weather = self.server.weather(request)
        self.server.requests.append((request, weather))
        self.close_connection = True
        if weather == AWAY:
            return
        if weather.isdigit():
            self._answer(int(weather), [], b"")
            return
        if weather not in (PASS, LOST):
            self._answer(200, [("Content-Type", "application/json")], weather.encode())
            return
        onward = http.client.HTTPConnection(self.server.to, timeout=30)
        onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() == "host" and self.server.renamed:
                onward.putheader("Host", self.server.to)
            elif name.lower() != "expect":
                onward.putheader(name, value)
        onward.endheaders(body or None)
        answer = onward.getresponse()
        content, headers = answer.read(), answer.getheaders()
        onward.close()
        if weather == PASS:
            kept = [
                (k, v) for k, v in headers if k.lower() not in ("date", "server", "connection", "transfer-encoding")
            ]
            self._answer(answer.status, [(k, v) for k, v in kept if k.lower() != "content-length"], content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(content)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's output."""
