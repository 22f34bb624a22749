"""Learning a prior from finished studies: a network of what they have in common, a policy for all of them, portfolios.

The policy is trained by PPO without a new training run: it plays configurations, and the network's gains of all
studies, averaged, are its reward. The portfolios are chosen on the same gains.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import torch
from pydantic import Field
from scipy.spatial.distance import cdist
from torch import Tensor

from rlhpo_core.arrays import Floats
from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.priors import portfolio
from rlhpo_core.priors.portfolio import Gains
from rlhpo_core.seeds import derive_seed
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import AgentSettings, PPOSettings
from rlhpo_core.trial import Config
from rlhpo_core.tuner import ppo, reward_model
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.gaussian_process import MAX_POINTS
from rlhpo_core.tuner.prior import LAYERS, Card, Origin, Prior, embed, hidden
from rlhpo_core.tuner.reward_model import one_thread

#: A study with fewer trials that have a value is refused.
LEAST_TRIALS = 10
#: Seconds below this count as this.
SHORTEST = 1e-3
#: Weight of the costs in the network's loss, against 1 for the gains.
COSTS = 0.3
#: The portfolio is searched for from the BEST trials of each study and so many configurations from ANYWHERE.
BEST, ANYWHERE = 10, 1000


class PriorSettings(Frozen):
    """How a prior is trained."""

    seed: int = 0
    width: int = Field(128, ge=8)
    """Of the network's two hidden layers."""
    features: int = Field(32, ge=2)
    """k: in how many ways studies may differ."""
    steps: int = Field(3000, ge=1)
    """Of the network's optimiser."""
    learning_rate: float = Field(0.01, gt=0)
    floor: float = -1.0
    """Gains below this count as this: how bad a bad configuration is does not matter."""
    emphasis: float = Field(3.0, ge=0)
    """How much more good configurations (gain 1) weigh than middling ones (gain 0)."""
    policy_updates: int = Field(120, ge=0)
    """Of PPO; with 0 the prior has no policy, and is a third as large."""
    episodes: int = Field(256, ge=2)
    """Per update."""
    entropy_bonus: float = Field(0.02, ge=0)
    portfolio: int = Field(5, ge=0)
    """Configurations to begin a study with."""


@dataclass(frozen=True)
class FinishedStudy:
    """Configurations and rewards (N,), higher is better, of a study's trials that have a value."""

    name: str
    configs: Sequence[Config]
    """In the space that it was tuned in."""
    rewards: Floats
    place: str = ""
    """Where it was read from, if that is to stand in the prior's card."""
    data_digest: str = ""
    """Of the data that it was tuned on; empty if not known."""
    seconds: Floats | None = None
    """How long the training runs took, (N,), if that is known."""


@dataclass(frozen=True)
class Landscape:
    """A study as the network sees it."""

    features: Tensor
    """(N, d)."""
    gains: Tensor
    """(N,): 0 for a middling configuration, 1 for the best."""
    costs: Tensor | None
    """(N,): logarithms of the seconds that training runs took, NaN where there was none; ``None`` if not known."""


def train(
    name: str,
    space: SearchSpace,
    studies: Sequence[FinishedStudy],
    objective: str,
    source: str = "",
    settings: PriorSettings | None = None,
    progress: Callable[[str], None] = lambda line: None,
    gains: Gains | None = None,
) -> Prior:
    """A prior over ``space`` from two or more studies in it.

    Args:
        name: Of the prior.
        space: Of its configurations; every study's configurations lie in it.
        studies: What it is learnt from.
        objective: What the studies were judged by, for the card.
        source: Origin and licence of the data, for the card.
        settings: The defaults if not given.
        progress: Is called with lines about what has been done.
        gains: Of the studies, where configurations can be tried on them anew; the network's if not given.

    Raises: UserError if there are too few studies or trials, or if a configuration is not in the space.
    """
    settings = settings or PriorSettings()
    if len(studies) < 2:
        raise UserError(f"a prior is what studies have in common: it takes two or more, not {len(studies)}")
    landscapes = []
    for index, study in enumerate(studies):
        landscapes.append(landscape(space, study, derive_seed(settings.seed, index, "landscape")))
        progress(f"{study.name}: {len(study.rewards)} trials")
    with one_thread():
        network, heads, cost_head = _fit_network(landscapes, settings, progress)
        mean = heads.mean(0)
        # F Fᵀ is the covariance of the studies' combinations; as many columns as it has rank.
        left, sizes, _ = torch.linalg.svd((heads - mean).T / (len(heads) - 1) ** 0.5, full_matrices=False)
        cost = None if cost_head is None else _relative_cost(space, network, cost_head, settings.seed)
        agent = _train_policy(space, network, heads, cost, settings, progress) if settings.policy_updates else None
        gains = gains or (lambda configs: _gains(network, heads, space.features(configs)).numpy())
        costs = None if cost is None else lambda configs: _costs(network, cost, space.features(configs)).numpy()
        candidates = _candidates(space, studies, settings.seed)
        seed = derive_seed(settings.seed, 0, "portfolio")
        first = portfolio.choose(space, gains, candidates, settings.portfolio, seed, costs)
        ignoring_time = portfolio.choose(space, gains, candidates, settings.portfolio, seed) if costs else first
    weights = {} if agent is None else {f"agent/{key}": tensor.float() for key, tensor in agent.state_dict().items()}
    tensors = {**network, "mean": mean, "factor": left * sizes, **weights}
    if cost is not None:
        tensors["cost"] = cost
    # Laid out as they will be read back: products of other layouts may differ in their last bits.
    laid_out = {key: tensor.contiguous() for key, tensor in tensors.items()}
    card = _card(name, studies, objective, source, settings)
    return Prior(card, space, AgentSettings(), laid_out, tuple(first), tuple(ignoring_time))


