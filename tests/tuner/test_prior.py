"""A prior in a file, and studies that start from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlhpo_core import tensor_document
from rlhpo_core.errors import UserError
from rlhpo_core.priors import portfolio
from rlhpo_core.seeds import derive_seed
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import Proposal, Trial, TrialStatus
from rlhpo_core.tuner import algorithm, state_file
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.prior import FORMAT_VERSION, Prior, describe, embed, from_bytes, hidden
from rlhpo_core.tuner.state import initial_state
from tests.helpers.priors import SPACE, cost, height, taught_prior, timed_prior
from tests.helpers.studies import after_rounds

SETTINGS = TunerSettings.model_validate({"trials_per_round": 3, "screening": {"candidates": 64}})


# -- in a file ---------------------------------------------------------------------------------------------------------


def test_a_file_holds_all_of_it() -> None:
    for prior in (taught_prior(), timed_prior()):
        again = from_bytes(prior.to_bytes())
        assert again.to_bytes() == prior.to_bytes()
        assert again.card == prior.card
        assert again.space == prior.space
        assert (again.portfolio, again.portfolio_ignoring_time) == (prior.portfolio, prior.portfolio_ignoring_time)
        x = np.random.default_rng(0).random((5, SPACE.feature_count))
        assert np.array_equal(again.expect(x).mean, prior.expect(x).mean)
        assert np.array_equal(again.expect(x).basis, prior.expect(x).basis)


def test_what_is_no_prior_is_refused() -> None:
    whole = taught_prior().to_bytes()
    for data in (b"nothing of the kind", whole[:100], whole[:-1]):
        with pytest.raises(UserError, match="not an rlhpo prior"):
            from_bytes(data)
    document, tensors = taught_prior().document(), dict(taught_prior().tensors)
    del tensors["factor"]
    with pytest.raises(UserError, match=r"not an rlhpo prior, or it is damaged \('factor'\)"):
        from_bytes(tensor_document.write("rlhpo-prior", document, tensors))


def test_a_prior_of_another_version_is_refused() -> None:
    document = {**taught_prior().document(), "format_version": FORMAT_VERSION - 1}
    data = tensor_document.write("rlhpo-prior", document, taught_prior().tensors)
    with pytest.raises(UserError, match=f"has format version {FORMAT_VERSION - 1}, this rlhpo reads version"):
        from_bytes(data)


def test_the_network_is_the_same_in_both_precisions() -> None:
    weights = taught_prior().tensors
    x = torch.rand(3, 5, SPACE.feature_count)
    single = hidden(weights, x)
    assert (single.dtype, single.shape) == (torch.float32, (3, 5, 8))
    double = embed(weights, x.flatten(0, 1))
    assert (double.dtype, double.shape) == (torch.float64, (15, 9))
    assert torch.equal(double[:, -1], torch.ones(15, dtype=torch.float64))
    torch.testing.assert_close(double[:, :-1], single.flatten(0, 1).double(), atol=1e-5, rtol=1e-4)


def test_the_card_in_words_has_ranges_and_both_portfolios() -> None:
    text = describe(timed_prior())
    assert "- `y`: float in [0.001, 1.0], log scale, when kind is a" in text
    assert "Learnt from 300 trials of 5 studies, judged by height." in text
    assert text.index("## To be tried first\n") < text.index("## To be tried first if time plays no part")


# -- a study that starts from it ---------------------------------------------------------------------------------------


def test_the_first_proposals_are_where_earlier_studies_were_good() -> None:
    prior = taught_prior()
    taught = initial_state("s", 0, SPACE, "maximize", SETTINGS, prior)
    fresh = initial_state("s", 0, SPACE, "maximize", SETTINGS)
    best = max(height(proposal.config) for proposal in algorithm.propose(taught))
    assert best > 0.6
    assert best > max(height(proposal.config) for proposal in algorithm.propose(fresh))
    assert all(proposal.predicted is None for proposal in algorithm.propose(taught)), "no trial has told the scale yet"


def test_a_study_begins_with_the_portfolio_whatever_its_rounds() -> None:
    prior = taught_prior()
    first = list(prior.portfolio)
    assert 1 < len(first) <= 5
    state = initial_state("s", 0, SPACE, "maximize", SETTINGS, prior)
    whole = [trial.config for trial in after_rounds(state, height, 2).history.trials]
    np.testing.assert_allclose(SPACE.encode(whole[: len(first)]), SPACE.encode(first), atol=1e-5)
    assert len({str(config) for config in whole}) == 6, "what is screened after it is something else"
    assert prior.portfolio_ignoring_time == prior.portfolio, "these studies did not tell how long their trials took"
    bare = replace(prior, portfolio=())
    assert algorithm.propose(initial_state("s", 0, SPACE, "maximize", SETTINGS, bare))[0].config != whole[0]


def test_a_study_with_a_prior_goes_on_bit_for_bit() -> None:
    prior = taught_prior()
    whole = after_rounds(initial_state("s", 0, SPACE, "maximize", SETTINGS, prior), height, 3)
    half = after_rounds(initial_state("s", 0, SPACE, "maximize", SETTINGS, prior), height, 1)
    restored = after_rounds(state_file.from_bytes(state_file.to_bytes(half)), height, 2)
    assert state_file.to_bytes(restored) == state_file.to_bytes(whole)


def test_a_prior_may_do_without_a_policy() -> None:
    """What the policy would have drawn comes from anywhere; the study begins with the portfolio all the same."""
    taught = taught_prior()
    without = replace(taught, tensors={name: t for name, t in taught.tensors.items() if not name.startswith("agent/")})
    assert taught.has_policy
    assert not without.has_policy
    assert from_bytes(without.to_bytes()).to_bytes() == without.to_bytes()
    start = initial_state("s", 0, SPACE, "maximize", SETTINGS, without)
    untrained = Agent(SPACE, SETTINGS.agent, one_step=False, seed=derive_seed(0, 0, "agent"))
    for name, tensor in untrained.state_dict().items():
        torch.testing.assert_close(start.agent.state_dict()[name], tensor, rtol=0, atol=0)
    state = after_rounds(start, height, 4)
    first = [trial.config for trial in state.history.trials[: len(without.portfolio)]]
    np.testing.assert_allclose(SPACE.encode(first), SPACE.encode(without.portfolio), atol=1e-5)
    again = state_file.from_bytes(state_file.to_bytes(state))
    assert algorithm.propose(again) == algorithm.propose(state)


# -- costs -------------------------------------------------------------------------------------------------------------


def trials_of_four_rounds(
    prior: Prior, seconds: float, settings: TunerSettings = SETTINGS, first: Sequence[Proposal] = (), seed: int = 0
) -> list[Trial]:
    """Of three trials each, if a usual training run takes so many seconds; ``first`` replaces the first round."""
    bare = replace(prior, portfolio=(), portfolio_ignoring_time=())
    state = initial_state("s", seed, SPACE, "maximize", settings, bare)
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


def test_what_takes_long_is_tried_less() -> None:
    """Over five seeds: a single trial that takes very long outweighs all others of its study."""
    tolerances = {"none": None, "some": 30.0, "little": 1.0}
    spent = {}
    for name, tolerance in tolerances.items():
        settings = SETTINGS.model_copy(update={"cost_tolerance": tolerance})
        studies = [trials_of_four_rounds(timed_prior(), 60.0, settings, seed=seed) for seed in range(5)]
        spent[name] = float(np.median([sum(cost(trial.config) for trial in trials[3:]) for trials in studies]))
    assert spent["little"] < spent["some"] < spent["none"]
    spared, ignoring_time = timed_prior().portfolio, timed_prior().portfolio_ignoring_time
    assert max(map(cost, spared)) < portfolio.TOLERANCE
    assert sum(map(cost, spared)) < sum(map(cost, ignoring_time))
    anyway = initial_state(
        "s", 0, SPACE, "maximize", SETTINGS.model_copy(update={"cost_tolerance": None}), timed_prior()
    )
    first = [proposal.config for proposal in algorithm.propose(anyway)]
    np.testing.assert_allclose(SPACE.encode(first), SPACE.encode(ignoring_time[: len(first)]), atol=1e-5)


def test_nobody_waits_for_what_takes_a_moment() -> None:
    """The first round, before a trial has told how long it takes, heeds costs: both studies get the same one."""
    anyway = SETTINGS.model_copy(update={"cost_tolerance": None})
    first = [trial.proposal for trial in trials_of_four_rounds(timed_prior(), 60.0)[:3]]

    def proposals(seconds: float, settings: TunerSettings) -> list[Proposal]:
        return [trial.proposal for trial in trials_of_four_rounds(timed_prior(), seconds, settings, first)]

    assert proposals(1e-4, SETTINGS) == proposals(1e-4, anyway)
    assert proposals(60.0, SETTINGS) != proposals(60.0, anyway), "otherwise the line above says nothing"
