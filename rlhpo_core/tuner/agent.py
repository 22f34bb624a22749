"""The agent: an LSTM policy that chooses one hyperparameter after another (paper, sections 3.2 and 4.1).

Two profiles:

``paper``
    3 × 35 LSTM between a 2-node input layer and a 2-node output layer (μ, σ). A step sees the distribution that the
    step before put out, never the value drawn from it; the first step sees N(0, 1). Categories are bins of the number.
``extended``
    A step also sees the value drawn before it and which step it is; categories have a softmax of their own; inactive
    steps are skipped, as if they were not there.

Either can act in one step instead of n (``one_step``, the paper's RL-DOC): one LSTM step puts out all distributions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlhpo_core.space.parameters import Categorical
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import AgentSettings

#: σ's range is left open by the paper; docs/decisions/0003 says how these were chosen. Actions span [-1, 1].
MIN_STD, INITIAL_STD, MAX_STD = 0.05, 0.6, 1.0


@dataclass(frozen=True)
class Rollout:
    """Episodes as they were played: all that PPO needs to judge them under a changed policy."""

    states: Tensor
    """What each step saw, (B, n, d); (1, n, d) where all episodes saw the same."""
    actions: Tensor
    """(B, n), in [-1, 1]; 0 where the step took no part."""
    active: Tensor
    """Which steps took part, (B, n) bool."""
    log_probs: Tensor
    """Log-likelihood of each action under the policy that played it, (B, n); 0 where inactive."""

    def actions_or_nan(self) -> NDArray[np.float64]:
        """Actions (B, n) as the search space takes them: NaN for the steps that took no part."""
        return np.asarray(torch.where(self.active, self.actions, torch.nan).double().numpy())


@dataclass(frozen=True)
class Policy:
    """The distributions of all steps of a batch of episodes; B is 1 where all episodes share them.

    Numbers: a Gaussian, clipped to [-1, 1], so that each end has a probability of its own. Taking the likelihood of the
    clipped action, not of the draw behind it, keeps the gradient unbiased with less variance (Fujita & Maeda, ICML
    2018).
    """

    mean: Tensor
    """(B, n), in (-1, 1)."""
    std: Tensor
    """(B, n)."""
    logits: Tensor
    """(B, n, K), -inf beyond a step's choices."""
    choices: Tensor
    """Choices per step, (n,); 0 for numbers."""

    def draw(self, noise: Tensor) -> Tensor:
        """Actions (B, n) from standard normal noise (B, n)."""
        numbers = (self.mean + self.std * noise).clamp(-1.0, 1.0)
        share = torch.special.ndtr(noise)
        index = (share[..., None] > self.logits.softmax(-1).cumsum(-1)[..., :-1]).sum(-1)
        index = torch.minimum(index, (self.choices - 1).clamp(min=0))
        bins = 2 * (index + 0.5) / self.choices.clamp(min=1) - 1
        return torch.where(self.choices > 0, bins, numbers)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-likelihood of each action, (B, n): a density inside (-1, 1), a probability at the ends and of choices."""
        z = (actions - self.mean) / self.std
        density = -0.5 * z**2 - self.std.log() - 0.5 * math.log(2 * math.pi)
        low = torch.special.log_ndtr((-1 - self.mean) / self.std)
        high = torch.special.log_ndtr((self.mean - 1) / self.std)
        numbers = torch.where(actions <= -1, low, torch.where(actions >= 1, high, density))
        index = ((actions + 1) / 2 * self.choices).floor().long()
        index = torch.minimum(index, (self.choices - 1).clamp(min=0)).clamp(min=0)
        log_p = self.logits.log_softmax(-1).expand(*actions.shape, -1)
        chosen = log_p.gather(-1, index[..., None])[..., 0]
        return torch.where(self.choices > 0, chosen, numbers)

    def entropy(self) -> Tensor:
        """Entropy of each step in nats, (B, n); of the Gaussian before clipping."""
        gaussian = self.std.log() + 0.5 * math.log(2 * math.pi * math.e)
        log_p = self.logits.log_softmax(-1)
        categorical = -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(-1)
        return torch.where(self.choices > 0, categorical, gaussian)

    def kl_from(self, saved: Policy) -> Tensor:
        """KL(saved ‖ self) of each step in nats, (B, n); of the Gaussians before clipping, an upper bound."""
        gaussian = (
            (self.std / saved.std).log() + (saved.std**2 + (saved.mean - self.mean) ** 2) / (2 * self.std**2) - 0.5
        )
        log_p, log_q = saved.logits.log_softmax(-1), self.logits.log_softmax(-1)
        both = log_p > -torch.inf
        categorical = torch.where(both, log_p.exp() * (log_p - log_q), torch.zeros_like(log_p)).sum(-1)
        return torch.where(self.choices > 0, categorical, gaussian)


class Agent(nn.Module):
    """The policy network over a search space's steps.

    Args:
        space: The order of its steps is that in which they are chosen.
        settings: Profile and size of the network.
        one_step: Whether one step of the LSTM puts out the distributions of all hyperparameters.
        seed: Of the initial weights.
    """

    def __init__(self, space: SearchSpace, settings: AgentSettings, one_step: bool, seed: int) -> None:
        super().__init__()
        self.space = space
        self.settings = settings
        self.one_step = one_step
        self.extended = settings.profile == "extended"
        n = len(space.steps)
        counts = [len(s.choices) if self.extended and isinstance(s, Categorical) else 0 for s in space.steps]
        self.width = 2 + max(counts)
        # With n steps the paper shares one output layer between them. Steps that know their position, and a single step
        # that decides all, have separate outputs.
        self.separate_outputs = self.extended or one_step
        inputs = 4 + n if self.extended else 2
        with torch.random.fork_rng(devices=[]):  # layers initialise themselves from the global generator
            self.input = nn.Linear(inputs, settings.nodes if self.extended else 2)
            self.lstm = nn.LSTM(self.input.out_features, settings.nodes, settings.layers, batch_first=True)
            self.output = nn.Linear(settings.nodes, self.width * (n if self.separate_outputs else 1))
        self.choices: Tensor
        self.register_buffer("choices", torch.tensor(counts), persistent=False)
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        """Uniform in ±1/√fan-in as torch does, but from the given seed and not from the global generator."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                fan_in = parameter.shape[-1] if parameter.dim() > 1 else self.settings.nodes
                parameter.uniform_(-1, 1, generator=generator).div_(math.sqrt(fan_in))
            # A start that favours nothing: all means near 0, all choices near equal.
            self.output.weight.mul_(0.1)
            self.output.bias.zero_()

    def first_state(self, count: int) -> Tensor:
        """s₁ = N(0, 1) for every episode, (count, d)."""
        state = torch.zeros(count, self.input.in_features)
        state[:, 1] = 1.0
        if self.extended:
            state[:, 4] = 1.0
        return state

    def _next_state(
        self, step: int, mean: Tensor, std: Tensor, action: Tensor, previous: Tensor, active: Tensor
    ) -> Tensor:
        """What step ``step`` (counted from 0) sees, (B, d); rows that skipped the step before keep what they saw."""
        if not self.extended:
            return torch.stack([mean, std], dim=1)
        position = torch.zeros(len(mean), len(self.choices))
        position[:, step] = 1.0
        seen = torch.stack([mean, std, action, torch.ones_like(mean)], dim=1)
        return torch.cat([torch.where(active[:, None], seen, previous[:, :4]), position], dim=1)

    def _policy(self, hidden: Tensor, steps: slice) -> Policy:
        """Distributions from the LSTM's output (B, steps, nodes), or (B, 1, nodes) if one step decides all."""
        raw = self.output(hidden)
        if self.separate_outputs:
            raw = raw.view(len(hidden), hidden.shape[1], -1, self.width)
            raw = raw[:, 0] if self.one_step else torch.diagonal(raw[:, :, steps], dim1=1, dim2=2).movedim(-1, 1)
        choices = self.choices[steps]
        logits = raw[..., 2:] if self.width > 2 else torch.zeros_like(raw[..., :1])
        beyond = (torch.arange(logits.shape[-1]) >= choices[:, None]) & (choices > 0)[:, None]
        span, offset = MAX_STD - MIN_STD, (INITIAL_STD - MIN_STD) / (MAX_STD - MIN_STD)
        return Policy(
            mean=raw[..., 0].tanh(),
            std=MIN_STD + span * torch.sigmoid(raw[..., 1] + math.log(offset / (1 - offset))),
            logits=logits.masked_fill(beyond, -torch.inf),
            choices=choices,
        )

    @torch.no_grad()
    def play(self, noise: Tensor, actions: Tensor | None = None) -> Rollout:
        """Play episodes.

        Args:
            noise: Standard normal, (B, n), from which actions are drawn.
            actions: To be taken instead of drawn ones, (B, n), in [-1, 1]; NaN where a configuration leaves a step out,
                which then takes no part.
        """
        rollout, _ = self.play_policy(noise, actions)
        return rollout

    @torch.no_grad()
    def play_policy(self, noise: Tensor, actions: Tensor | None = None) -> tuple[Rollout, Policy]:
        """``play``, and the distributions that the episodes met."""
        n = noise.shape[1]
        given = None if actions is None else actions.isfinite()
        # A state that knows no drawn value is the same in all episodes: one row serves them all.
        rows = len(noise) if self.extended else 1
        state = self.first_state(rows)
        if self.one_step:
            policy = self._policy(self.lstm(self.input(state[:, None]))[0], slice(0, n))
            drawn = policy.draw(noise) if actions is None else actions.nan_to_num()
            active = torch.from_numpy(self.space.active(drawn.double().numpy())) if self.extended else None
            return self._finish(state[:, None].expand(-1, n, -1), drawn, active, given, policy)
        empty = torch.zeros(self.settings.layers, rows, self.settings.nodes)
        memory = (empty, empty)
        states, played, taking_part, policies = [], torch.zeros_like(noise), [], []
        for step in range(n):
            policy, memory_after = self._step(state, memory, step)
            drawn = policy.draw(noise[:, step : step + 1])[:, 0] if actions is None else actions[:, step].nan_to_num()
            active = torch.ones(len(noise), dtype=torch.bool) if given is None else given[:, step]
            if self.extended:
                active = active & torch.from_numpy(self.space.active_step(step, played[:, :step].double().numpy()))
                memory_after = _where_rows(active, memory_after, memory)
            played[:, step] = torch.where(active, drawn, torch.zeros_like(drawn))
            states.append(state)
            taking_part.append(active)
            policies.append(policy)
            if step + 1 < n:
                mean, std = policy.mean[:, 0], policy.std[:, 0]
                state = self._next_state(step + 1, mean, std, played[:, step], state, active)
            memory = memory_after
        whole = Policy(
            mean=torch.cat([p.mean for p in policies], dim=1),
            std=torch.cat([p.std for p in policies], dim=1),
            logits=torch.cat([p.logits for p in policies], dim=1),
            choices=self.choices,
        )
        return self._finish(torch.stack(states, dim=1), played, torch.stack(taking_part, dim=1), given, whole)

    def _step(self, state: Tensor, memory: tuple[Tensor, Tensor], step: int) -> tuple[Policy, tuple[Tensor, Tensor]]:
        hidden, memory_after = self.lstm(self.input(state[:, None]), memory)
        return self._policy(hidden, slice(step, step + 1)), memory_after

    def _finish(
        self, states: Tensor, actions: Tensor, active: Tensor | None, given: Tensor | None, policy: Policy
    ) -> tuple[Rollout, Policy]:
        part = torch.ones_like(actions, dtype=torch.bool)
        for mask in (active, given):
            part = part if mask is None else part & mask
        actions = torch.where(part, actions, torch.zeros_like(actions))
        log_probs = torch.where(part, policy.log_prob(actions), torch.zeros_like(actions))
        return Rollout(states, actions, part, log_probs), policy

    def forward(self, rollout: Rollout) -> Policy:
        """The distributions that this agent would put out in the states of a rollout, with gradients."""
        n = rollout.actions.shape[1]
        if self.one_step:
            return self._policy(self.lstm(self.input(rollout.states[:, :1]))[0], slice(0, n))
        if not self.extended or bool(rollout.active.all()):
            return self._policy(self.lstm(self.input(rollout.states))[0], slice(0, n))
        # Skipped steps must not touch the memory: close the gaps, run the LSTM once, and open them again.
        order = torch.argsort((~rollout.active).int(), dim=1, stable=True)
        closed = rollout.states.gather(1, order[..., None].expand_as(rollout.states))
        hidden, _ = self.lstm(self.input(closed))
        back = torch.argsort(order, dim=1)[..., None].expand_as(hidden)
        return self._policy(hidden.gather(1, back), slice(0, n))


def _where_rows(rows: Tensor, chosen: tuple[Tensor, Tensor], otherwise: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    mask = rows[None, :, None]
    return torch.where(mask, chosen[0], otherwise[0]), torch.where(mask, chosen[1], otherwise[1])


def masked_mean(values: Tensor, active: Tensor) -> Tensor:
    """Mean over the steps that took part; values (B, n) or (1, n), active (B, n)."""
    return (values * active).sum() / active.sum().clamp(min=1)


def divergence(agent: Agent, saved: Rollout, saved_policy: Policy) -> float:
    """d(π_θ̃, π_θ): KL divergence of the agent from a saved policy, in nats per step (paper, algorithm 1).

    The saved policy's episodes are played again with the same actions, so that by the chain rule the mean over episodes
    estimates the divergence between whole episodes, here divided by their number of steps.

    Args:
        agent: The policy π_θ as it is now.
        saved: Episodes that the saved policy π_θ̃ played.
        saved_policy: The distributions that it met in them.
    """
    actions = torch.where(saved.active, saved.actions, torch.full_like(saved.actions, torch.nan))
    _, policy = agent.play_policy(torch.zeros_like(saved.actions), actions)
    return float(masked_mean(policy.kl_from(saved_policy), saved.active))
