"""Many runs: servers for all of them, undisturbed ones to compare with, and processes that take one after another."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.utils import requirements_utils

from rlhpo_core.atomic_files import write_atomically
from tests.helpers.mlflow_store import new_store
from tests.helpers.servers import MlflowServer, S3Server
from tests.soak import judging, networks, results, routes
from tests.soak import run as running
from tests.soak.effects import Armed, arm, passed
from tests.soak.judging import Faults
from tests.soak.plan import DISK, FOLDER, S3, SERVER, SQLITE, Plan, Setup, draw
from tests.soak.run import MODULES, Run, Servers

_ROOT = Path(__file__).parents[2]
_CODE = ("rlhpo_core", "tests/soak", "tests/helpers")
_NEEDS_CHAMPION = ("retune", "retuning pipeline", "promote")


@dataclass(frozen=True)
class Undisturbed:
    """What a run without faults has passed and come to; it is kept for later calls as long as the code is the same."""

    passed: tuple[str, ...]
    seconds: tuple[float, ...]
    """Of its acts."""
    facts: dict[str, Any]
    imported: tuple[str, ...]
    """Names of the modules that its processes have imported."""


@dataclass
class Campaign:
    """Runs below one folder."""

    work: Path
    servers: Servers
    disks: bool
    """Whether disks can be mounted."""
    champions: dict[str, Path] = field(default_factory=dict)
    """By tracking: the folder of the run that has registered it."""
    undisturbed: dict[Setup, Undisturbed] = field(default_factory=dict)
    code: str = ""
    """Digest of the code."""

    def train_champion(self, setup: Setup) -> None:
        """Register the model that runs of this kind start from, unless there is one or they need none."""
        if setup.route not in _NEEDS_CHAMPION or setup.tracking in self.champions:
            return
        name = f"champion-{setup.tracking}"
        with Run(Setup("tune", "xgboost", FOLDER, setup.tracking), name, self.work / name, self.servers) as run:
            routes.train_champion(run)
        _import((run.folder / MODULES).read_text().split())
        self.champions[setup.tracking] = run.folder

    def prepare(self, setup: Setup) -> None:
        """Do without faults what runs of this kind are compared with."""
        if setup in self.undisturbed:
            return
        kept = self.work / "undisturbed" / self.code / f"{setup}.json"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, json.dumps(asdict(self._disturb_nothing(setup))).encode())
        known = Undisturbed(**json.loads(kept.read_text()))
        _import(known.imported)
        for other, each in self.undisturbed.items():
            # By whatever way a study is run, it has the same trials.
            if other.study == setup.study and {other.route, setup.route} <= {"tune", "steps"}:
                for fact in ("trials", "tuner", "weights"):
                    assert each.facts.get(fact) == known.facts.get(fact), (other, setup)
        self.undisturbed[setup] = known

    def _disturb_nothing(self, setup: Setup) -> Undisturbed:
        name = f"undisturbed-{str(setup).replace(', ', '-').replace(' ', '-')}-{os.getpid()}"
        with Run(setup, name, self.work / name, self.servers) as run:
            routes.take(run, self.champion(setup))
            facts = run.direct(lambda: judging.facts(run))
            # A judge that finds fault with it would make the rest worthless.
            if bad := judging.judge(run, facts, None):
                raise RuntimeError(f"undisturbed ({setup}), and yet {bad}: see {run.folder}")
            imported = sorted(set((run.folder / MODULES).read_text().split()))
            found = Undisturbed(tuple(passed(run.folder)), tuple(run.seconds), facts, tuple(imported))
        shutil.rmtree(run.folder)
        return found

    def champion(self, setup: Setup) -> Path:
        """The folder of the champion's run; one that is not there where none is needed."""
        return self.champions.get(setup.tracking, self.work / "none")

    def carry_out(self, plan: Plan, keep: bool = False) -> dict[str, Any]:
        """One run; returns its line of the results."""
        known, name = self.undisturbed[plan.setup], f"soak-{plan.seed}"
        wanted = [arm(fault, n, known.passed, known.seconds) for n, fault in enumerate(plan.faults)]
        armed = [fault for fault in wanted if fault is not None and (self.disks or fault.kind != DISK)]
        began, cpu, stuck = time.monotonic(), running.cpu_seconds(), None
        with Run(plan.setup, name, self.work / name, self.servers, armed, plan.anew) as run:
            try:
                routes.take(run, self.champion(plan.setup))
            except routes.StuckError as error:
                stuck = str(error)
            try:
                bad = judging.judge(run, known.facts, stuck)
            except RuntimeError as error:
                bad = {"wrong": [f"it cannot be judged: {error}"]}
            came = [asdict(fault) for fault in run.came]
            run.log(f"{came}\n{bad}")
        line = {
            "seed": plan.seed, **asdict(plan.setup), "faults": came, "bad": bad, "acts": len(run.seconds),
            "seconds": round(time.monotonic() - began, 1), "cpu": round(running.cpu_seconds() - cpu, 1),
        }  # fmt: skip
        self._put_away(run, keep or bool(bad))
        return line

    def kill(self, kill: networks.Kill, keep: bool = False) -> Faults:
        """A run with a kill inside the training of a network; returns what is wrong with it."""
        setup = setup_of(kill)
        known, name = self.undisturbed[setup], f"network-{kill.seed}"
        complete = [trial for trial in known.facts["trials"] if trial["value"] is not None]
        key = networks.key_of_trial(complete[kill.trial % len(complete)]["proposal"]["config"])
        armed = [Armed(0, "SIGKILL", kill.place, 1, False, 0.0)]
        stuck = None
        with Run(setup, name, self.work / name, self.servers, armed, kill=(kill, key)) as run:
            try:
                routes.take(run, self.champion(setup))
            except routes.StuckError as error:
                stuck = str(error)
            bad = judging.judge(run, known.facts, stuck)
            if wrong := networks.judge(networks.notes(run.folder), kill, key):
                bad["wrong"] = [*bad.get("wrong", ()), *wrong]
            run.log(f"{kill}\n{bad}")
        self._put_away(run, keep or bool(bad))
        return bad

    def _put_away(self, run: Run, keep: bool) -> None:
        mounted = os.path.ismount(run.disk)
        if keep and mounted:
            shutil.copytree(run.disk, run.folder / "disk.kept", symlinks=True)
        if mounted:
            running.unmount(run.disk)
        if not keep:
            shutil.rmtree(run.folder, ignore_errors=True)


