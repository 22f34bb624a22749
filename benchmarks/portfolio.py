"""A zero-shot portfolio: configurations that, tried one after another, do well on the source tasks taken together.

Greedy as by Pfisterer et al. 2021 (Learning multiple defaults for machine learning algorithms): the next one is always
the one with which the mean over tasks of the lowest normalised regret so far falls most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.surrogates import Floats, SurrogateTask
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import Config

#: The pool to choose from: random configurations, and per source task the best of them and of their perturbations.
RANDOM, BEST, PERTURBATIONS, WIDTH = 4096, 10, 20, 0.15


def greedy(regrets: Floats, size: int) -> list[int]:
    """Indices of the chosen configurations, given regrets (tasks, configurations).

    Once no task can be improved on any more, the choice begins again among those that are left.
    """
    tasks, count = regrets.shape
    chosen: list[int] = []
    lowest = np.full(tasks, np.inf)
    while len(chosen) < min(size, count):
        # Never infinite: the first choice is by the plain mean.
        means = np.minimum(lowest[:, None], regrets).mean(axis=0)
        means[chosen] = np.inf
        index = int(np.argmin(means))
        if np.isfinite(lowest).all() and means[index] >= lowest.mean():
            lowest = np.full(tasks, np.inf)
            continue
        chosen.append(index)
        lowest = np.minimum(lowest, regrets[:, index])
    return chosen


def pool_of(space: SearchSpace, tasks: Sequence[SurrogateTask], seed: int) -> list[Config]:
    """Random configurations, and what does best on each task after one round of perturbing the best of them."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (RANDOM, len(space.steps)))
    configs = space.decode(actions)
    refined = []
    for task in tasks:
        best = actions[np.argsort(-task.evaluate_many(configs))[:BEST]]
        moved = np.repeat(best, PERTURBATIONS, axis=0)
        moved = np.clip(moved + rng.normal(0, WIDTH, moved.shape), -1, 1)
        values = task.evaluate_many(space.decode(moved))
        refined.append(moved[np.argsort(-values)[:BEST]])
    return [*configs, *space.decode(np.concatenate(refined))]


def build(tasks: Sequence[SurrogateTask], size: int, seed: int = 0) -> list[Config]:
    """The portfolio of source tasks that share a space. Regret is normalised by the pool's own best and median.

    The choice is by its square root: tasks on which bad configurations are very bad would drown the others otherwise.
    """
    pool = pool_of(tasks[0].space, tasks, seed)
    values = np.stack([task.evaluate_many(pool) for task in tasks])
    best, median = values.max(axis=1, keepdims=True), np.median(values[:, :RANDOM], axis=1, keepdims=True)
    spread = np.where(best > median, best - median, 1.0)
    return [pool[index] for index in greedy(np.sqrt((best - values) / spread), size)]


def load_or_build(file: Path, tasks: Sequence[SurrogateTask], size: int) -> list[Config]:
    """From the file if it is there; built and kept there if not."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = build(tasks, size)
        file.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    found: list[Config] = json.loads(file.read_text(encoding="utf-8"))
    return found
