"""Screening: draw many candidates, and propose the few that the reward model ranks best."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rlhpo_core.arrays import Floats
from rlhpo_core.study.tuner_settings import Acquisition, ScreeningSettings
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.reward_model import RewardModel

#: Each refinement adds OFFSPRING mutations of the FRONT most promising candidates.
FRONT, OFFSPRING = 8, 192


def screen(
    agent: Agent,
    model: RewardModel,
    parents: Floats,
    tried: Floats,
    reference: Floats,
    settings: ScreeningSettings,
    seed: int,
    count: int,
    tolerance: float | None = None,
) -> Floats:
    """Actions (count, n) of the proposals in the order in which they were chosen; NaN for steps that take no part.

    Each is the most promising of candidates from three sources: the policy, mutations of the best trials, and the
    uniform distribution. After each choice the model is conditioned on its prediction of it as a fantasy observation
    (kriging believer), so that the next one is chosen for what it adds.

    Args:
        agent: The policy that draws candidates.
        model: The reward model.
        parents: Actions (P, n) of the best trials, which are mutated.
        tried: Features (N, d) that are not to be proposed again.
        reference: Features (M, d) of what is to be improved upon; with none, the highest mean is the most promising.
        settings: Numbers of candidates, their shares, the acquisition function and the least distance.
        seed: Of all draws.
        count: How many proposals.
        tolerance: Of the cost of a training run, as in ``RewardModel.worth``.
    """
    space = agent.space
    rng = np.random.default_rng(seed)
    n = len(space.steps)
    local = round(settings.candidates * settings.local_share) if len(parents) else 0
    uniform = round(settings.candidates * settings.uniform_share)
    drawn = max(settings.candidates - local - uniform, count)
    noise = torch.from_numpy(rng.standard_normal((drawn, n))).float()
    policy = agent.play(noise).actions_or_nan()
    chosen: list[Floats] = []
    for _ in range(count):
        pools = [policy, rng.uniform(-1, 1, (uniform, n))]
        if local:
            pools.append(perturbed(parents, local, 0.4, rng))
        candidates = _single(np.concatenate(pools))
        features = space.features_of_actions(candidates)
        best = float(model.predict(reference, noisy=False)[0].max()) if len(reference) else None
        value = _value(model, features, best, settings.reward, tolerance)
        for step in range(settings.refinements):
            front = candidates[np.argsort(-value, kind="stable")[:FRONT]]
            offspring = _single(perturbed(front, OFFSPRING, 0.2 / 2**step, rng))
            more = space.features_of_actions(offspring)
            candidates, features = np.concatenate([candidates, offspring]), np.concatenate([features, more])
            value = np.concatenate([value, _value(model, more, best, settings.reward, tolerance)])
        index = _first_apart(features, np.argsort(-value, kind="stable"), tried, settings.spread)
        chosen.append(candidates[index])
        latest = features[index : index + 1]
        tried, reference = np.concatenate([tried, latest]), np.concatenate([reference, latest])
        model = model.conditioned(latest)
    return np.stack(chosen)


def _single(actions: Floats) -> Floats:
    """Actions as the agent will see them: it learns in single precision, and what is decoded must be the same."""
    return actions.astype(np.float32).astype(np.float64)


def _value(
    model: RewardModel, features: Floats, best: float | None, reward: Acquisition, tolerance: float | None
) -> Floats:
    if best is None:
        return model.predict(features, noisy=False)[0]
    return model.worth(reward, features, best, noisy=False, tolerance=tolerance)


def perturbed(parents: Floats, count: int, most: float, rng: np.random.Generator) -> Floats:
    """Mutations of actions, (count, n), clipped to [-1, 1].

    In each child about three steps move, at least one: by a Gaussian whose standard deviation is drawn per child,
    log-uniformly between ``most`` and a thirtieth of it, or, with probability 0.15, to anywhere.

    Args:
        parents: Actions (P, n), NaN where inactive; such a step is drawn uniformly.
        count: Of children; each has a parent drawn at random.
        most: The largest standard deviation.
        rng: Is advanced.
    """
    rows = parents[rng.integers(len(parents), size=count)]
    n = rows.shape[1]
    moved = rng.random(rows.shape) < min(1.0, 3 / n)
    moved[np.arange(count), rng.integers(n, size=count)] = True
    width = most * 10 ** rng.uniform(-1.5, 0, (count, 1))
    near = np.clip(rows + rng.normal(0.0, 1.0, rows.shape) * width, -1, 1)
    anywhere = rng.uniform(-1, 1, rows.shape)
    # A step that was inactive in the parent may become active in the child: it needs an action, too.
    fresh = np.where((rng.random(rows.shape) < 0.15) | np.isnan(rows), anywhere, near)
    return np.where(moved | np.isnan(rows), fresh, rows)


def _first_apart(features: Floats, order: NDArray[np.int64], taken: Floats, spread: float) -> int:
    """The first of ``order`` that keeps its distance; the distance is halved until there is one."""
    least = spread * np.sqrt(features.shape[1])
    while len(taken) and least > 0:
        for index in order:
            if np.linalg.norm(taken - features[index], axis=1).min() > least:
                return int(index)
        # In a small discrete space nothing new may be left: then repeat the best.
        least = least / 2 if least > 1e-4 else 0.0
    return int(order[0])
