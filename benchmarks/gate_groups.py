"""How often the gate promotes a model that is no better, where rows come in groups.

    OMP_NUM_THREADS=1 python -m benchmarks.gate_groups [--pairs 300]

1000 rows of 20, 40 or 100 customers. Each customer is served better by one of two models, or by neither, by chance; on
the whole they are equally good. The margin is 0 and the confidence 0.95, so one pair in twenty may pass.
"""

from __future__ import annotations

import argparse

import numpy as np

from rlhpo_core.production.answers import Answers
from rlhpo_core.production.gate import judge
from rlhpo_core.study.production_settings import GateSpec

ROWS = 1000
GROUPS = (20, 40, 100)
SPEC = GateSpec(resamples=400, log_loss_increase=None, margin=0.0)


def promoted(metric: str, groups: int, seed: int, whole: bool) -> bool:
    """Whether the challenger of one pair passes.

    Args:
        groups: How many customers there are.
        whole: Whether the gate is told of them.
    """
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), ROWS // groups)
    lean = rng.choice([-1, 0, 1], groups)[group]
    target = rng.integers(2, size=ROWS)
    both, differ = rng.random(ROWS) < 0.8, (rng.random(ROWS) < 0.3) & (lean != 0)

    def answers(right: np.ndarray) -> Answers:
        output = np.full((ROWS, 2), 0.1)
        output[np.arange(ROWS), np.where(right, target, 1 - target)] = 0.9
        return Answers(output, 1e-5, 1000)

    champion, challenger = answers(np.where(differ, lean < 0, both)), answers(np.where(differ, lean > 0, both))
    known = group if whole else None
    verdict = judge(metric, target.astype(np.float64), champion, challenger, {}, SPEC, seed, groups=known)
    return verdict.decision == "promote"


def main() -> None:
    """Print the share that passes, by metric and number of customers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_groups")
    parser.add_argument("--pairs", type=int, default=300)
    pairs = parser.parse_args().pairs
    for metric in ("accuracy", "log_loss"):
        for groups in GROUPS:
            shares = [
                100 * sum(promoted(metric, groups, seed, whole) for seed in range(pairs)) / pairs
                for whole in (False, True)
            ]
            print(
                f"{metric}, {groups} customers: by rows {shares[0]:.1f} %, by customers {shares[1]:.1f} %", flush=True
            )


if __name__ == "__main__":
    main()
