"""What runs a study, as options of the command line name it: light to import, since help lists the values."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    """What runs the loop: the runner in this process, or the looping pipeline by KFP's local runner."""

    INPROCESS = "inprocess"
    KFP = "kfp"


class Steps(StrEnum):
    """Into how many steps a round on a cluster is divided. The trials are the same."""

    FIVE = "five"
    """Propose, train, fit the reward model, update the policy: each is a step of its own in KFP's pages."""
    COMPACT = "compact"
    """Train, and one step that learns from the round and proposes the next: fewer pods, and less time in between."""


class RunUnderWay(StrEnum):
    """What becomes of a run of a schedule that is to go."""

    WAIT = "wait"
    STOP = "stop"