def repeat(seed: int, work: Path) -> int:
    """One run, whose folder is kept; returns the exit status."""
    plan = draw(seed)
    with _campaign(work, [plan]) as campaign:
        print(f"{seed}: {plan.setup}", flush=True)
        campaign.disks = running.adopt()
        campaign.prepare(plan.setup)
        line = campaign.carry_out(plan, keep=True)
    print(json.dumps(line, indent=1))
    print(f"its folder: {work.resolve() / f'soak-{seed}'}")
    return int(results.failed(results.summarise([line])))


def go_on(
    file: Path, work: Path, first: int | None, seeds: Sequence[int] | None, runs: int | None, minutes: float | None,
    jobs: int,
) -> None:  # fmt: skip
    """Make further runs and add a line for each to the file of results."""
    done = {line["seed"] for line in results.load(file)}
    first = first if first is not None else max(done, default=0) + 1
    runs = runs if runs is not None else (10**9 if minutes is not None else 100)
    wanted = list(seeds) if seeds else None
    until = time.monotonic() + 60 * (minutes if minutes is not None else 10**9)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without an end, all setups come up.
    plans = [draw(seed) for seed in (wanted or range(first, first + min(runs, 200)))]
    version = _version()
    with _campaign(work, plans) as campaign:
        children = []
        for job in range(jobs):
            if (child := os.fork()) == 0:
                mine = iter(wanted[job::jobs]) if wanted else iter(range(first + job, first + runs, jobs))
                _work(campaign, mine, file.resolve(), until, version)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)


def setup_of(kill: networks.Kill) -> Setup:
    """Where the process is that a kill is meant for."""
    return Setup("steps" if kill.whom == networks.STEP else "tune", networks.STUDY, FOLDER, SQLITE)


