from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rlhpo_core.tuner.acquisition import acquisition

MEAN, STD = np.array([-3.0, -0.5, 0.0, 0.4, 2.0]), np.array([0.5, 1.0, 0.1, 2.0, 0.3])


def test_expected_improvement_is_its_closed_form_and_its_integral() -> None:
    best = 0.3
    z = (MEAN - best) / STD
    closed = STD * (stats.norm.pdf(z) + z * stats.norm.cdf(z))
    np.testing.assert_allclose(acquisition("ei", MEAN, STD, best), closed, rtol=1e-9)
    np.testing.assert_allclose(acquisition("log_ei", MEAN, STD, best), np.log(closed), rtol=1e-9)
    draws = np.random.default_rng(0).normal(MEAN, STD, (200_000, 5))
    np.testing.assert_allclose(
        acquisition("ei", MEAN, STD, best), np.maximum(draws - best, 0).mean(0), rtol=0.03, atol=1e-3
    )


@pytest.mark.parametrize("z", [-5.0, -20.0, -38.0, -100.0, -1e4, -9e5, -1.1e6, -1e8])
def test_log_expected_improvement_far_below_the_best(z: float) -> None:
    """Against the asymptotic series φ(z)/z² · (1 − 3/z² + 15/z⁴ − 105/z⁶ …) and, nearer, against mills ratios."""
    found = float(acquisition("log_ei", np.array([z]), np.array([1.0]), 0.0)[0])
    series = 1 - 3 / z**2 + 15 / z**4 - 105 / z**6 + 945 / z**8
    expected = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) - 2 * math.log(-z) + math.log(series)
    assert found == pytest.approx(expected, rel=1e-3 if z == -5 else 1e-8, abs=1e-3)


def test_log_expected_improvement_rises_without_a_step() -> None:
    z = np.concatenate([-np.logspace(8, -3, 4000), np.logspace(-3, 8, 4000)])
    found = acquisition("log_ei", z, np.ones_like(z), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    beside = acquisition("log_ei", np.array([-1 - 1e-9, -1 + 1e-9]), np.ones(2), 0.0)
    assert beside[1] - beside[0] < 1e-7


def test_upper_bound_mean_and_certainty() -> None:
    np.testing.assert_allclose(acquisition("ucb", MEAN, STD, 0.0, beta=3.0), MEAN + 3 * STD)
    assert np.array_equal(acquisition("mean", MEAN, STD, 0.0), MEAN)
    certain = acquisition("ei", np.array([1.0, -1.0]), np.zeros(2), 0.0)
    np.testing.assert_allclose(certain, [1.0, 0.0], atol=1e-9)
    assert np.isfinite(acquisition("log_ei", np.array([1.0, -1.0]), np.zeros(2), 0.0)).all()
    with pytest.raises(ValueError, match="'pi'"):
        acquisition("pi", MEAN, STD, 0.0)  # type: ignore[arg-type]
