"""What a run of a pipeline weighs in Argo, which holds 1 MiB of a workflow: its spec, and its pods' status.

The numbers follow from what was measured on Kubernetes 1.36.3 with KFP 2.17.0 and Argo 4.0.8. The spec, uncompressed,
was 1.04 times as large as the compiled pipeline (IR YAML), and 30 kB: 344 kB at 10 rounds of a pipeline that passed the
study's text to each step, 73 and 110 kB at 2 and 4 rounds of one that did not. A pod's status, compressed, took 2.87 kB
in the former; without the study's text 225 bytes less, without docstrings 216, with short steps 56, and with CPU and
memory as constants 55. In rounds of two steps it took up to 2.07 kB with a constant image; as a parameter that takes 28
bytes more.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from rlhpo_core.execution.engines import Steps

#: Bytes that Argo takes of a workflow: spec uncompressed, status compressed.
ARGO_LIMIT = 2**20
#: The share of the limit that a run is planned for.
PLANNED = 0.5


@dataclass(frozen=True)
class _Form:
    """What a division into steps costs."""

    around: int
    """Pods around the rounds."""
    per_round: int
    """Pods of a round besides those of its trials."""
    pod: int
    """Bytes of a pod's status."""
    spec: int
    """Bytes of the spec without rounds."""
    spec_per_round: int
    """Bytes of the spec for each round."""


@dataclass(frozen=True)
class _Besides:
    """What another pipeline around the same rounds costs more."""

    pods: int
    spec: int
    """Bytes."""


_FORMS = {
    Steps.FIVE: _Form(10, 8, 2_870 - 225 - 216 - 56 - 55, 47_100, 22_800),
    Steps.COMPACT: _Form(10, 4, 2_072 + 28, 46_400, 17_100),
}


#: What a retuning has besides, in pods and bytes of the spec: the steps that look at the data and decide.
_RETUNING = _Besides(4, 6_900)
_NOTHING = _Besides(0, 0)


def pods(rounds: int, trials_per_round: int, steps: Steps = Steps.FIVE, retuning: bool = False) -> int:
    """Of a whole run: two per step (driver and executor), one per graph, and a graph for each trial."""
    form, besides = _FORMS[steps], _RETUNING if retuning else _NOTHING
    return form.around + besides.pods + rounds * (3 * trials_per_round + form.per_round)


def spec_bytes(rounds: int, steps: Steps = Steps.FIVE, retuning: bool = False) -> int:
    """Bytes of the workflow's spec; the trials of a round are one template, however many."""
    form, besides = _FORMS[steps], _RETUNING if retuning else _NOTHING
    return form.spec + besides.spec + form.spec_per_round * rounds


def workflow_bytes(rounds: int, trials_per_round: int, steps: Steps = Steps.FIVE, retuning: bool = False) -> int:
    """Bytes of the workflow when all its pods have run."""
    status = _FORMS[steps].pod * pods(rounds, trials_per_round, steps, retuning)
    return spec_bytes(rounds, steps, retuning) + status


def most_rounds(
    trials_per_round: int, share: float = PLANNED, steps: Steps = Steps.FIVE, retuning: bool = False
) -> int:
    """How many rounds fit into a share of the limit; 0 if not even one does."""
    none, one = (workflow_bytes(rounds, trials_per_round, steps, retuning) for rounds in (0, 1))
    return max(0, floor((share * ARGO_LIMIT - none) / (one - none)))
