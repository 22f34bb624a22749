"""Priors: learnt from finished studies, kept in a file, carried over to a study's space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhpo_core.errors import UserError
from rlhpo_core.priors import portfolio
from rlhpo_core.priors.store import builtin_names, load_prior
from rlhpo_core.priors.training import FinishedStudy, PriorSettings, train
from rlhpo_core.space.search_space import SearchSpace, builtin_space, load_space
from rlhpo_core.study.tuner_settings import AgentSettings, TunerSettings
from rlhpo_core.trial import Config, Proposal, Trial, TrialStatus
from rlhpo_core.tuner import algorithm, prior_mapping, state_file
from rlhpo_core.tuner.prior import Prior, from_bytes
from tests.helpers.studies import after_rounds

SPACE = load_space("""
kind: {type: categorical, choices: [a, b]}
x: {type: float, low: 0.0, high: 1.0}
y: {type: float, low: 0.001, high: 1.0, log: true, when: {kind: a}}
""")
SETTINGS = TunerSettings.model_validate({"trials_per_round": 3, "screening": {"candidates": 64}})


def height(config: Config, peak: float = 0.7) -> float:
    """Best at kind a and x near the peak; studies differ in where that is."""
    return (1.0 if config["kind"] == "a" else 0.0) - 2 * abs(float(config["x"]) - peak)


def finished(peak: float, seed: int, count: int = 60, space: SearchSpace = SPACE) -> FinishedStudy:
    rng = np.random.default_rng(seed)
    configs = space.decode(rng.uniform(-1, 1, (count, len(space.steps))))
    return FinishedStudy(f"study-{seed}", configs, np.array([height(config, peak) for config in configs]))


@pytest.fixture(scope="module")
def prior() -> Prior:
    studies = [finished(peak, seed) for seed, peak in enumerate((0.6, 0.65, 0.7, 0.75, 0.8))]
    settings = PriorSettings(width=32, features=8, steps=400, policy_updates=30, episodes=64)
    return train("test", SPACE, studies, "height", "made up by this test", settings)


def test_the_first_proposals_are_where_earlier_studies_were_good(prior: Prior) -> None:
    taught = algorithm.initial_state("s", 0, SPACE, "maximize", SETTINGS, prior)
    fresh = algorithm.initial_state("s", 0, SPACE, "maximize", SETTINGS)
    best = max(height(proposal.config) for proposal in algorithm.propose(taught))
    assert best > 0.6
    assert best > max(height(proposal.config) for proposal in algorithm.propose(fresh))
    assert all(proposal.predicted is None for proposal in algorithm.propose(taught)), "no trial has told the scale yet"


def test_a_study_begins_with_the_portfolio_whatever_its_rounds(prior: Prior) -> None:
    first = list(prior.portfolio)
    assert 1 < len(first) <= 5
    state = algorithm.initial_state("s", 0, SPACE, "maximize", SETTINGS, prior)
    whole = [trial.config for trial in after_rounds(state, height, 2).history.trials]
    np.testing.assert_allclose(SPACE.encode(whole[: len(first)]), SPACE.encode(first), atol=1e-5)
    assert len({str(config) for config in whole}) == 6, "what is screened beside it is something else"
    assert prior.regardless == prior.portfolio, "these studies did not tell how long their trials took"
    bare = replace(prior, portfolio=())
    assert algorithm.propose(algorithm.initial_state("s", 0, SPACE, "maximize", SETTINGS, bare))[0].config != whole[0]


def test_a_study_with_a_prior_goes_on_bit_for_bit(prior: Prior) -> None:
    whole = after_rounds(algorithm.initial_state("s", 0, SPACE, "maximize", SETTINGS, prior), height, 3)
    half = after_rounds(algorithm.initial_state("s", 0, SPACE, "maximize", SETTINGS, prior), height, 1)
    restored = after_rounds(state_file.from_bytes(state_file.to_bytes(half)), height, 2)
    assert state_file.to_bytes(restored) == state_file.to_bytes(whole)


def test_a_file_holds_all_of_it(prior: Prior, tmp_path: Path) -> None:
    (tmp_path / "p.safetensors").write_bytes(prior.to_bytes())
    again = load_prior(str(tmp_path / "p.safetensors"))
    assert again.card == prior.card
    assert (again.portfolio, again.regardless) == (prior.portfolio, prior.regardless)
    x = torch.rand(5, SPACE.feature_count, dtype=torch.float64)
    assert torch.equal(again.expect(x).mean, prior.expect(x).mean)


# -- costs -------------------------------------------------------------------------------------------------------------


def cost(config: Config) -> float:
    """Of a training, in units of a usual one's. It says nothing of how good a configuration is."""
    return (float(config["y"]) / 0.03) ** 2 if config["kind"] == "a" else 1.0


def timed(peak: float, seed: int) -> FinishedStudy:
    """All trainings of a study take longer than those of the study before."""
    study = finished(peak, seed)
    return replace(study, seconds=10.0**seed * np.array([cost(config) for config in study.configs]))


@pytest.fixture(scope="module")
def timed_prior() -> Prior:
    studies = [timed(peak, seed) for seed, peak in enumerate((0.6, 0.65, 0.7, 0.75, 0.8))]
    settings = PriorSettings(width=32, features=8, steps=1000, policy_updates=30, episodes=64)
    return train("timed", SPACE, studies, "height", settings=settings)


