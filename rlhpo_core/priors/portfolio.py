"""A portfolio: configurations that complement each other, to begin a study with.

The single best guess for a new task is a compromise between tasks that want different things. Several trials need not
compromise: for each task one of them should be good. They are chosen greedily on finished studies (Pfisterer et al.,
Learning Multiple Defaults for Machine Learning Algorithms, GECCO 2021, choose likewise from a fixed pool): each next
configuration is searched for where it adds most to those before it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlhpo_core.arrays import Floats
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import Config
from rlhpo_core.tuner.screening import perturbed

#: Gains (T, B) of configurations on T tasks: 0 for a middling configuration of the task, 1 for its best.
Gains = Callable[[list[Config]], Floats]
#: Costs (B,) of training runs with configurations, relative to a usual configuration's.
Cost = Callable[[list[Config]], Floats]

#: Rounds of mutations of the FRONT best candidates, CHILDREN each, for every configuration that is chosen.
GENERATIONS, FRONT, CHILDREN, WIDTH = 6, 10, 200, 0.3
#: Weight of a configuration's mean gain, against 1 for what it adds to the configurations chosen so far.
BY_ITSELF = 0.1
#: A configuration that costs so many times as much as a usual one must add twice as much.
TOLERANCE = 30.0
#: A measured regret above this counts as this.
WORST = 2.0


def choose(
    space: SearchSpace, gains: Gains, candidates: Floats, size: int, seed: int, cost: Cost | None = None
) -> list[Config]:
    """``size`` configurations, or fewer if no other adds anything, in the order in which to try them.

    What a set of configurations leaves to be desired is the mean over tasks of the square root of the regret, 1 − gain,
    of the best of them: a task on which bad configurations are very bad would drown the others otherwise.

    Args:
        space: Of the configurations.
        gains: Of the tasks.
        candidates: Actions (B, n) to begin the search with, such as the best trials of each study and random ones.
        size: The most configurations that are chosen.
        seed: Of the mutations.
        cost: Of training runs; all the same if not given.
    """
    rng = np.random.default_rng(seed)
    regrets, cost_factor = _regrets(gains, space, candidates), _cost_factors(cost, space, candidates)
    lowest = np.ones(len(regrets))
    chosen: list[int] = []
    while len(chosen) < size:
        for _ in range(GENERATIONS):
            front = candidates[np.argsort(-_worth(lowest, regrets) / cost_factor, kind="stable")[:FRONT]]
            children = perturbed(front, CHILDREN, WIDTH, rng)
            candidates = np.concatenate([candidates, children])
            regrets = np.concatenate([regrets, _regrets(gains, space, children)], axis=1)
            cost_factor = np.concatenate([cost_factor, _cost_factors(cost, space, children)])
        index = int(np.argmax(_worth(lowest, regrets) / cost_factor))
        if _added(lowest, regrets)[index] <= 0:
            break
        chosen.append(index)
        lowest = np.minimum(lowest, regrets[:, index])
    return space.decode(candidates[chosen])


def choose_measured(regrets: Floats, size: int, cost: Floats | None = None, first: int | None = None) -> list[int]:
    """The same from configurations that have all been trained with on each task: nothing is predicted.

    Once no other adds anything on these tasks, the choice begins again among those that are left: others need more.

    Args:
        regrets: (T, B), 0 for the best of a task and 1 for a middling configuration; NaN where there is no score. None
            counts as worse than WORST.
        size: The most configurations that are chosen.
        cost: (B,) of training runs, relative to a usual one's; all the same if not given.
        first: What is to be tried first, whatever the regrets say.

    Returns: Indices in the order in which to try them.
    """
    regrets = np.minimum(np.nan_to_num(regrets, nan=WORST), WORST)
    lowest = np.full(len(regrets), WORST)
    factor = np.ones(regrets.shape[1]) if cost is None else 1 + cost / TOLERANCE
    chosen: list[int] = []
    while len(chosen) < min(size, regrets.shape[1]):
        added = _added(lowest, regrets)
        added[chosen] = -1.0
        index = first if first is not None and not chosen else int(np.argmax(added / factor))
        if added[index] <= 0 and (lowest < WORST).any():
            lowest = np.full(len(regrets), WORST)
            continue
        chosen.append(index)
        lowest = np.minimum(lowest, regrets[:, index])
    return chosen


def _regrets(gains: Gains, space: SearchSpace, actions: Floats) -> Floats:
    """Square roots of regrets (T, B)."""
    return np.sqrt(np.clip(1 - gains(space.decode(actions)), 0, None))


def _cost_factors(cost: Cost | None, space: SearchSpace, actions: Floats) -> Floats:
    """By what the worth of candidates is divided, (B,): 1 + cost / TOLERANCE."""
    return np.ones(len(actions)) if cost is None else 1 + cost(space.decode(actions)) / TOLERANCE


def _added(lowest: Floats, regrets: Floats) -> Floats:
    """By how much each candidate (B,) lowers the mean of the lowest regrets (T,) so far with its own, (T, B)."""
    return np.asarray((lowest[:, None] - np.minimum(lowest[:, None], regrets)).mean(axis=0))


def _worth(lowest: Floats, regrets: Floats) -> Floats:
    """Of each candidate (B,): what it adds to the others, and, for a part, how good it is by itself.

    Without the latter, what is best on a few tasks would be taken however absurd it is elsewhere.
    """
    return np.asarray(_added(lowest, regrets) + BY_ITSELF * (1 - np.minimum(regrets, 1)).mean(axis=0))
