"""One update of the policy by PPO-clip (Schulman et al. 2017), with the reward at the last step and γ = 1.

With a reward only at the end and no discount, the return of every step is the episode's reward, so one advantage per
episode serves all its steps. There is no critic: the tuner gives advantages relative to a batch or to recent trials.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlhpo_core.study.tuner_settings import PPOSettings
from rlhpo_core.tuner.agent import Agent, Rollout, masked_mean

#: What Adam keeps of each parameter, by the parameter's place: its number of steps, and two running means of its shape.
#: A state has these and no optimizer: the first that a process makes has torch import its compiler, for over a second.
Moments = Mapping[int, Mapping[str, Tensor]]


def make_optimizer(agent: Agent, settings: PPOSettings, moments: Moments | None = None) -> torch.optim.Adam:
    """Adam over the agent's parameters, with a copy of these moments; without any if they are not given."""
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate, eps=1e-5)
    if moments:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": copy.deepcopy(dict(moments))})
    return optimizer


def moments_of(optimizer: torch.optim.Adam) -> Moments:
    """What the optimizer has come to; it is not to be used any more."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {place: {name: torch.as_tensor(moment) for name, moment in found.items()} for place, found in state.items()}


def update(
    agent: Agent, optimizer: torch.optim.Adam, rollout: Rollout, advantages: Tensor, settings: PPOSettings
) -> float:
    """Move the agent, in place, towards episodes with a positive advantage.

    Args:
        agent: The policy; its parameters change.
        optimizer: Over these parameters; its moments change.
        rollout: B episodes played by the agent as it is now.
        advantages: (B,), about unit scale.
        settings: Epochs, clip range, entropy bonus (per nat) and gradient norm.

    Returns: mean entropy per step after the update, in nats.
    """
    weight = advantages[:, None]
    for _ in range(settings.epochs):
        policy = agent(rollout)
        log_ratio = (policy.log_prob(rollout.actions) - rollout.log_probs).masked_fill(~rollout.active, 0.0)
        # Beyond e^±20 the clip decides anyway, and an infinite ratio would make the gradient NaN.
        ratio = log_ratio.clamp(-20.0, 20.0).exp()
        clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
        gain = masked_mean(torch.minimum(ratio * weight, clipped * weight), rollout.active)
        entropy = masked_mean(policy.entropy(), rollout.active)
        optimizer.zero_grad()
        (-gain - settings.entropy_bonus * entropy).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(agent.parameters(), settings.max_grad_norm)
        optimizer.step()
    with torch.no_grad():
        return float(masked_mean(agent(rollout).entropy(), rollout.active))
