"""How well a prior predicts a study that it has not seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.priors.common_space import InSpace
from rlhpo_core.priors.evaluation import score, verdict
from rlhpo_core.space.search_space import load_space
from tests.helpers.priors import SPACE, finished, taught_prior


def test_a_prior_helps_with_a_study_like_those_it_was_learnt_from() -> None:
    alike = score(taught_prior(), InSpace(finished(0.72, 99), SPACE), seed=3)
    assert (alike.study, alike.trials) == ("study-99", 60)
    assert alike.fidelity > 0.9
    assert alike.rank_correlation > 0.9
    assert alike.picked[1] >= alike.picked[5] >= alike.picked[10] >= 0
    assert alike.picked[5] < alike.random[5]
    assert verdict([alike]).startswith("The prior helps: after 5 picks its regret is 0.0")


def test_a_prior_does_not_help_with_the_opposite() -> None:
    study = finished(0.7, 99)
    opposite = score(taught_prior(), InSpace(replace(study, rewards=-study.rewards), SPACE), seed=3)
    assert opposite.rank_correlation < -0.9
    assert verdict([opposite]).startswith("No sign that the prior helps")
    assert "it is lower on 0 of 1 study." in verdict([opposite])


def test_too_few_trials_and_another_space_are_refused() -> None:
    with pytest.raises(UserError, match="study-1: 4 trials have a value"):
        score(taught_prior(), InSpace(finished(0.7, 1, count=4), SPACE), seed=0)
    other = load_space("kind: {type: categorical, choices: [a, b]}\ny: {type: float, low: 0.001, high: 1.0, log: true}")
    with pytest.raises(UserError, match="study-1: prior: test knows of x, which this space lacks"):
        score(taught_prior(), InSpace(finished(0.7, 1), other), seed=0)
