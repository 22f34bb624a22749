"""What a run of the looping pipeline weighs in Argo, which holds 1 MiB of a workflow: its spec, and its pods' status.

The numbers follow from what was measured on Kubernetes 1.36.3 with KFP 2.17.0 and Argo 4.0.8. The spec, uncompressed,
was 1.04 times as large as the compiled pipeline (IR YAML), and 30 kB: 344 kB at 10 rounds of a pipeline that passed the
study's text to each step, 73 and 110 kB at 2 and 4 rounds of one that did not. A pod's status, compressed, took 2.87 kB
in the former; without the study's text 225 bytes less, without docstrings 216, with short steps 56, and with CPU and
memory as constants 55.
"""

from __future__ import annotations

from math import floor

#: Bytes that Argo takes of a workflow: spec uncompressed, status compressed.
ARGO_LIMIT = 2**20
#: The share of the limit that a run is planned for.
PLANNED = 0.5
_POD = 2_870 - 225 - 216 - 56 - 55
_SPEC, _SPEC_PER_ROUND = 41_900, 22_700


def pods(rounds: int, trials_per_round: int) -> int:
    """Of a whole run: two per step (driver and executor), one per graph, and a graph for each trial."""
    return 8 + rounds * (3 * trials_per_round + 8)


def spec_bytes(rounds: int) -> int:
    """Bytes of the workflow's spec; the trials of a round are one template, however many."""
    return _SPEC + _SPEC_PER_ROUND * rounds


def workflow_bytes(rounds: int, trials_per_round: int) -> int:
    """Bytes of the workflow when all its pods have run."""
    return spec_bytes(rounds) + _POD * pods(rounds, trials_per_round)


def most_rounds(trials_per_round: int, share: float = PLANNED) -> int:
    """How many rounds fit into a share of the limit; 0 if not even one does."""
    per_round = workflow_bytes(1, trials_per_round) - workflow_bytes(0, trials_per_round)
    return max(0, floor((share * ARGO_LIMIT - workflow_bytes(0, trials_per_round)) / per_round))
