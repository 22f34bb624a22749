from __future__ import annotations

import pytest
import torch

from rlhpo_core.space.search_space import SearchSpace, load_space
from rlhpo_core.study.tuner_settings import AgentSettings, PPOSettings
from rlhpo_core.tuner import ppo
from rlhpo_core.tuner.agent import Agent
from tests.helpers.studies import RICH_SPACE

LINE = load_space("x: {type: float, low: 0, high: 1}\ny: {type: float, low: 0, high: 1}")


def learn(agent: Agent, reward, updates: int, seed: int = 0) -> float:  # type: ignore[no-untyped-def]
    """Mean reward of the last batch."""
    optimizer = ppo.make_optimizer(agent, PPOSettings())
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.zeros(64)
    for _ in range(updates):
        rollout = agent.play(torch.randn(64, len(agent.space.steps), generator=generator))
        rewards = reward(rollout)
        ppo.update(agent, optimizer, rollout, (rewards - rewards.mean()) / rewards.std(), PPOSettings())
    return float(rewards.mean())


@pytest.mark.parametrize("profile", ["paper", "extended"])
@pytest.mark.parametrize("one_step", [False, True])
def test_ppo_finds_the_peak(profile, one_step: bool) -> None:  # type: ignore[no-untyped-def]
    agent = Agent(LINE, AgentSettings(profile=profile), one_step, seed=0)
    target = torch.tensor([0.5, 0.5])
    assert learn(agent, lambda r: -((r.actions - target) ** 2).sum(1), 80) > -0.15


def test_the_extended_agent_learns_a_choice_and_what_depends_on_it() -> None:
    space: SearchSpace = load_space(
        "kind: {type: categorical, choices: [a, b, c]}\n"
        "x: {type: float, low: 0, high: 1, when: {kind: b}}\n"
        "y: {type: float, low: 0, high: 1, when: {kind: c}}\n"
    )
    agent = Agent(space, AgentSettings(profile="extended"), one_step=False, seed=0)
    is_b = lambda r: r.active[:, 1].float()  # noqa: E731
    reward = learn(agent, lambda r: is_b(r) * (1 - (r.actions[:, 1] - 0.6).abs()), 100)
    assert reward > 0.7


def test_an_update_with_equal_advantages_of_zero_only_widens() -> None:
    agent = Agent(RICH_SPACE, AgentSettings(), one_step=False, seed=0)
    optimizer = ppo.make_optimizer(agent, PPOSettings())
    rollout = agent.play(torch.randn(16, len(RICH_SPACE.steps), generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        before = agent(rollout).entropy().mean()
    after = ppo.update(agent, optimizer, rollout, torch.zeros(16), PPOSettings())
    assert after >= float(before)


def test_the_clip_bounds_how_far_one_batch_moves_the_policy() -> None:
    def moved(clip: float) -> float:
        agent = Agent(LINE, AgentSettings(profile="extended"), one_step=False, seed=0)
        settings = PPOSettings(clip=clip, epochs=30, entropy_bonus=0.0)
        rollout = agent.play(torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))
        ppo.update(agent, ppo.make_optimizer(agent, settings), rollout, rollout.actions[:, 0], settings)
        with torch.no_grad():
            return float((agent(rollout).log_prob(rollout.actions) - rollout.log_probs).abs().mean())

    assert moved(0.05) < moved(0.5)


def test_actions_that_the_policy_would_hardly_take_leave_it_finite() -> None:
    """Screened trials may lie forty deviations from a narrow policy's mean, where ratios overflow."""
    agent = Agent(LINE, AgentSettings(profile="extended"), one_step=False, seed=0)
    with torch.no_grad():
        agent.output.bias.view(2, -1)[:, 0] = 3.0
        agent.output.bias.view(2, -1)[:, 1] = -20.0
    actions = torch.tensor([[-0.99, -0.99], [0.99, 0.99], [-1.0, 0.5], [1.0, 1.0]])
    rollout = agent.play(torch.zeros(4, 2), actions)
    assert rollout.log_probs.min() < -100
    settings = PPOSettings(learning_rate=0.5, epochs=20)
    ppo.update(agent, ppo.make_optimizer(agent, settings), rollout, torch.tensor([1.0, -1.0, 1.0, -1.0]), settings)
    assert all(parameter.isfinite().all() for parameter in agent.parameters())
