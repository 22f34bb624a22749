from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from rlhpo_core.space.search_space import SearchSpace, builtin_space
from rlhpo_core.study.tuner_settings import AgentSettings
from rlhpo_core.tuner.agent import MAX_STD, MIN_STD, Agent, Policy, divergence
from tests.helpers.studies import RICH_SPACE

PAPER, EXTENDED = AgentSettings(profile="paper"), AgentSettings(profile="extended")
ALL = [(settings, one_step) for settings in (PAPER, EXTENDED) for one_step in (False, True)]


def noise(count: int, space: SearchSpace, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, len(space.steps), generator=torch.Generator().manual_seed(seed))


def numbers(mean: list[float], std: list[float]) -> Policy:
    shape = (1, len(mean))
    return Policy(
        torch.tensor([mean]), torch.tensor([std]), torch.zeros(*shape, 1), torch.zeros(len(mean), dtype=torch.long)
    )


def test_the_paper_profile_has_the_papers_shape() -> None:
    agent = Agent(builtin_space("xgboost-paper"), PAPER, one_step=False, seed=0)
    assert (agent.lstm.num_layers, agent.lstm.hidden_size) == (3, 35)
    assert (agent.input.out_features, agent.output.out_features) == (2, 2)


@pytest.mark.parametrize(("settings", "one_step"), ALL)
def test_a_rollout_scored_again_by_the_same_agent_has_the_same_likelihoods(
    settings: AgentSettings, one_step: bool
) -> None:
    agent = Agent(RICH_SPACE, settings, one_step, seed=3)
    rollout = agent.play(noise(64, RICH_SPACE))
    again = torch.where(rollout.active, agent(rollout).log_prob(rollout.actions), torch.zeros(()))
    torch.testing.assert_close(again, rollout.log_probs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("settings", "one_step"), ALL)
def test_given_actions_are_played_as_they_are(settings: AgentSettings, one_step: bool) -> None:
    agent = Agent(RICH_SPACE, settings, one_step, seed=3)
    drawn = agent.play(noise(32, RICH_SPACE))
    given = torch.where(drawn.active, drawn.actions, torch.nan)
    again = agent.play(torch.zeros(32, len(RICH_SPACE.steps)), given)
    assert torch.equal(again.actions, drawn.actions)
    assert torch.equal(again.active, drawn.active)
    torch.testing.assert_close(again.log_probs, drawn.log_probs, atol=2e-6, rtol=1e-5)


def test_only_the_extended_profile_skips_inactive_steps() -> None:
    extended = Agent(RICH_SPACE, EXTENDED, one_step=False, seed=0).play(noise(64, RICH_SPACE))
    active = RICH_SPACE.active(extended.actions.double().numpy())
    assert (extended.active.numpy() == active).all()
    assert not active.all()
    assert Agent(RICH_SPACE, PAPER, one_step=False, seed=0).play(noise(64, RICH_SPACE)).active.all()


def test_only_the_extended_profile_sees_the_drawn_value() -> None:
    def last_means(settings: AgentSettings) -> torch.Tensor:
        agent = Agent(builtin_space("xgboost-paper"), settings, one_step=False, seed=0)
        _, policy = agent.play_policy(noise(16, agent.space))
        return policy.mean[:, -1]

    assert len(last_means(PAPER)) == 1
    assert last_means(EXTENDED).unique().numel() > 1


def test_a_skipped_step_leaves_no_trace_in_the_memory() -> None:
    """Two episodes that differ only in what an inactive step would have drawn go on alike."""
    agent = Agent(RICH_SPACE, EXTENDED, one_step=False, seed=0)
    names = [step.name for step in RICH_SPACE.steps]
    z = noise(1, RICH_SPACE).repeat(2, 1)
    z[:, names.index("booster")] = 3.0  # the last choice: gblinear
    z[1, names.index("eta")] = 2.5
    rollout, policy = agent.play_policy(z)
    assert not rollout.active[:, names.index("eta")].any()
    torch.testing.assert_close(policy.mean[0, -1], policy.mean[1, -1], atol=1e-6, rtol=1e-6)


def test_clipped_gaussian_likelihoods() -> None:
    policy = numbers([0.3, 0.3, 0.3], [0.5, 0.5, 0.5])
    found = policy.log_prob(torch.tensor([[-1.0, 0.1, 1.0]]))[0]
    gaussian = stats.norm(0.3, 0.5)
    expected = [gaussian.logcdf(-1), gaussian.logpdf(0.1), gaussian.logsf(1)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_categorical_draws_follow_their_probabilities() -> None:
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    policy = Policy(
        torch.zeros(1, 1), torch.ones(1, 1), probabilities.log().expand(1, 1, 3), torch.tensor([3], dtype=torch.long)
    )
    draws = policy.draw(torch.randn(20000, 1, generator=torch.Generator().manual_seed(0)))
    for index, probability in enumerate(probabilities):
        bin_middle = 2 * (index + 0.5) / 3 - 1
        hits = torch.isclose(draws, torch.tensor(bin_middle)).float().mean()
        assert abs(float(hits - probability)) < 0.02
        assert math.isclose(policy.log_prob(torch.tensor([[bin_middle]])).exp().item(), probability, rel_tol=1e-5)
    assert math.isclose(policy.entropy().item(), stats.entropy(probabilities.numpy()), rel_tol=1e-5)


def test_divergence_is_zero_to_itself_and_exact_for_gaussians() -> None:
    agent = Agent(RICH_SPACE, EXTENDED, one_step=False, seed=0)
    saved, policy = agent.play_policy(noise(32, RICH_SPACE))
    assert divergence(agent, saved, policy) == pytest.approx(0.0, abs=1e-6)
    a, b = numbers([0.1], [0.4]), numbers([0.5], [0.2])
    p, q = torch.distributions.Normal(0.1, 0.4), torch.distributions.Normal(0.5, 0.2)
    assert b.kl_from(a).item() == pytest.approx(torch.distributions.kl_divergence(p, q).item(), rel=1e-5)


@pytest.mark.parametrize(("settings", "one_step"), ALL)
def test_distributions_stay_in_their_ranges(settings: AgentSettings, one_step: bool) -> None:
    agent = Agent(RICH_SPACE, settings, one_step, seed=1)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.mul_(30)
    rollout, policy = agent.play_policy(noise(64, RICH_SPACE))
    assert policy.mean.abs().max() <= 1
    assert policy.std.min() >= MIN_STD
    assert policy.std.max() <= MAX_STD
    assert rollout.actions.abs().max() <= 1
    assert rollout.log_probs.isfinite().all()


def test_the_start_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = Agent(RICH_SPACE, PAPER, one_step=False, seed=7).state_dict()
    torch.manual_seed(2)
    again = Agent(RICH_SPACE, PAPER, one_step=False, seed=7).state_dict()
    other = Agent(RICH_SPACE, PAPER, one_step=False, seed=8).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lstm.weight_ih_l0"], other["lstm.weight_ih_l0"])
