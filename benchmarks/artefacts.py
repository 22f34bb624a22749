"""How far the surrogates can be believed: where they promise an accuracy that cannot be.

    python benchmarks/artefacts.py --yahpo DIR

An accuracy of 1 means that every class is told rightly, so the balanced accuracy must be 1, too. Where the network of
rbv2_xgboost promises the one with a balanced accuracy below 0.9, no training can have scored that. Told for the tasks
of the suite, for random configurations and for the shipped prior's portfolios.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.shipped_prior import in_scenario, seconds_of
from benchmarks.surrogates import SurrogateTask, load_tasks
from rlhpo_core.priors.store import load_prior
from rlhpo_core.trial import Config

ACCURACY, BALANCED = 0, 1
RANDOM = 2000


def impossible(task: SurrogateTask, configs: Sequence[Config]) -> int:
    """How many of the configurations would be perfect in accuracy and far from it in balanced accuracy."""
    outputs = task.outputs(configs)
    return int(((outputs[:, ACCURACY] > 0.9999) & (outputs[:, BALANCED] < 0.9)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yahpo", type=Path, required=True, metavar="DIR", help="folder with suite.json")
    given = parser.parse_args()
    suite = load_tasks(given.yahpo, "suite", "rbv2_xgboost")
    perfect = [task for task in suite if task.best > 0.9999]
    print(f"{len(perfect)} of {len(suite)} tasks have a reference best of 1")
    counts = np.array([impossible(task, task.random_configs(RANDOM, 0)) for task in suite])
    print(
        f"of {RANDOM} random configurations a task, some are impossible on {(counts > 0).sum()} tasks, "
        f"{counts.mean() / RANDOM:.2%} on average"
    )
    prior = load_prior("xgboost-wide")
    for title, configs in {"portfolio": prior.portfolio, "regardless of cost": prior.regardless}.items():
        print(f"\n| {title} | booster | rounds | about, s | impossible on |\n|---|---|---|---|---|")
        for place, (config, seconds) in enumerate(zip(configs, seconds_of(list(configs)), strict=True), start=1):
            found = sum(impossible(task, [in_scenario(config)]) for task in suite)
            print(f"| {place} | {config['booster']} | {config['n_estimators']} | {seconds:.1f} | {found} tasks |")


if __name__ == "__main__":
    main()
