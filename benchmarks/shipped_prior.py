"""Train the prior that comes with rlhpo: XGBoost's hyperparameters on the 52 source tasks of YAHPO Gym's rbv2_xgboost.

    python benchmarks/shipped_prior.py --yahpo DIR --out rlhpo_core/priors/xgboost-wide.safetensors

Each task becomes a finished study: random configurations, then generations of mutations of the best. The tasks of the
suite take no part. ``--shuffled`` pairs configurations with other configurations' scores: a prior that is wrong
everywhere, to measure what that costs.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.surrogates import SurrogateTask, load_tasks
from rlhpo_core.prior import Prior
from rlhpo_core.prior_training import FinishedStudy, PriorSettings, train
from rlhpo_core.screening import perturbed
from rlhpo_core.space import SearchSpace, builtin_space
from rlhpo_core.trial import Config, derive_seed

#: XGBoost's own names for what the scenario calls otherwise, and what this prior leaves open.
NAMES = {"nrounds": "n_estimators", "eta": "learning_rate", "lambda": "reg_lambda", "alpha": "reg_alpha"}
BACK = {own: theirs for theirs, own in NAMES.items()}
IMPUTATION = {"num.impute.selected.cpo": "impute.mean"}
RANDOM, GENERATIONS, CHILDREN, PARENTS = 1500, 3, 300, 20
SOURCE = (
    "YAHPO Gym v1.0.2, scenario rbv2_xgboost (Pfisterer, Schneider, Moosbauer, Binder, Bischl: YAHPO Gym – An "
    "Efficient Multi-Objective Multi-Fidelity Benchmark for Hyperparameter Optimization, 2022; Apache-2.0); surrogates "
    "of trainings on OpenML data sets"
)


def in_scenario(config: Config) -> Config:
    """A configuration of XGBoost under the scenario's names."""
    return {**IMPUTATION, **{BACK.get(name, name): value for name, value in config.items()}}


def under_names_of(prior: Prior, space: SearchSpace) -> Prior:
    """The prior as it is for a space that has the scenario's names; otherwise as it was."""
    known = {parameter.name for parameter in space.parameters}
    back = {own: theirs for theirs, own in NAMES.items() if theirs in known}
    named = {back.get(name, name): definition for name, definition in prior.space.model_dump().items()}
    return replace(prior, space=SearchSpace.model_validate(named))


def study(task: SurrogateTask, space: SearchSpace, seed: int, shuffled: bool) -> FinishedStudy:
    """A study of a task: wide first, then close to its best."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (RANDOM, len(space.steps)))
    values = task.evaluate_many([in_scenario(config) for config in space.decode(actions)])
    for _ in range(GENERATIONS):
        best = actions[np.argsort(-values, kind="stable")[:PARENTS]]
        children = perturbed(best, CHILDREN, 0.5, rng)
        actions = np.concatenate([actions, children])
        values = np.concatenate([values, task.evaluate_many([in_scenario(c) for c in space.decode(children)])])
    if shuffled:
        values = rng.permutation(values)
    return FinishedStudy(task.name, space.decode(actions), np.clip(values, 0.0, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yahpo", type=Path, required=True, metavar="DIR", help="folder with suite.json")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shuffled", action="store_true")
    given = parser.parse_args()
    started = time.process_time()
    # The scenario has linear boosters, too: what is known of them serves studies that tune them.
    booster = {"type": "categorical", "choices": ["gblinear", "gbtree", "dart"]}
    space = SearchSpace.model_validate({**builtin_space("xgboost-wide").model_dump(), "booster": booster})
    tasks = load_tasks(given.yahpo, "source")
    studies = [
        study(task, space, derive_seed(given.seed, index, "study"), given.shuffled) for index, task in enumerate(tasks)
    ]
    name = "xgboost-wide" + ("-shuffled" if given.shuffled else "")
    prior = train(
        name,
        space,
        studies,
        "accuracy",
        SOURCE,
        PriorSettings(seed=given.seed),
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(prior.to_bytes())
    size = given.out.stat().st_size / 1024
    print(f"{given.out}: {size:.0f} KiB, {prior.card.trials} trials, {time.process_time() - started:.0f} CPU s")


if __name__ == "__main__":
    main()