def _card(name: str, studies: Sequence[FinishedStudy], objective: str, source: str, settings: PriorSettings) -> Card:
    return Card(
        name=name,
        studies=tuple(study.name for study in studies),
        origins=tuple(
            Origin(study=study.name, place=study.place, trials=len(study.rewards), data_digest=study.data_digest)
            for study in studies
            if study.place
        ),
        objective=objective,
        trials=sum(len(study.rewards) for study in studies),
        source=source,
        made_with={
            "rlhpo": metadata.version("rlhpo"),
            "torch": torch.__version__.split("+")[0],
            "python": platform.python_version(),
            **{key: str(value) for key, value in settings.model_dump().items()},
        },
    )


def landscape(space: SearchSpace, study: FinishedStudy, seed: int) -> Landscape:
    """A study's gains over the whole space.

    A tuner's trials crowd where the rewards are high, so the middling reward is the median over configurations that are
    drawn uniformly. Their rewards are predicted by a Gaussian process that is fitted to the trials, and join them; for
    a study of more than MAX_POINTS trials, the reward is that of the nearest trial.

    Args:
        space: Of the prior; the features are in it.
        study: Rewards of any scale, higher is better.
        seed: Of the uniform draws.

    Raises: UserError if there are too few trials, or if they are all the same.
    """
    if len(study.rewards) < LEAST_TRIALS or len(np.unique(study.rewards)) < 2:
        raise UserError(
            f"{study.name}: {len(study.rewards)} trials have a value, {len(np.unique(study.rewards))} of them differ; "
            f"a prior wants {LEAST_TRIALS} or more of a study, and two that differ"
        )
    try:
        features = space.features(study.configs)
    except ValueError as error:
        raise UserError(f"{study.name}: not in the space of the prior: {error}") from error
    rewards, seconds = study.rewards, study.seconds
    wide = space.features_of_actions(np.random.default_rng(seed).uniform(-1, 1, (1024, len(space.steps))))
    if len(rewards) <= MAX_POINTS:
        predicted, _ = reward_model.fit("gp", features, rewards, seed).predict(wide)
        middling = float(np.median(predicted))
        features, rewards = np.concatenate([features, wide]), np.concatenate([rewards, predicted])
        seconds = None if seconds is None else np.concatenate([seconds, np.full(len(wide), np.nan)])
    else:
        middling = float(np.median(rewards[cdist(wide, features).argmin(axis=1)]))
    best = float(study.rewards.max())
    gains = (rewards - middling) / max(best - middling, 1e-9 * max(1.0, abs(best)))
    costs = None if seconds is None else torch.from_numpy(np.log(np.maximum(seconds, SHORTEST)))
    return Landscape(torch.from_numpy(features), torch.from_numpy(np.minimum(gains, 1.5)), costs)


def _fit_network(
    landscapes: Sequence[Landscape], settings: PriorSettings, progress: Callable[[str], None]
) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
    """φ, each study's combination of it (T, k + 1), and that (k + 1,) for the logarithm of costs, if those are known.

    Studies differ in how long their training runs take by a factor each, whose logarithm is fitted and then dropped.
    """
    generator = torch.Generator().manual_seed(derive_seed(settings.seed, 0, "network"))
    d, sizes = landscapes[0].features.shape[1], [settings.width, settings.width, settings.features]
    network: dict[str, Tensor] = {}
    for layer, (inputs, outputs) in enumerate(zip([d, *sizes], sizes, strict=False)):
        bound = inputs**-0.5
        network[f"w{layer}"] = torch.empty(inputs, outputs).uniform_(-bound, bound, generator=generator)
        network[f"b{layer}"] = torch.zeros(outputs)
    assert len(network) == 2 * LAYERS
    heads = torch.randn(len(landscapes), settings.features + 1, generator=generator) * 0.1
    costs, spread = _costs_within(landscapes)
    cost_head = torch.zeros(settings.features)
    levels = torch.stack([log.nanmean().nan_to_num() for log in costs])
    learnt = [tensor.requires_grad_() for tensor in (*network.values(), heads, cost_head, levels)]
    optimizer = torch.optim.AdamW(learnt, lr=settings.learning_rate / 3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps)
    for step in range(settings.steps):
        rows = [torch.randint(len(study.gains), (64,), generator=generator) for study in landscapes]
        x = torch.stack([study.features[r] for study, r in zip(landscapes, rows, strict=True)]).float()
        gains = torch.stack([study.gains[r] for study, r in zip(landscapes, rows, strict=True)]).float()
        gains = gains.clamp(min=settings.floor)
        h = hidden(network, x)
        predicted = (h * heads[:, None, :-1]).sum(-1) + heads[:, None, -1]
        weight = 1 + settings.emphasis * gains.clamp(min=0).square()
        loss = (weight * (predicted - gains).square()).mean()
        took = torch.stack([log[r] for log, r in zip(costs, rows, strict=True)])
        loss = loss + COSTS * _squared_error(h @ cost_head + levels[:, None], took)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            progress(f"network: step {step + 1} of {settings.steps}, weighted squared error {float(loss.detach()):.4f}")
    network = {name: tensor.detach() for name, tensor in network.items()}
    cost = torch.cat([cost_head.detach() * spread, torch.zeros(1)]).double() if spread > 0 else None
    return network, heads.detach().double(), cost