def trials_of_four_rounds(
    prior: Prior, seconds: float, settings: TunerSettings = SETTINGS, first: Sequence[Proposal] = ()
) -> list[Trial]:
    """Of rounds of three, if a usual training takes so many seconds. ``first`` takes the place of the first round."""
    state = algorithm.initial_state("s", 0, SPACE, "maximize", settings, replace(prior, portfolio=(), regardless=()))
    for _ in range(4):
        trials = [
            Trial(
                proposal=proposal,
                status=TrialStatus.COMPLETE,
                value=height(proposal.config),
                seconds=seconds * cost(proposal.config),
            )
            for proposal in (first if first and state.round == 0 else algorithm.propose(state))
        ]
        state = algorithm.update_policy(algorithm.fit_reward_model(algorithm.observe(state, trials)))
    return list(state.history.trials)


def test_a_prior_knows_how_long_trainings_take_beside_a_usual_one(timed_prior: Prior, prior: Prior) -> None:
    configs = SPACE.decode(np.random.default_rng(9).uniform(-1, 1, (400, 3)))
    features = torch.from_numpy(SPACE.features(configs))
    found = from_bytes(timed_prior.to_bytes()).expect(features).cost
    assert found is not None
    wanted = np.log([cost(config) for config in configs])
    assert np.abs(found.log().numpy() - wanted).mean() < 0.1 * np.abs(wanted).max()
    assert found.median().item() == pytest.approx(1.0, abs=0.3)
    assert prior.expect(features).cost is None, "these studies did not tell"


def test_what_takes_long_is_tried_less(timed_prior: Prior) -> None:
    tolerances = {"none": None, "some": 30.0, "little": 1.0}
    spent = {}
    for name, tolerance in tolerances.items():
        trials = trials_of_four_rounds(timed_prior, 60.0, SETTINGS.model_copy(update={"cost_tolerance": tolerance}))
        spent[name] = sum(cost(trial.config) for trial in trials[3:])
    assert spent["little"] < spent["some"] < spent["none"]
    spared, regardless = timed_prior.portfolio, timed_prior.regardless
    assert max(map(cost, spared)) < portfolio.TOLERANCE
    assert sum(map(cost, spared)) < sum(map(cost, regardless))
    anyway = algorithm.initial_state(
        "s", 0, SPACE, "maximize", SETTINGS.model_copy(update={"cost_tolerance": None}), timed_prior
    )
    first = [proposal.config for proposal in algorithm.propose(anyway)]
    np.testing.assert_allclose(SPACE.encode(first), SPACE.encode(regardless[: len(first)]), atol=1e-5)


def test_nobody_waits_for_what_takes_a_moment(timed_prior: Prior) -> None:
    """No trial tells the first round of it, which heeds costs: both studies begin with the same one here."""
    anyway = SETTINGS.model_copy(update={"cost_tolerance": None})
    first = [trial.proposal for trial in trials_of_four_rounds(timed_prior, 60.0)[:3]]

    def proposals(seconds: float, settings: TunerSettings) -> list[Proposal]:
        return [trial.proposal for trial in trials_of_four_rounds(timed_prior, seconds, settings, first)]

    assert proposals(1e-4, SETTINGS) == proposals(1e-4, anyway)
    assert proposals(60.0, SETTINGS) != proposals(60.0, anyway), "else the comparison would say nothing"


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_what_is_no_prior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an rlhpo prior"):
        from_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="cannot read the prior"):
        load_prior(str(tmp_path / "missing.safetensors"))


def test_a_narrower_space_in_another_order_is_mapped(prior: Prior) -> None:
    own = load_space("""
x: {type: float, low: 0.5, high: 0.9}
z: {type: int, low: 1, high: 5}
kind: {type: fixed, value: a}
y: {type: float, low: 0.01, high: 0.1, log: true}
""")
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    theirs = [{name: c[name] for name in ("kind", "x", "y")} for c in own.decode(actions)]
    found = prior_mapping.expectation(prior, own)(torch.from_numpy(own.features_of_actions(actions)))
    wanted = prior.expect(torch.from_numpy(SPACE.features(theirs)))
    torch.testing.assert_close(found.mean, wanted.mean, atol=1e-5, rtol=1e-4)
    state = after_rounds(algorithm.initial_state("s", 0, own, "maximize", SETTINGS, prior), height, 2)
    assert len(state.history) == 6
    carried = [config for config in prior.portfolio if config["kind"] == "a" and 0.5 <= float(config["x"]) <= 0.9]
    assert len(prior_mapping.portfolio(prior, own, 0, regardless=False)) <= len(carried)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: {type: float, low: 0.0, high: 1.0}", "knows of kind, which this space lacks"),
        ("kind: {type: fixed, value: c}\nx: {type: float, low: 0.0, high: 1.0}", "kind is fixed at 'c' here"),
        ("kind: {type: fixed, value: b}\nx: {type: float, low: 0.0, high: 2.0}", r"x is float in \[0.0, 2.0\] here"),
    ],
)
def test_a_space_that_the_prior_does_not_know_is_refused(prior: Prior, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prior_mapping.expectation(prior, load_space(text))


def test_too_little_to_learn_from_is_refused() -> None:
    with pytest.raises(UserError, match="two or more"):
        train("one", SPACE, [finished(0.5, 0)], "height")
    with pytest.raises(UserError, match="study-0: 4 trials"):
        train("few", SPACE, [finished(0.5, 0, 4), finished(0.5, 1)], "height")


@pytest.mark.parametrize("name", builtin_names())
def test_a_prior_that_comes_with_rlhpo_fits_the_space_of_its_name(name: str) -> None:
    shipped, space = load_prior(name), builtin_space(name)
    assert prior_mapping.fits(shipped, space)
    assert not prior_mapping.fits(shipped, builtin_space("xgboost-paper"))
    assert shipped.card.source
    prior_mapping.starting_agent(shipped, space, AgentSettings(), one_step=False, seed=0)