def kill_networks(work: Path, seeds: Sequence[int], keep: bool = False) -> bool:
    """Kill in the trainings of networks, and print what has come of it; whether all is as it should be.

    Args:
        seeds: One for each kill.
        keep: Whether the runs' folders are kept, also where nothing was wrong.
    """
    kills, began, version = [networks.draw(seed) for seed in seeds], time.monotonic(), _version()
    counted, wrong = Counter((kill.whom, kill.place) for kill in kills), []
    with _campaign(work, [Plan(kill.seed, setup_of(kill), (), False) for kill in kills]) as campaign:
        running.adopt()
        for kill in kills:
            campaign.prepare(setup_of(kill))
            bad = campaign.kill(kill, keep)
            wrong += [kill.seed] if bad else []
            print(f"{kill.seed:>6} {kill}: {bad or 'ok'}", flush=True)
    print("\n".join(f"{count:>6} {whom}: {place}" for (whom, place), count in sorted(counted.items())))
    print(
        f"{len(kills) - len(wrong)} of {len(kills)} went on from their checkpoint to the same weights, trials, tuner "
        f"and winner, with nothing left behind.\nSeeds {min(seeds)} to {max(seeds)}, {time.monotonic() - began:.0f} s; "
        f"commit {version}; {results.versions()}"
    )
    if wrong:
        print(f"Something was wrong with {wrong}. Again: python -m tests.soak --networks --only SEED")
    return not wrong


def _work(campaign: Campaign, seeds: Iterator[int], file: Path, until: float, version: str) -> None:
    """The life of a process that takes one run after another."""
    code = 0
    try:
        campaign.disks = running.adopt()
        for seed in seeds:
            if time.monotonic() > until:
                break
            plan = draw(seed)
            campaign.prepare(plan.setup)
            line = {**campaign.carry_out(plan), "commit": version}
            with file.open("a") as results_file:
                results_file.write(json.dumps(line) + "\n")
            print(results.line_of(line), flush=True)
            if line["bad"]:
                print(f"  again: python -m tests.soak --only {seed}   folder: {campaign.work / f'soak-{seed}'}")
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        os._exit(code)


@contextmanager
def _campaign(work: Path, plans: Iterable[Plan]) -> Iterator[Campaign]:
    """Start the servers that the plans need, import everything, and make the undisturbed runs."""
    plans = list(plans)
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        s3 = port = None
        environment: dict[str, str] = {}
        if any(plan.setup.store == S3 for plan in plans):
            (folder / "s3").mkdir()
            server = S3Server(folder / "s3")
            server.start()
            stack.callback(server.stop)
            s3, environment = server.ports["s3.port"], server.environment()
        if any(plan.setup.tracking == SERVER for plan in plans):
            (folder / "mlflow").mkdir()
            tracking = MlflowServer(folder / "mlflow")
            tracking.start()
            stack.callback(tracking.stop)
            port = tracking.port
        resource_tracker.ensure_running()
        _warm_up(folder)
        campaign = Campaign(work, Servers(s3, port, environment), disks=False, code=_digest())
        for plan in plans:
            campaign.train_champion(plan.setup)
        assert threading.active_count() == 1, "a fork would lose threads"
        yield campaign


def _warm_up(folder: Path) -> None:
    """Have MLflow set up what it sets up at first use. The forks' databases are not opened here."""
    client = MlflowClient(new_store(folder, "scratch.db"))
    client.search_registered_models()
    client.log_metric(client.create_run("0").info.run_id, "warm", 1.0)
    # Which packages there are is looked up in each process that saves or loads a model, for seconds.
    requirements_utils._init_modules_to_packages_map()


def _import(names: Iterable[str]) -> None:
    """Import here what runs import late, lest each later one does so again."""
    for name in names:
        if name not in sys.modules:
            # Some were made by others, or lie in a folder that is gone.
            with suppress(Exception):
                import_module(name)
    # Pages that the collector of garbage has looked at would be copied for every fork.
    gc.collect()
    gc.freeze()


def _digest() -> str:
    """Of the code that a run consists of."""
    files = sorted(path for folder in _CODE for path in (_ROOT / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _version() -> str:
    """The commit, with a mark if files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
