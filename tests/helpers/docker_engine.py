"""A Docker engine, and in it the image of this checkout.

The engine that Docker's command reaches is used, if there is one. Else one is started with its data under ``build/``,
which takes root and Docker's daemon, and is stopped again. The base image is ``RLHPO_BASE_IMAGE`` or what the
Dockerfile names; where no registry can be reached, one is made of Debian's packages (debootstrap).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from components import IMAGE
from rlhpo_core import __version__

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
OFFICIAL = "python:3.11-slim"
BOOTSTRAPPED = "rlhpo-base:bookworm"
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class NoEngineError(Exception):
    """There is no engine, and none can be started: why not."""


class Engine:
    """``host`` is what DOCKER_HOST has to be; ``docker`` a client that can build with BuildKit."""

    def __init__(self) -> None:
        self.docker = _client()
        self.host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises: NoEngineError."""
        if self._answers():
            return
        daemon = shutil.which("dockerd")
        if daemon is None or os.geteuid() != 0:
            raise NoEngineError(f"no Docker engine at {self.host}, and starting one takes root and dockerd")
        folder = BUILD / "docker"
        folder.mkdir(parents=True, exist_ok=True)
        # Paths of sockets are short.
        socket = Path(f"/tmp/rlhpo-docker-{os.getpid()}.sock")
        self.host = f"unix://{socket}"
        command = [daemon, "--data-root", folder / "data", "--exec-root", folder / "exec", "-H", self.host]
        command += ["--pidfile", folder / "dockerd.pid", "--bridge=none", "--iptables=false", "--ip6tables=false"]
        command += ["--ip-forward=false", "--ip-masq=false"]
        with (folder / "dockerd.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise NoEngineError(f"dockerd did not start:\n{(folder / 'dockerd.log').read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the engine if it is ours."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None

    def build(self) -> str:
        """The image of this checkout, with CPU builds; returns its name. Raises: NoEngineError without a base image."""
        (BUILD / "wheels").mkdir(parents=True, exist_ok=True)
        torch = re.search(r"(?m)^torch==(\S+)$", (ROOT / "requirements.lock").read_text())
        assert torch is not None
        if not list((BUILD / "wheels").glob(f"torch-{torch[1]}+cpu*")):
            # The build falls back on the indices that pip is told of.
            wanted = ["--no-deps", "--dest", str(BUILD / "wheels"), f"torch=={torch[1]}+cpu"]
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *wanted], check=False)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        arguments = {"BASE_IMAGE": self._base(), "VERSION": __version__, "COMMIT": commit.stdout.strip() or "unknown"}
        arguments |= {name: os.environ[name] for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL") if name in os.environ}
        command = ["build", "--network=host", "--tag", IMAGE]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        if (certificates := next(filter(None, map(os.environ.get, _CERTIFICATES)), None)) is not None:
            command += ["--secret", f"id=ca,src={certificates}"]
        self.run(*command, str(ROOT))
        return IMAGE

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a Docker command prints."""
        done = subprocess.run(
            [self.docker, *arguments],
            env={**os.environ, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"docker {arguments[0]} ended with {done.returncode}:\n{done.stdout[-5000:]}"
        return done.stdout

    def _answers(self) -> bool:
        environment = {**os.environ, "DOCKER_HOST": self.host}
        found = subprocess.run([self.docker, "version"], env=environment, capture_output=True, check=False)
        return found.returncode == 0

    def _base(self) -> str:
        if named := os.environ.get("RLHPO_BASE_IMAGE"):
            return named
        for image in (OFFICIAL, BOOTSTRAPPED):
            if self.run("images", "--quiet", image).strip():
                return image
        environment = {**os.environ, "DOCKER_HOST": self.host}
        try:
            pull = [self.docker, "pull", "--quiet", OFFICIAL]
            if subprocess.run(pull, env=environment, timeout=120, capture_output=True, check=False).returncode == 0:
                return OFFICIAL
        except subprocess.TimeoutExpired:
            pass
        return self._bootstrap()

    def _bootstrap(self) -> str:
        """Debian 12, whose Python is 3.11, from the mirror that this machine's own packages come from."""
        if os.geteuid() != 0 or shutil.which("debootstrap") is None:
            raise NoEngineError(f"{OFFICIAL} cannot be pulled, and making a base image takes root and debootstrap")
        targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
        listed = subprocess.run(targets, capture_output=True, text=True, check=True).stdout.split()
        mirrors = sorted({one for one in listed if "security" not in one and one.startswith("http")})
        system = BUILD / "bookworm"
        shutil.rmtree(system, ignore_errors=True)
        packages = "--include=python3,python3-pip,python3-venv,ca-certificates"
        command = ["debootstrap", "--variant=minbase", packages, "bookworm", str(system), *mirrors[:1]]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise NoEngineError(f"{OFFICIAL} cannot be pulled, and debootstrap failed:\n{done.stdout[-2000:]}")
        left_out = ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*", "dev/*", "proc/*", "sys/*")
        archive = BUILD / "bookworm.tar"
        excluded = [f"--exclude=./{one}" for one in left_out]
        subprocess.run(["tar", "-C", str(system), *excluded, "-cf", str(archive), "."], check=True)
        self.run("import", "--change", 'CMD ["bash"]', str(archive), BOOTSTRAPPED)
        shutil.rmtree(system, ignore_errors=True)
        archive.unlink()
        return BOOTSTRAPPED


def _client() -> str:
    """Raises: NoEngineError if there is none that can build with BuildKit."""
    for one in filter(None, (shutil.which("docker"), "/usr/bin/docker")):
        try:
            old = subprocess.run([one, "--version"], capture_output=True, text=True, check=True).stdout
            plugin = subprocess.run([one, "buildx", "version"], capture_output=True, check=False)
        except (OSError, subprocess.CalledProcessError):
            continue
        # From version 23 on, BuildKit comes as a plugin.
        version = re.search(r"version (\d+)", old)
        if plugin.returncode == 0 or (version is not None and int(version[1]) < 23):
            return one
    raise NoEngineError("there is no Docker client with BuildKit")
