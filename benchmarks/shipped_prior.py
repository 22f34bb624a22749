"""Train a prior on surrogates: XGBoost's hyperparameters on the 52 source tasks of YAHPO Gym's rbv2_xgboost.

    python -m benchmarks.shipped_prior --yahpo DIR --out surrogates.safetensors

It came with rlhpo before there were priors from real trainings (``real_priors``), and is what ``transfer`` measures.

Each task becomes a finished study: random configurations, generations of mutations of the best, and the best of the
other tasks. The portfolio is searched for on the surrogates themselves. The tasks of the suite take no part.
``--shuffled`` pairs configurations with other configurations' scores: a prior that is wrong everywhere, to measure what
that costs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.surrogates import SurrogateTask, load_tasks
from rlhpo_core.priors.portfolio import Gains
from rlhpo_core.priors.training import FinishedStudy, PriorSettings, train
from rlhpo_core.seeds import derive_seed
from rlhpo_core.space.search_space import SearchSpace, builtin_space
from rlhpo_core.trial import Config
from rlhpo_core.tuner.prior import Prior
from rlhpo_core.tuner.screening import perturbed

#: XGBoost's own names for what the scenario calls otherwise, and what this prior leaves open.
NAMES = {"nrounds": "n_estimators", "eta": "learning_rate", "lambda": "reg_lambda", "alpha": "reg_alpha"}
BACK = {own: theirs for theirs, own in NAMES.items()}
IMPUTATION = {"num.impute.selected.cpo": "impute.mean"}
Floats = NDArray[np.float64]
RANDOM, GENERATIONS, CHILDREN, PARENTS, EXCHANGED = 1500, 3, 300, 20, 20
SOURCE = (
    "YAHPO Gym v1.0.2, scenario rbv2_xgboost (Pfisterer, Schneider, Moosbauer, Binder, Bischl: YAHPO Gym – An "
    "Efficient Multi-Objective Multi-Fidelity Benchmark for Hyperparameter Optimization, 2022; Apache-2.0); surrogates "
    "of trainings on OpenML data sets"
)


def scenario_space() -> SearchSpace:
    """XGBoost's, with the least weight of a child that the surrogates know."""
    definitions = builtin_space("xgboost-wide").model_dump()
    definitions["min_child_weight"]["low"] = 2.718281828459045
    return SearchSpace.model_validate(definitions)


def in_scenario(config: Config) -> Config:
    """A configuration of XGBoost under the scenario's names."""
    return {**IMPUTATION, **{BACK.get(name, name): value for name, value in config.items()}}


def under_names_of(prior: Prior, space: SearchSpace) -> Prior:
    """The prior as it is for a space that has the scenario's names; otherwise as it was."""
    known = {parameter.name for parameter in space.parameters}
    back = {own: theirs for theirs, own in NAMES.items() if theirs in known}
    named = {back.get(name, name): definition for name, definition in prior.space.model_dump().items()}
    portfolio, ignoring_time = (
        tuple({back.get(name, name): value for name, value in config.items()} for config in configs)
        for configs in (prior.portfolio, prior.portfolio_ignoring_time)
    )
    return replace(
        prior, space=SearchSpace.model_validate(named), portfolio=portfolio, portfolio_ignoring_time=ignoring_time
    )


def values_of(task: SurrogateTask, configs: list[Config]) -> Floats:
    """Accuracies (N,)."""
    return np.clip(task.evaluate_many([in_scenario(config) for config in configs]), 0.0, 1.0)


def searched(task: SurrogateTask, space: SearchSpace, seed: int) -> tuple[Floats, Floats]:
    """Actions (N, n) on a task and their accuracies (N,): wide first, then close to its best."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (RANDOM, len(space.steps)))
    values = values_of(task, space.decode(actions))
    for _ in range(GENERATIONS):
        best = actions[np.argsort(-values, kind="stable")[:PARENTS]]
        children = perturbed(best, CHILDREN, 0.5, rng)
        actions = np.concatenate([actions, children])
        values = np.concatenate([values, values_of(task, space.decode(children))])
    return actions, values


def finished_studies(
    tasks: Sequence[SurrogateTask], space: SearchSpace, seed: int, shuffled: bool
) -> list[FinishedStudy]:
    """One a task, which has also tried what was best on the others."""
    found = [searched(task, space, derive_seed(seed, index, "study")) for index, task in enumerate(tasks)]
    best = np.concatenate([actions[np.argsort(-values, kind="stable")[:EXCHANGED]] for actions, values in found])
    studies = []
    for index, (task, (actions, values)) in enumerate(zip(tasks, found, strict=True)):
        configs = space.decode(np.concatenate([actions, best]))
        rewards = np.concatenate([values, values_of(task, configs[len(values) :])])
        if shuffled:
            rewards = np.random.default_rng(derive_seed(seed, index, "shuffled")).permutation(rewards)
        studies.append(FinishedStudy(task.name, configs, rewards, seconds=seconds_of(configs)))
    return studies


def gains_of(tasks: Sequence[SurrogateTask], studies: Sequence[FinishedStudy]) -> Gains:
    """What the surrogates say of configurations: 0 for the middle of a study's random ones, 1 for its best."""
    middling = np.array([float(np.median(study.rewards[:RANDOM])) for study in studies])
    best = np.array([float(study.rewards.max()) for study in studies])

    def gains(configs: list[Config]) -> Floats:
        values = np.stack([values_of(task, configs) for task in tasks])
        return np.asarray((values - middling[:, None]) / np.maximum(best - middling, 1e-9)[:, None])

    return gains


def seconds_of(configs: list[Config]) -> Floats:
    """About what XGBoost 3.2 takes with 4,000 rows and 20 columns on one thread, (N,).

    A tree takes half a millisecond. With dart every round predicts by all trees so far: 25 s for 600, 95 s for 1,200.
    """
    rounds = np.array([float(config["n_estimators"]) for config in configs])
    dart = np.array([config["booster"] == "dart" for config in configs])
    return np.where(dart, 6.6e-5 * rounds**2, 5e-4 * rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yahpo", type=Path, required=True, metavar="DIR", help="the surrogates")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shuffled", action="store_true")
    given = parser.parse_args()
    started = time.process_time()
    space = scenario_space()
    tasks = load_tasks("source", folder=given.yahpo)
    studies = finished_studies(tasks, space, given.seed, given.shuffled)
    name = "xgboost-wide" + ("-shuffled" if given.shuffled else "")
    prior = train(
        name,
        space,
        studies,
        "accuracy",
        SOURCE,
        PriorSettings(seed=given.seed),
        lambda line: print(line, file=sys.stderr, flush=True),
        None if given.shuffled else gains_of(tasks, studies),
    )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(prior.to_bytes())
    size = given.out.stat().st_size / 1024
    print(f"{given.out}: {size:.0f} KiB, {prior.card.trials} trials, {time.process_time() - started:.0f} CPU s")


if __name__ == "__main__":
    main()
