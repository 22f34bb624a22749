"""One run: a folder, a store, an MLflow, and acts in forked processes that meet the run's faults.

A fork of a process that has imported everything costs hundredths of a second, where a new one takes seconds. So the
process that forks has no threads, and never opens a database or a connection that its forks would share.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rlhpo_core.cli import main as command_line
from rlhpo_core.errors import UserError
from rlhpo_core.execution import trial_worker, worker_process
from rlhpo_core.production import promotion
from rlhpo_core.report import charts, figures
from rlhpo_core.storage import lease
from rlhpo_core.storage.lock import locked
from tests.helpers.mlflow_store import new_store
from tests.soak import networks
from tests.soak.effects import ANY_MOMENT, FILLER, Armed, Effects, number_of, replace
from tests.soak.network import Proxy, Sky
from tests.soak.plan import DISK, S3, SERVER, Setup

#: Seconds after which an act hangs.
BOUND = 240.0
#: Exit code of an act that ended with an exception that nobody had expected.
_CRASHED = 70
#: Seconds that processes are given to end after the one that has started them.
_GRACE = 8.0
#: Seconds for which a dead process holds the lock of a model, and a dead run its study. The product has minutes, which
#: are too long here.
LOCK_EXPIRY = 20.0
#: Bytes of the disk that can be filled.
_DISK_SIZE = 48 * 2**20
#: File in a run's folder: a line for each training that was begun.
TRAINED = "trained"
LOG = "log"
#: File in the folder of a run without faults: the names of what its processes have imported.
MODULES = "modules"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000  # linux/sched.h, linux/mount.h


@dataclass(frozen=True)
class Servers:
    """Real servers that all runs share: ports of this machine, and what boto3 needs to know."""

    s3: int | None
    mlflow: int | None
    environment: dict[str, str]


@dataclass
class Run:
    """What is known of a run under way."""

    setup: Setup
    name: str
    """Of its experiment, its model and its place in S3; no other run has it."""
    folder: Path
    servers: Servers
    armed: Sequence[Armed] = ()
    anew: bool = False
    seconds: list[float] = field(default_factory=list)
    """That its acts took."""
    hung: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    killed: bool = False
    """Whether the last act was ended by a signal."""
    proxies: list[Proxy] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    pressed: set[int] = field(default_factory=set)
    """Faults of two Ctrl-C of which the second has come, or is not needed any more."""
    kill: tuple[networks.Kill, str] | None = None
    """Inside the training of a network, and the key of its trial."""
    others: set[int] = field(default_factory=set)
    """Children of this process that are no act's: servers and proxies."""

    def __enter__(self) -> Run:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.disk.mkdir(parents=True)
        if any(fault.kind == DISK for fault in self.armed):
            _mount(self.disk)
        self.environment = {"RLHPO_ALLOWED_MODULES": "tests", "RLHPO_PATIENCE": "60", "COLUMNS": "200"}
        if self.setup.store == S3:
            assert self.servers.s3 is not None
            self.environment |= {**self.servers.environment, "AWS_ENDPOINT_URL_S3": self._proxy(self.servers.s3)}
        if self.setup.tracking == SERVER:
            assert self.servers.mlflow is not None
            self.environment |= {"MLFLOW_TRACKING_URI": self._proxy(self.servers.mlflow)}
        else:
            new_store(self.runs)
            self.environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{self.runs}/mlflow.db"}
        self.others = set(_children())
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies:
            proxy.close()

    def _proxy(self, port: int) -> str:
        proxy = Proxy(port, Sky(self.folder, self.armed))
        self.proxies.append(proxy)
        return proxy.url

    @property
    def disk(self) -> Path:
        """The folder that may be a disk of its own, which can be filled."""
        return self.folder / "disk"

    @property
    def runs(self) -> Path:
        """Studies of this machine, and their MLflow."""
        return self.disk / "runs"

    @property
    def store(self) -> str:
        """Where the pipeline keeps its files."""
        return f"s3://studies/{self.name}" if self.setup.store == S3 else str(self.disk / "store")

    @property
    def came(self) -> list[Armed]:
        """The faults that came."""
        return [fault for fault in self.armed if (self.folder / fault.mark).exists()]

    def command(self, *arguments: str | Path) -> int:
        """``rlhpo`` with these arguments; returns its exit code, negative for a signal."""
        return self.act(lambda: _command(arguments))[0]

    def act(self, do: Callable[[], Any]) -> tuple[int, Any]:
        """Do something in a process of its own, while faults come.

        Returns: Its exit code, which is negative for a signal, and what ``do`` has returned, if it came to that.
        """
        self.seconds.append(0.0)
        act, began, result = len(self.seconds), time.monotonic(), self.folder / "result"
        result.unlink(missing_ok=True)
        process = os.fork()
        if process == 0:
            self._live(do, result)
        code = self._watch(process, act, began)
        self.seconds[-1] = time.monotonic() - began
        self.killed = code < 0
        if code == _CRASHED:
            self.crashed.append(f"act {act} ended with a traceback")
        self._gather()
        return code, json.loads(result.read_text()) if code == 0 else None

    def direct(self, do: Callable[[], Any]) -> Any:
        """What ``do`` returns in a process of its own, without faults and without proxies."""
        result = self.folder / "direct"
        environment = dict(self.servers.environment)
        if self.setup.tracking == SERVER:
            environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{self.servers.mlflow}"
        process = os.fork()
        if process == 0:
            _become(self.folder, {**self.environment, **environment}, self.folder / LOG)
            _end(do, result)
        _, status = os.waitpid(process, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise RuntimeError(f"see the end of {self.folder / LOG}")
        return json.loads(result.read_text())

    def log(self, line: str) -> None:
        """Add a line to the run's log."""
        with (self.folder / LOG).open("a") as file:
            file.write(f"---- {line}\n")

    def _live(self, do: Callable[[], Any], result: Path) -> None:
        """The life of an act's process."""
        _become(self.folder, self.environment, self.folder / LOG)
        _fork_workers(self.folder / TRAINED)
        _draw_nothing()
        replace(promotion, locked=partial(locked, expiry=LOCK_EXPIRY))
        replace(lease, RUN_EXPIRY=LOCK_EXPIRY)
        if self.setup.study == networks.STUDY:
            kill, key = self.kill or (None, None)
            networks.watch(self.folder, kill, key, self.folder / networks.MARK)
        Effects(self.folder, self.armed, self.disk).watch()
        _end(do, result, None if self.armed else self.folder / MODULES)

    def _watch(self, process: int, act: int, began: float) -> int:
        """Wait for an act's end, and do what is done to it from outside."""
        timed = [fault for fault in self.armed if fault.place == ANY_MOMENT and fault.count == act]
        again: dict[int, float] = {}
        free: float | None = None
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                (self.disk / FILLER).unlink(missing_ok=True)
                self.pressed |= again.keys()
                return os.waitstatus_to_exitcode(status)
            now = time.monotonic()
            for fault in timed:
                if now - began >= fault.seconds and fault not in self.came:
                    (self.folder / fault.mark).touch()
                    os.kill(process, number_of(fault.kind))
            for fault in self.came:
                if fault.kind == "Ctrl-C twice" and fault.number not in self.pressed:
                    again.setdefault(fault.number, now + min(fault.seconds, 1.0))
                if again.get(fault.number, now) < now:
                    self.pressed.add(fault.number)
                    del again[fault.number]
                    os.kill(process, signal.SIGINT)
            if free is None and (self.disk / FILLER).exists():
                free = now + next((fault.seconds for fault in self.came if fault.kind == DISK), 0.0)
            if free is not None and now > free:
                (self.disk / FILLER).unlink(missing_ok=True)
                free = None
            if now - began > BOUND:
                self.hung.append(f"act {len(self.seconds)} did not end in {BOUND:.0f} s")
                os.kill(process, signal.SIGKILL)
            time.sleep(0.02)

    def _gather(self) -> None:
        """See to it that nothing lives on that an act has started."""
        deadline = time.monotonic() + _GRACE
        while others := [child for child in _children() if child not in self.others and not _reaped(child)]:
            if time.monotonic() > deadline:
                self.hung.append(f"{len(others)} processes of act {len(self.seconds)} lived on: {_names(others)}")
                for child in others:
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                return
            time.sleep(0.02)


def adopt() -> bool:
    """Prepare this process for runs: it becomes the parent of orphans, and may mount disks that no other process sees.

    Returns: whether it may; that takes root.
    """
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    library.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if library.unshare(_CLONE_NEWNS) != 0:
        return False
    return bool(library.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0)


def _mount(folder: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(b"none", os.fsencode(folder), b"tmpfs", 0, f"size={_DISK_SIZE}".encode()) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount a disk at {folder}")


def unmount(folder: Path) -> None:
    """Let go of a run's disk, and of what is on it."""
    ctypes.CDLL(None).umount2(os.fsencode(folder), 2)


def cpu_seconds() -> float:
    """Of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# -- in the forked processes -------------------------------------------------------------------------------------------


def _become(folder: Path, environment: dict[str, str], log: Path) -> None:
    """Make this fork what a new process would be: its signals, its folder, its environment and its output."""
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_TRACKING", "MLFLOW_S3"))]:
        del os.environ[name]
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)


def _end(do: Callable[[], Any], result: Path, modules: Path | None = None) -> None:
    code = 0
    try:
        result.write_text(json.dumps(do()))
        if modules is not None:
            with modules.open("a") as file:
                file.write("\n".join(sorted(sys.modules)) + "\n")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        code = 130
    except UserError as error:
        print(f"error: {error}")
        code = 1
    except BaseException:
        traceback.print_exc()
        code = _CRASHED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _command(arguments: Sequence[str | Path]) -> None:
    sys.argv = ["rlhpo", *map(str, arguments)]
    try:
        command_line.main()
    except SystemExit as error:
        if error.code not in (0, None):
            raise


def _fork_workers(trained: Path) -> None:
    """Trial workers are forks, too; each training is noted before it begins."""
    evaluate = trial_worker._evaluate

    def noted(evaluator: Any, message: Any, report: Any, checkpoint: Any) -> Any:
        with trained.open("a") as file:
            file.write(f"{message['seed']}\n")
        return evaluate(evaluator, message, report, checkpoint)

    ours: list[Connection] = []

    def pipe() -> tuple[Connection, Connection]:
        ends = multiprocessing.Pipe()
        ours.append(ends[0])
        return ends

    def work(connection: Connection, *arguments: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        # A new process would not have them: the pipes of other workers would not close with them.
        for end in ours:
            end.close()
        trial_worker.work(connection, *arguments)

    replace(trial_worker, _evaluate=noted)
    forking = multiprocessing.get_context("fork")
    replace(
        worker_process, work=work,
        multiprocessing=SimpleNamespace(Pipe=pipe, get_context=lambda kind: forking),
    )  # fmt: skip


def _draw_nothing() -> None:
    """A report without pictures: drawing them is most of the work, and no promise is about how they look."""
    replace(figures, figures=lambda *arguments: {"progress.png": b"\x89PNG\r\n\x1a\n"})
    replace(charts, charts=lambda *arguments: {}, script=lambda: "")


# -- processes ---------------------------------------------------------------------------------------------------------


def _children() -> list[int]:
    return [int(child) for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _reaped(child: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitpid(child, os.WNOHANG)[0] != 0
    return True


def _names(processes: Sequence[int]) -> str:
    names = []
    for process in processes:
        with suppress(OSError):
            names.append(Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
    return "; ".join(names)
