"""Screening: draw many proposals, train the few that the reward model ranks best and that lie apart."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rlhpo_core.agent import Agent
from rlhpo_core.reward_model import RewardModel, acquisition
from rlhpo_core.settings import ScreeningSettings
from rlhpo_core.trial import History

Floats = NDArray[np.float64]
PARENTS = 5


def screen(
    agent: Agent, model: RewardModel, history: History, best: float, settings: ScreeningSettings, seed: int, count: int
) -> Floats:
    """Actions (count, n) of the proposals, the most promising first; NaN for steps that take no part.

    ``best`` is the highest reward so far.
    """
    space = agent.space
    rng = np.random.default_rng(seed)
    parents = [trial.config for trial in history.ranked()[:PARENTS]]
    local = round(settings.candidates * settings.local_share) if parents else 0
    noise = torch.from_numpy(rng.standard_normal((max(settings.candidates - local, count), len(space.steps)))).float()
    pools = [agent.play(noise).actions_or_nan()]
    if local:
        pools.append(_perturb(space.encode(parents), local, rng))
    # The agent will learn from the actions in single precision: what is decoded must be the very same.
    candidates = np.concatenate(pools).astype(np.float32).astype(np.float64)
    features = space.features_of_actions(candidates)
    value = acquisition(settings.reward, *model.predict(features), best)
    taken = space.features([trial.config for trial in history.trials])
    return candidates[_apart(features, np.argsort(-value, kind="stable"), taken, settings.spread, count)]


def _perturb(parents: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Mutations of parents (P, n): about a third of the steps move by a Gaussian, or, one time in ten, anywhere."""
    rows = parents[rng.integers(len(parents), size=count)]
    moved = rng.random(rows.shape) < 1 / 3
    moved[np.arange(count), rng.integers(rows.shape[1], size=count)] = True
    near = np.clip(rows + rng.normal(0.0, 0.2, rows.shape), -1, 1)
    anywhere = rng.uniform(-1, 1, rows.shape)
    fresh = np.where((rng.random(rows.shape) < 0.1) | np.isnan(rows), anywhere, near)
    # A step that was inactive in the parent may become active in the child: it needs an action, too.
    return np.where(moved | np.isnan(rows), fresh, rows)


def _apart(features: Floats, order: NDArray[np.int64], taken: Floats, spread: float, count: int) -> list[int]:
    """The first ``count`` of ``order`` that keep their distance; the distance is halved until there are enough."""
    least = spread * np.sqrt(features.shape[1])
    while True:
        chosen: list[int] = []
        points = taken
        for index in order:
            if len(points) == 0 or np.linalg.norm(points - features[index], axis=1).min() > least:
                chosen.append(int(index))
                points = np.vstack([points, features[index]])
                if len(chosen) == count:
                    return chosen
        if least == 0:
            # A small discrete space: nothing new is left, so repeat the best.
            return [*chosen, *(int(i) for i in order if int(i) not in chosen)][:count]
        least = least / 2 if least > 1e-3 else 0.0
