"""Screening: draw many candidates, and propose the few that the reward model ranks best."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rlhpo_core.arrays import Floats
from rlhpo_core.space.parameters import Bool, Categorical
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import ScreeningSettings
from rlhpo_core.tuner.reward_model import RewardModel

#: Each refinement adds OFFSPRING variations of the FRONT most promising candidates.
FRONT, OFFSPRING = 8, 96
#: Variations of each candidate that the last search has carried on.
VARIATIONS = 4
#: How far a variation moves at most, of a range of 2: of the best trials, and of candidates.
FAR, NEAR = 0.4, 0.2
#: How likely a step that moves goes anywhere: numbers, and choices, of which none is near.
_ANYWHERE, _ANY_CHOICE = 0.15, 0.5


@dataclass(frozen=True)
class Search:
    """The search for what is most promising."""

    space: SearchSpace
    model: RewardModel
    settings: ScreeningSettings
    parents: Floats
    """Actions (P, n) of the best trials, which are varied."""
    policy: Floats
    """Actions (D, n) that the policy has drawn; none if it knows nothing, and then more come from anywhere."""
    carried: Floats
    """Actions (E, n) of what an earlier search found most promising."""
    tried: Floats
    """Features (N, d) that are not to be proposed again."""
    reference: Floats
    """Features (M, d) of what is to be improved upon; with none, the highest mean is the most promising."""
    tolerance: float | None
    """Of the cost of a training run, as in ``RewardModel.worth``."""

    def given(self, actions: Floats) -> Search:
        """The search once these actions (B, n) are to be tried, which may have NaN for steps that take no part.

        The model is conditioned on its prediction of them as fantasy observations (kriging believer), so that what is
        found next is found for what it adds.
        """
        if not len(actions):
            return self
        features = self.space.features_of_actions(actions)
        return replace(
            self,
            model=self.model.conditioned(features),
            tried=np.concatenate([self.tried, features]),
            reference=np.concatenate([self.reference, features]),
        )

    def ranked(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Actions (C, n) and features (C, d) of candidates, the most promising first."""
        settings, moved = self.settings, _likely_anywhere(self.space)
        local = round(settings.candidates * settings.local_share) if len(self.parents) else 0
        anywhere = max(settings.candidates - local - len(self.policy), 1)
        pools = [self.policy, rng.uniform(-1, 1, (anywhere, len(self.space.steps))), self.carried]
        pools += [perturbed(self.parents, local, FAR, rng, moved)] if local else []
        if len(self.carried):
            count = VARIATIONS * len(self.carried)
            pools.append(perturbed(self.carried, count, NEAR, rng, moved, settings.crossover))
        best = float(self.model.predict(self.reference, noisy=False)[0].max()) if len(self.reference) else None
        candidates = _single(np.concatenate(pools))
        features = self.space.features_of_actions(candidates)
        value = self._value(features, best)
        for step in range(settings.refinements):
            front = candidates[np.argsort(-value, kind="stable")[:FRONT]]
            offspring = _single(perturbed(front, OFFSPRING, NEAR / 2**step, rng, moved, settings.crossover))
            more = self.space.features_of_actions(offspring)
            candidates, features = np.concatenate([candidates, offspring]), np.concatenate([features, more])
            value = np.concatenate([value, self._value(more, best)])
        order = np.argsort(-value, kind="stable")
        return candidates[order], features[order]

    def _value(self, features: Floats, best: float | None) -> Floats:
        if best is None:
            return self.model.predict(features, noisy=False)[0]
        return self.model.worth(self.settings.reward, features, best, noisy=False, tolerance=self.tolerance)


def screen(search: Search, count: int, seed: int) -> Floats:
    """Actions (count, n) of the proposals in the order in which they were chosen.

    Args:
        search: For the first of them.
        count: How many, at least 1.
        seed: Of all draws.
    """
    rng, chosen = np.random.default_rng(seed), []
    for _ in range(count):
        candidates, features = search.ranked(rng)
        latest = candidates[[_first_apart(features, search.tried, search.settings.spread)]]
        chosen.append(latest)
        search = replace(search, carried=candidates[: search.settings.carried]).given(latest)
    return np.concatenate(chosen)


def _single(actions: Floats) -> Floats:
    """Actions as the agent will see them: it learns in single precision, and what is decoded must be the same."""
    return actions.astype(np.float32).astype(np.float64)


def _likely_anywhere(space: SearchSpace) -> Floats:
    return np.array([_ANY_CHOICE if isinstance(step, Categorical | Bool) else _ANYWHERE for step in space.steps])


def perturbed(
    parents: Floats,
    count: int,
    most: float,
    rng: np.random.Generator,
    anywhere: Floats | float = _ANYWHERE,
    crossover: float = 0.0,
) -> Floats:
    """Variations of actions, (count, n), clipped to [-1, 1].

    In each child about three steps move, at least one: by a Gaussian whose standard deviation is drawn per child,
    log-uniformly between ``most`` and a thirtieth of it, or to anywhere.

    Args:
        parents: Actions (P, n), NaN where inactive; such a step is drawn uniformly.
        count: Of children; each has a parent drawn at random.
        most: The largest standard deviation.
        rng: Is advanced.
        anywhere: How likely a step that moves goes to anywhere, for all steps or for each, (n,).
        crossover: The share of children half of whose steps come from a second parent, before they move.
    """
    rows = parents[rng.integers(len(parents), size=count)]
    n = rows.shape[1]
    if crossover:
        crossed = (rng.random((count, 1)) < crossover) & (rng.random(rows.shape) < 0.5)
        rows = np.where(crossed, parents[rng.integers(len(parents), size=count)], rows)
    moved = rng.random(rows.shape) < min(1.0, 3 / n)
    moved[np.arange(count), rng.integers(n, size=count)] = True
    width = most * 10 ** rng.uniform(-1.5, 0, (count, 1))
    near = np.clip(rows + rng.normal(0.0, 1.0, rows.shape) * width, -1, 1)
    far = rng.uniform(-1, 1, rows.shape)
    # A step that was inactive in the parent may become active in the child: it needs an action, too.
    fresh = np.where((rng.random(rows.shape) < anywhere) | np.isnan(rows), far, near)
    return np.where(moved | np.isnan(rows), fresh, rows)


def _first_apart(features: Floats, taken: Floats, spread: float) -> int:
    """The first row that keeps its distance from what is taken; the distance is halved until there is one."""
    least = spread * np.sqrt(features.shape[1])
    while len(taken) and least > 0:
        for index, row in enumerate(features):
            if np.linalg.norm(taken - row, axis=1).min() > least:
                return index
        # In a small discrete space nothing new may be left: then repeat the best.
        least = least / 2 if least > 1e-4 else 0.0
    return 0
