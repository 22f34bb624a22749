"""A prior in the space of another study."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhpo_core.errors import UserError
from rlhpo_core.priors.store import builtin_names, load_prior
from rlhpo_core.space.search_space import SearchSpace, builtin_space, load_space
from rlhpo_core.study.tuner_settings import AgentSettings, TunerSettings
from rlhpo_core.tuner import prior_mapping
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.state import initial_state
from tests.helpers.priors import SPACE, height, taught_prior
from tests.helpers.studies import after_rounds

SETTINGS = TunerSettings.model_validate({"trials_per_round": 3, "screening": {"candidates": 64}})


def test_a_narrower_space_in_another_order_is_mapped() -> None:
    prior = taught_prior()
    narrow = load_space("""
x: {type: float, low: 0.5, high: 0.9}
z: {type: int, low: 1, high: 5}
kind: {type: fixed, value: a}
y: {type: float, low: 0.01, high: 0.1, log: true}
""")
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    theirs = [{name: c[name] for name in ("kind", "x", "y")} for c in narrow.decode(actions)]
    found = prior_mapping.expectation(prior, narrow)(narrow.features_of_actions(actions))
    wanted = prior.expect(SPACE.features(theirs))
    np.testing.assert_allclose(found.mean, wanted.mean, atol=1e-5, rtol=1e-4)
    state = after_rounds(initial_state("s", 0, narrow, "maximize", SETTINGS, prior), height, 2)
    assert len(state.history) == 6
    carried = [config for config in prior.portfolio if config["kind"] == "a" and 0.5 <= float(config["x"]) <= 0.9]
    assert len(prior_mapping.portfolio(prior, narrow, 0, ignoring_time=False)) <= len(carried)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: {type: float, low: 0.0, high: 1.0}", "knows of kind, which this space lacks"),
        ("kind: {type: fixed, value: c}\nx: {type: float, low: 0.0, high: 1.0}", "kind is fixed at 'c' here"),
        ("kind: {type: fixed, value: b}\nx: {type: float, low: 0.0, high: 2.0}", r"x is float in \[0.0, 2.0\] here"),
    ],
)
def test_a_space_that_the_prior_does_not_know_is_refused(text: str, message: str) -> None:
    prior = taught_prior()
    with pytest.raises(UserError, match=message):
        prior_mapping.expectation(prior, load_space(text))


@pytest.mark.parametrize("name", builtin_names())
def test_a_prior_that_comes_with_rlhpo_fits_the_space_of_its_name(name: str) -> None:
    algorithm = name.removesuffix("-log-loss") if name.endswith("-log-loss") else name.rpartition("-")[0]
    shipped, space = load_prior(name), builtin_space({"xgboost": "xgboost-wide"}.get(algorithm, algorithm))
    assert name == f"{algorithm}-{shipped.card.objective.replace('_', '-')}"
    assert prior_mapping.fits(shipped, space)
    assert not prior_mapping.fits(shipped, builtin_space("xgboost-paper"))
    assert shipped.card.source
    assert 3 <= len(shipped.portfolio) <= 5
    assert len(prior_mapping.portfolio(shipped, space, 0, False)) == len(shipped.portfolio)
    prior_mapping.starting_agent(shipped, space, AgentSettings(), one_step=False, seed=0)


def test_a_range_from_zero_is_within_a_log_scale_that_begins_just_above_it() -> None:
    shipped = load_prior("lightgbm-auc")
    definitions = builtin_space("lightgbm").model_dump()
    none = {**definitions, "reg_alpha": {"type": "float", "low": 0.0, "high": 10.0}}
    assert prior_mapping.fits(shipped, SearchSpace.model_validate(none))
    more = {**definitions, "learning_rate": {"type": "float", "low": 0.0, "high": 1.0}}
    assert not prior_mapping.fits(shipped, SearchSpace.model_validate(more)), "a rate of 0 is not one of 0.001"


def mean_height(agent: Agent, space: SearchSpace) -> float:
    """Of what the agent draws."""
    noise = torch.randn(500, len(space.steps), generator=torch.Generator().manual_seed(1))
    return float(np.mean([height(config) for config in space.decode(agent.play(noise).actions_or_nan())]))


@pytest.mark.parametrize("one_step", [False, True])
def test_an_agent_of_another_shape_imitates_the_priors_policy(one_step: bool) -> None:
    prior, settings = taught_prior(), AgentSettings(profile="extended", layers=1, nodes=16)
    theirs = mean_height(prior.agent(), SPACE)
    other = SPACE.reordered(["x", "y", "kind"])
    untrained = mean_height(Agent(other, settings, one_step, seed=0), other)
    started = mean_height(prior_mapping.starting_agent(prior, other, settings, one_step, seed=0), other)
    assert started > untrained + 0.5 * (theirs - untrained)


def test_the_priors_own_agent_is_taken_as_it_is() -> None:
    prior = taught_prior()
    agent = prior_mapping.starting_agent(prior, SPACE, prior.settings, one_step=False, seed=5)
    for name, tensor in prior.agent().state_dict().items():
        assert torch.equal(agent.state_dict()[name], tensor)