def _costs_within(landscapes: Sequence[Landscape]) -> tuple[list[Tensor], float]:
    """Standardised logarithms of costs, and their standard deviation within a study, 0.0 if no cost is known.

    The logarithms (N,) of each study are divided by the standard deviation; NaN where a cost is unknown.
    """
    nothing = [torch.full((len(study.gains),), torch.nan, dtype=torch.float64) for study in landscapes]
    logs = [study.costs if study.costs is not None else nan for study, nan in zip(landscapes, nothing, strict=True)]
    within = torch.cat([log - log.nanmean() for log in logs])
    spread = float(within[~within.isnan()].square().mean().sqrt()) if not within.isnan().all() else 0.0
    return [(log / (spread or 1.0)).float() for log in logs], spread


def _squared_error(predicted: Tensor, measured: Tensor) -> Tensor:
    """Mean over what was measured and is not NaN; 0 if nothing was."""
    known = ~measured.isnan()
    squares = torch.where(known, predicted - measured.nan_to_num(), 0.0).square()
    return squares.sum() / known.sum().clamp(min=1)


def _relative_cost(space: SearchSpace, network: dict[str, Tensor], head: Tensor, seed: int) -> Tensor:
    """The combination of φ, (k + 1,), with the intercept for which the median of random configurations costs 1."""
    rng = np.random.default_rng(derive_seed(seed, 0, "costs"))
    features = space.features_of_actions(rng.uniform(-1, 1, (ANYWHERE, len(space.steps))))
    median = (embed(network, torch.from_numpy(features)) @ head).median()
    return torch.cat([head[:-1], -median[None]])


def _costs(network: dict[str, Tensor], head: Tensor, features: Floats) -> Tensor:
    """Costs (B,) of configurations with features (B, d), relative to a usual one's."""
    return (embed(network, torch.from_numpy(features)) @ head).exp()


def _gains(network: dict[str, Tensor], heads: Tensor, features: Floats) -> Tensor:
    """Gains (T, B) of configurations with features (B, d) in the T studies, according to the network."""
    return (embed(network, torch.from_numpy(features)) @ heads.T).T


def _candidates(space: SearchSpace, studies: Sequence[FinishedStudy], seed: int) -> Floats:
    """Actions (B, n) of the best trials of each study, and random ones."""
    best = [
        study.configs[index] for study in studies for index in np.argsort(-study.rewards, kind="stable")[:BEST].tolist()
    ]
    rng = np.random.default_rng(derive_seed(seed, 0, "candidates"))
    return np.concatenate([space.encode(best), rng.uniform(-1, 1, (ANYWHERE, len(space.steps)))])


def _train_policy(
    space: SearchSpace,
    network: dict[str, Tensor],
    heads: Tensor,
    cost: Tensor | None,
    settings: PriorSettings,
    progress: Callable[[str], None],
) -> Agent:
    """PPO on imagined episodes; the reward is the mean of all studies' gains, reduced where a training run is long."""
    agent = Agent(space, AgentSettings(), one_step=False, seed=derive_seed(settings.seed, 0, "agent"))
    learning = PPOSettings(entropy_bonus=settings.entropy_bonus)
    optimizer = ppo.make_optimizer(agent, learning)
    generator = torch.Generator().manual_seed(derive_seed(settings.seed, 0, "policy"))
    for update in range(settings.policy_updates):
        rollout = agent.play(torch.randn(settings.episodes, len(space.steps), generator=generator))
        features = space.features_of_actions(rollout.actions_or_nan())
        gains = _gains(network, heads, features).clamp(min=settings.floor).mean(0)
        if cost is not None:
            gains = torch.minimum(gains, gains / (1 + _costs(network, cost, features) / portfolio.TOLERANCE))
        advantages = ((gains - gains.mean()) / gains.std().clamp(min=1e-6)).float()
        ppo.update(agent, optimizer, rollout, advantages, learning)
        if (update + 1) % 20 == 0:
            progress(f"policy: update {update + 1} of {settings.policy_updates}, mean gain {float(gains.mean()):.3f}")
    return agent
