"""What lies between a run and a server: a proxy in a process of its own, with the weather of the run's faults."""

from __future__ import annotations

import os
import signal
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.weather import AWAY, CUT, HALF, LOST, PASS, Network
from tests.soak.effects import Armed, place_of_request
from tests.soak.plan import WEATHER

_REFUSED = "connection refused"
_SLOW = "slow"
#: Seconds that a slow request waits.
_DELAY = 0.7
_ANSWERS = {
    _REFUSED: AWAY, "connection reset": AWAY, "request cut": CUT, "answer lost": LOST, "answer cut": HALF,
    "status 500": "500", "status 503": "503", "status 429": "429", "status 403": "403", _SLOW: PASS,
    "login page": "<!doctype html><html><body>Sign in to the network</body></html>",
    "broken page": "<!doctype html><html><body>Sign in<p>to the network</body></html>",
    "foreign JSON": '{"run": "x", "runs": 3, "experiment": []}',
}  # fmt: skip


class Sky:
    """The weather: each fault begins when its place has been requested often enough, and lasts its seconds.

    Args:
        folder: Of the run, where it is noted that a fault has come.
        armed: The faults of requests; those of other servers find no place here.
    """

    def __init__(self, folder: Path, armed: Sequence[Armed]) -> None:
        self.folder = folder
        self.waiting = [fault for fault in armed if fault.kind in WEATHER]
        self.until: dict[str, float] = {}
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()

    def __call__(self, request: str) -> str:
        """What a request ("METHOD path") meets."""
        place = place_of_request(*request.split(" ", 1))
        with self.lock:
            self.requests[place] += 1
            for fault in list(self.waiting):
                if fault.place == place and self.requests[place] >= fault.count:
                    self.waiting.remove(fault)
                    self.until[fault.kind] = time.monotonic() + fault.seconds
                    (self.folder / fault.mark).touch()
            kinds = [kind for kind, until in self.until.items() if time.monotonic() < until]
        if kinds == [_SLOW]:
            time.sleep(_DELAY)
        return next((_ANSWERS[kind] for kind in kinds if kind != _SLOW), PASS)

    def refusing(self) -> float:
        """Seconds for which nobody listens from now on."""
        return max(0.0, self.until.get(_REFUSED, 0.0) - time.monotonic())


class Proxy:
    """A proxy before a port of this machine, whose process is a fork of this one: this one may have no threads yet."""

    def __init__(self, to: int, sky: Sky) -> None:
        network = Network(to, sky)
        network.timeout = 0.05
        self.url = network.url
        self.process = os.fork()
        if self.process == 0:
            _serve(network, sky)
        network.socket.close()

    def close(self) -> None:
        """End the process."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


def _serve(network: Network, sky: Sky) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    try:
        while os.getppid() == parent:
            network.handle_request()
            if (seconds := sky.refusing()) > 0:
                network.socket.close()
                time.sleep(seconds)
                network.socket = type(network.socket)(network.address_family, network.socket_type)
                socketserver.TCPServer.server_bind(network)
                network.server_activate()
    finally:
        os._exit(0)
