"""From a prior's search space to a study's: by the names of hyperparameters and their ranges, where that is sound.

It is sound if all that the prior knows of is there: every hyperparameter of the prior's space is tuned in the study or
fixed in it, with values that the prior has seen. What the study tunes beyond that, the prior says nothing about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from rlhpo_core.arrays import Floats
from rlhpo_core.errors import UserError
from rlhpo_core.space.parameters import Bool, Categorical, Fixed, Tunable, describe_domain
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import AgentSettings
from rlhpo_core.trial import Config
from rlhpo_core.tuner.agent import Agent, Rollout, masked_mean
from rlhpo_core.tuner.gaussian_process import Expected
from rlhpo_core.tuner.prior import Prior

_Column = Callable[[Floats], Floats]

#: Behaviour cloning of a policy in another space: episodes drawn, the least that must lie in the study's space, steps
#: of Adam and their learning rate.
EPISODES, LEAST, STEPS, LEARNING_RATE = 1024, 64, 150, 0.01
#: How far a range may reach beyond the prior's, as a share of the width of that: rounding, and 0 where the prior's log
#: scale begins just above it.
_SLACK = 1e-5


def expectation(prior: Prior, space: SearchSpace) -> Callable[[Floats], Expected]:
    """The prior's view of configurations, as a function of their features (B, d) in the study's space.

    Raises: UserError, naming the hyperparameter, if the prior does not fit the space.
    """
    if space.steps == prior.space.steps:
        return prior.expect
    columns = [_column(step, space, prior.card.name) for step in prior.space.steps]

    def expect(features: Floats) -> Expected:
        codes = space.codes_of_features(features)
        translated = prior.space.masked(np.stack([column(codes) for column in columns], axis=1))
        return prior.expect(prior.space.features_of_codes(translated))

    return expect


def fits(prior: Prior, space: SearchSpace) -> bool:
    """Whether the prior says something of this space."""
    try:
        expectation(prior, space)
    except UserError:
        return False
    return True


def _column(step: Tunable, space: SearchSpace, name: str) -> _Column:
    """From the study's codes (B, n) to the codes (B,) of one of the prior's steps."""
    at = {tuned.name: index for index, tuned in enumerate(space.steps)}
    here = next((parameter for parameter in space.parameters if parameter.name == step.name), None)
    if here is None:
        raise UserError(
            f"prior: {name} knows of {step.name}, which this space lacks; tune it ({describe_domain(step)}), fix it "
            "({type: fixed, value: …}), or leave the prior out (prior: none)"
        )
    misfit = UserError(
        f"prior: {step.name} is {describe_domain(here)} here, but {name} has seen {describe_domain(step)}; stay within "
        "that, or leave the prior out (prior: none)"
    )
    if isinstance(here, Fixed):
        try:
            code = step.code(here.value)
        except ValueError as error:
            raise misfit from error
        return lambda codes: np.full(len(codes), code)
    index = at[step.name]
    if isinstance(step, Categorical | Bool) != isinstance(here, Categorical | Bool):
        raise misfit
    if isinstance(here, Categorical | Bool):
        try:
            table = np.array([step.code(value) for value in here.values])
        except ValueError as error:
            raise misfit from error
        return lambda codes: np.where(
            np.isnan(codes[:, index]), np.nan, table[np.nan_to_num(codes[:, index]).astype(int)]
        )
    assert not isinstance(step, Categorical | Bool)
    slack = _SLACK * (step.high - step.low)
    if here.low < step.low - slack or here.high > step.high + slack:
        raise misfit
    low, high = step.low, step.high
    return lambda codes: np.clip(codes[:, index], low, high)


def starting_agent(prior: Prior, space: SearchSpace, settings: AgentSettings, one_step: bool, seed: int) -> Agent:
    """The policy that a study with a prior starts from.

    It is the prior's policy if space and settings are the same, else an agent that imitates it (behaviour cloning). If
    fewer than LEAST of EPISODES draws of the policy lie in the study's space, or if the prior has none, it is an
    untrained agent.

    Args:
        prior: Whose policy is imitated.
        space: The study's.
        settings: Of the study's agent.
        one_step: As in ``Agent``.
        seed: Of the initial weights and of the draws.
    """
    agent = Agent(space, settings, one_step, seed)
    if not prior.has_policy:
        return agent
    if space.steps == prior.space.steps and settings == prior.settings and not one_step:
        agent.load_state_dict(prior.agent().state_dict())
        return agent
    noise = torch.randn((EPISODES, len(prior.space.steps)), generator=torch.Generator().manual_seed(seed))
    drawn = prior.space.decode(prior.agent().play(noise).actions_or_nan())
    actions = torch.from_numpy(_translated(drawn, prior, space, seed)).float()
    if len(actions) < LEAST:
        return agent
    rollout = agent.play(torch.zeros(actions.shape), actions)
    _imitate(agent, rollout)
    return agent


def portfolio(prior: Prior, space: SearchSpace, seed: int, ignoring_time: bool) -> Floats:
    """Actions (B, n) in a study's space of the configurations of the prior's portfolio that lie in it.

    Args:
        prior: Whose portfolio it is.
        space: The study's space.
        seed: Of the values of hyperparameters that the prior does not know.
        ignoring_time: Whether it does not matter to the study how long a training run takes.
    """
    configs = prior.portfolio_ignoring_time if ignoring_time else prior.portfolio
    return _translated(configs, prior, space, seed)


def _translated(configs: Sequence[Config], prior: Prior, space: SearchSpace, seed: int) -> Floats:
    """Actions (B, n) in the study's space of those of the prior's configurations that lie in it.

    Hyperparameters that the prior does not know are drawn uniformly.
    """
    free = np.random.default_rng(seed).uniform(-1, 1, (len(configs), len(space.steps)))
    rows = []
    for config, anywhere in zip(configs, space.decode(free), strict=True):
        known = {parameter.name for parameter in prior.space.parameters}
        whole = {name: value for name, value in anywhere.items() if name not in known} | config
        whole |= {p.name: p.value for p in space.parameters if isinstance(p, Fixed) and p.name in whole}
        try:
            rows.append(space.encode([whole])[0])
        except ValueError:
            continue
    # The agent learns from actions in single precision: what is decoded must be the very same.
    return np.array(rows, dtype=np.float32).astype(np.float64).reshape(len(rows), len(space.steps))


def _imitate(agent: Agent, rollout: Rollout) -> None:
    """Behaviour cloning, in place: maximise the likelihood of the episodes' actions."""
    optimizer = torch.optim.Adam(agent.parameters(), lr=LEARNING_RATE)
    for _ in range(STEPS):
        loss = -masked_mean(agent(rollout).log_prob(rollout.actions), rollout.active)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
