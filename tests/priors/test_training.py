"""Learning priors from finished studies."""

from __future__ import annotations

import numpy as np
import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.priors.training import landscape, train
from rlhpo_core.tuner.prior import from_bytes
from tests.helpers.priors import SPACE, cost, finished, taught_prior, timed_prior


def test_a_prior_knows_how_long_trainings_take_beside_a_usual_one() -> None:
    prior = taught_prior()
    configs = SPACE.decode(np.random.default_rng(9).uniform(-1, 1, (400, 3)))
    features = SPACE.features(configs)
    found = from_bytes(timed_prior().to_bytes()).expect(features).cost
    assert found is not None
    wanted = np.log([cost(config) for config in configs])
    assert np.abs(np.log(found) - wanted).mean() < 0.1 * np.abs(wanted).max()
    assert float(np.median(found)) == pytest.approx(1.0, abs=0.3)
    assert prior.expect(features).cost is None, "these studies did not tell"


def test_too_little_to_learn_from_is_refused() -> None:
    with pytest.raises(UserError, match="two or more"):
        train("one", SPACE, [finished(0.5, 0)], "height")
    with pytest.raises(UserError, match="study-0: 4 trials"):
        train("few", SPACE, [finished(0.5, 0, 4), finished(0.5, 1)], "height")


def test_gains_are_zero_for_a_middling_configuration_and_one_for_the_best() -> None:
    study = finished(0.7, 0, count=200)
    gains = landscape(SPACE, study, seed=1).gains.numpy()
    assert gains[:200].max() == pytest.approx(1.0)
    assert float(np.median(gains[200:])) == pytest.approx(0.0, abs=1e-9), "of configurations drawn anywhere"
    order = np.argsort(study.rewards)
    assert np.array_equal(np.argsort(gains[:200])[-5:], order[-5:])
