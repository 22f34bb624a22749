"""What a process does to the world, one effect after the other, and faults at chosen ones."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.httpsession
import requests
import sqlalchemy

from tests.soak.plan import DISK, SIGNALS, WEATHER, Fault

#: Names of places that are no effects.
ANY_MOMENT = "any moment"
_SHARE_OF_ANY_MOMENT = 0.25
#: Files in a run's folder.
EFFECTS, FILLER = "effects", "filler"


@dataclass(frozen=True)
class Armed:
    """A fault with its place: the ``count``-th time, from 1, that a run comes by."""

    number: int
    kind: str
    place: str
    count: int
    """At ANY_MOMENT, the number of the act."""
    after: bool
    seconds: float
    """How long it lasts, if it passes; at ANY_MOMENT, when it comes, in seconds since the act's begin."""

    @property
    def mark(self) -> str:
        """The file in the run's folder that says that it has come."""
        return f"fault-{self.number}"


def arm(fault: Fault, number: int, passed: Sequence[str], acts: Sequence[float]) -> Armed | None:
    """Where a fault comes, by what an undisturbed run has passed.

    Args:
        passed: The places, in the order of its effects.
        acts: The seconds that its acts took.

    Returns: ``None`` if the run has no place for this kind of fault.
    """
    if fault.kind in SIGNALS and fault.place < _SHARE_OF_ANY_MOMENT:
        moment = fault.moment * sum(acts)
        for act, seconds in enumerate(acts, start=1):
            if moment <= seconds:
                return Armed(number, fault.kind, ANY_MOMENT, act, False, moment)
            moment -= seconds
    share = (fault.place - _SHARE_OF_ANY_MOMENT) / (1 - _SHARE_OF_ANY_MOMENT) if fault.kind in SIGNALS else fault.place
    places = sorted({place for place in passed if _suits(fault.kind, place)})
    if not places:
        return None
    place = places[min(int(share * len(places)), len(places) - 1)]
    count = 1 + int(fault.moment * passed.count(place))
    return Armed(number, fault.kind, place, count, fault.after, fault.seconds)


def _suits(kind: str, place: str) -> bool:
    remote = place.startswith(("S3 ", "MLflow "))
    if kind in WEATHER:
        return remote and (kind != "foreign JSON" or place.startswith("MLflow "))
    return kind in SIGNALS or (kind == DISK and not remote)


def place_of_file(path: str) -> str:
    """What a file of a study, or the key of an object, is to it."""
    parts = path.split("/")
    name = parts[-1]
    for folder, place in (
        ("trials", "trial"), ("state", "state"), ("states", "state"), ("rounds", "state"), ("audit", "ledger"),
        ("lock", "lock"), ("candidates", "candidate"),
    ):  # fmt: skip
        if folder in parts[:-1]:
            return place
    known = {"study.json": "record", "study.yaml": "study file", "report.html": "report", "stop": "stop"}
    return known.get(name, "state" if name.startswith("state") else "other file")


def place_of_request(method: str, url: str) -> str:
    """The place of a request to MLflow's server or to S3."""
    parts = urlsplit(url)
    path = parts.path
    if (found := re.match(r"/api/\d\.0/(?:mlflow-|mlflow/)(.*)", path)) is not None:
        # Ids of runs, models and experiments are left out.
        words = [word for word in found[1].split("/") if not re.search(r"\d{2}|m-", word)]
        return f"MLflow {'/'.join(words[:2]) if words[0] != 'artifacts' else 'artifacts'}"
    query = parse_qs(parts.query)
    if "list-type" in query:
        return f"S3 LIST {place_of_file(query.get('prefix', [''])[0] + '-')}"
    return f"S3 {method} {place_of_file('/'.join(path.split('/')[3:]))}"


def replace(owner: Any, **values: Any) -> None:
    """Have a module or class of the code go by other values from now on, in this process.

    Raises: AttributeError if it has none of a name: it would go on as it is, and nobody would see that.
    """
    for name, value in values.items():
        getattr(owner, name)
        setattr(owner, name, value)


class Effects:
    """Counts the effects of this process, notes them in the run's folder, and has faults come at those chosen.

    Args:
        folder: Of the run; effects on files outside do not count.
        armed: Faults at effects. Each comes once, in whichever process its place is reached.
        disk: The folder whose file system can be filled.
    """

    def __init__(self, folder: Path, armed: Sequence[Armed], disk: Path) -> None:
        self.folder, self.disk = folder, disk
        self.armed = [fault for fault in armed if fault.place != ANY_MOMENT and fault.kind not in WEATHER]
        self.passed = Counter(passed(folder))
        self.process = os.getpid()

    def watch(self) -> None:
        """From now on, in this process."""
        for name, at in (("link", 1), ("replace", 1), ("unlink", 0)):
            setattr(os, name, self._of_files(getattr(os, name), at))
        self._of_requests(requests.Session, lambda request: (request.method, request.url))
        self._of_requests(botocore.httpsession.URLLib3Session, lambda request: (request.method, request.url))
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", lambda connection: self._before("commit of MLflow"))

    def _of_files(self, effect: Callable[..., Any], at: int) -> Callable[..., Any]:
        def watched(*paths: Any, **options: Any) -> Any:
            path = Path(os.fspath(paths[at]))
            path = path if path.is_absolute() else Path.cwd() / path
            # Hidden files are temporary, or none of ours.
            if not path.is_relative_to(self.folder) or path.name.startswith("."):
                return effect(*paths, **options)
            place = place_of_file(str(path.relative_to(self.folder)))
            self._before(place)
            result = effect(*paths, **options)
            self._after(place)
            return result

        return watched

    def _of_requests(self, owner: Any, described: Callable[[Any], tuple[str, str]]) -> None:
        send = owner.send

        def watched(session: Any, request: Any, *args: Any, **options: Any) -> Any:
            place = place_of_request(*described(request))
            self._before(place)
            answer = send(session, request, *args, **options)
            self._after(place)
            return answer

        owner.send = watched

    def _before(self, place: str) -> None:
        if os.getpid() != self.process:
            return
        self.passed[place] += 1
        with (self.folder / EFFECTS).open("a") as file:
            file.write(f"{place}\n")
        self._come(place, after=False)

    def _after(self, place: str) -> None:
        if os.getpid() == self.process:
            self._come(place, after=True)

    def _come(self, place: str, after: bool) -> None:
        for fault in self.armed:
            if (fault.place, fault.after, fault.count) != (place, after, self.passed[place]):
                continue
            if (self.folder / fault.mark).exists():
                continue
            (self.folder / fault.mark).touch()
            if fault.kind == DISK:
                fill(self.disk / FILLER)
            else:
                os.kill(os.getpid(), number_of(fault.kind))


def number_of(kind: str) -> signal.Signals:
    """The signal of a fault."""
    return {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}.get(kind, signal.SIGINT)


def passed(folder: Path) -> list[str]:
    """The places that a run has passed so far, in order."""
    file = folder / EFFECTS
    return file.read_text().splitlines() if file.exists() else []


def fill(path: Path) -> None:
    """Write until the disk is full; the file may be there already."""
    with path.open("ab", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
