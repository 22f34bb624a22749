"""What one run of the soak does, by its seed alone: which study, where its files and its MLflow are, and its faults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Ways through the product: a study on this machine; the pipeline's steps one by one; a retuning on this machine and
#: one as the retuning pipeline; promotions by hand.
ROUTES = {"tune": 0.42, "steps": 0.3, "retune": 0.07, "retuning pipeline": 0.09, "promote": 0.12}
STUDIES = ("function", "xgboost")
FOLDER, S3 = "folder", "S3"
SQLITE, SERVER = "sqlite", "server"

#: What is done to the process itself.
SIGNALS = ("SIGKILL", "SIGTERM", "Ctrl-C", "Ctrl-C twice")
#: What requests to S3 and to MLflow's server meet for a while.
WEATHER = (
    "connection refused", "connection reset", "request cut", "answer lost", "answer cut", "status 500", "status 503",
    "status 429", "status 403", "slow", "login page", "broken page", "foreign JSON",
)  # fmt: skip
DISK = "disk full"


@dataclass(frozen=True)
class Setup:
    """What a run shares with the undisturbed one that it is compared with."""

    route: str
    study: str
    store: str
    tracking: str

    def __str__(self) -> str:
        return f"{self.route}, {self.study}, {self.store}, {self.tracking}"


@dataclass(frozen=True)
class Fault:
    """One fault. Where and when are shares (0 to 1) of the places and moments that an undisturbed run has."""

    kind: str
    place: float
    moment: float
    after: bool
    """Whether it comes after the effect at that place, and not before it."""
    seconds: float
    """How long it lasts, if it passes."""


@dataclass(frozen=True)
class Plan:
    """All that is drawn for a run."""

    seed: int
    setup: Setup
    faults: tuple[Fault, ...]
    anew: bool
    """Whether a pipeline whose step was killed is started anew, where otherwise the step alone is run again."""


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = np.random.default_rng(seed)
    route = str(rng.choice(list(ROUTES), p=list(ROUTES.values())))
    study = str(rng.choice(STUDIES, p=[0.8, 0.2])) if route in ("tune", "steps") else "xgboost"
    store = FOLDER if route == "tune" else str(rng.choice((FOLDER, S3)))
    tracking = str(rng.choice((SQLITE, SERVER), p=[0.6, 0.4]))
    kinds = [*SIGNALS, *SIGNALS]
    if store == S3 or tracking == SERVER:
        kinds += WEATHER
    if store == FOLDER or tracking == SQLITE:
        kinds += [DISK] * 2
    faults = tuple(
        Fault(
            kind=str(rng.choice(kinds)), place=float(rng.random()), moment=float(rng.random()),
            after=bool(rng.random() < 0.5), seconds=float(rng.uniform(0.3, 2.5)),
        )
        for _ in range(int(rng.choice((1, 2, 3), p=(0.5, 0.3, 0.2))))
    )  # fmt: skip
    return Plan(seed, Setup(route, study, store, tracking), faults, route == "steps" and bool(rng.random() < 0.3))
