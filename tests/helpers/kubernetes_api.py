"""The part of a Kubernetes API server that tells of pods, on loopback, and a way to it as kubectl has one."""

from __future__ import annotations

import functools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml


class KubernetesApi:
    """Pods by namespace, and their logs by name. ``forbidden``: the caller may not read pods."""

    def __init__(self) -> None:
        self.pods: dict[str, list[dict[str, Any]]] = {}
        self.logs: dict[str, str] = {}
        self.forbidden = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def kubeconfig(self, path: Path) -> Path:
        """Written: what KUBECONFIG may name."""
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": "mine"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(content))
        return path

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if self.forbidden:
            return 403, b'{"kind": "Status", "reason": "Forbidden"}'
        if match := re.fullmatch("/api/v1/namespaces/([^/]+)/pods", path):
            name, several, one = re.fullmatch(r"([^ =]+)(?: in \((.+)\)|=(.+))", query["labelSelector"]).groups()  # type: ignore[union-attr]
            wanted = several.split(",") if several else [one]
            rows = [pod for pod in self.pods.get(match[1], []) if pod["metadata"]["labels"].get(name) in wanted]
            return 200, json.dumps({"kind": "PodList", "apiVersion": "v1", "items": rows}).encode()
        if match := re.fullmatch("/api/v1/namespaces/[^/]+/pods/([^/]+)/log", path):
            lines = self.logs.get(match[1], "").splitlines()[-int(query["tailLines"]) :]
            return 200, "\n".join(lines).encode()
        return 404, b"{}"


def pod(run_id: str, step: str | None, **status: Any) -> dict[str, Any]:
    """As KFP and the pipelines label it; a driver has no step."""
    labels = {"pipeline/runid": run_id} | ({"rlhpo/step": step} if step is not None else {})
    return {"metadata": {"name": f"{run_id}-{step or 'driver'}", "labels": labels}, "status": status}


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, state: KubernetesApi, *arguments: Any) -> None:
        self.state = state
        super().__init__(*arguments)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        status, body = self.state.answer(parts.path, query)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Tests are quiet."""
