from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from rlhpo_core.arrays import Floats
from rlhpo_core.space.feature_columns import FeatureColumns, feature_columns
from rlhpo_core.tuner import gaussian_process
from rlhpo_core.tuner.gaussian_process import Expected, Hyperparameters, Points
from tests.helpers.regression import sample
from tests.helpers.studies import RICH_SPACE


def points(count: int, seed: int = 0, noise: float = 0.1, d: int = 3) -> Points:
    x, y = sample(count, seed, noise, d)
    return Points(x, (y - y.mean()) / y.std(), np.ones(count), FeatureColumns.plain(d))


#: Length scales 0.5, 0.8 and 2, noise variance 0.05, r 0.7, a 0.4 and S 1.
VECTOR = np.log([0.5, 0.8, 2.0, 0.05, 0.7, 0.4, 1.0])
HYPER = Hyperparameters.of_vector(VECTOR)


def sklearn_process(known: Points) -> GaussianProcessRegressor:
    matern = Matern(length_scale=np.exp(HYPER.log_lengths), nu=2.5)
    kernel = ConstantKernel(1.0) + ConstantKernel(math.exp(2 * HYPER.log_r)) * matern
    return GaussianProcessRegressor(kernel, alpha=math.exp(HYPER.log_noise), optimizer=None).fit(known.x, known.y)


def test_without_effects_likelihood_and_posterior_are_those_of_scikit_learn() -> None:
    known, hyper = points(30), replace(HYPER, log_a=-math.inf)
    theirs = sklearn_process(known)
    ours, _ = gaussian_process.log_likelihood(known)(hyper.to_vector())
    assert ours == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-10)
    state, _, _ = gaussian_process.posterior(known, hyper)
    fresh = points(20, seed=1).x
    mean, std = gaussian_process.predict(state, fresh)
    their_mean, their_std = theirs.predict(fresh, return_std=True)
    np.testing.assert_allclose(mean, their_mean, rtol=1e-8)
    np.testing.assert_allclose(std, their_std, rtol=1e-6)


def legendre(x: Floats) -> Floats:
    """Main effects of numbers x (N, d) and the products of any two of them, whose inner products are k + k²."""
    z = 2 * x - 1
    main = np.concatenate([z, (3 * z**2 - 1) / 4], axis=1) / math.sqrt(x.shape[1])
    pairs = (main[:, :, None] * main[:, None, :]).reshape(len(x), -1)
    return np.concatenate([main, pairs], axis=1)


def test_effects_are_a_linear_regression_on_polynomials_and_their_products() -> None:
    """Bayesian linear regression: the weights have the prior N(0, a²), the constant N(0, 1)."""
    known, fresh = points(30), points(20, seed=1).x
    hyper = replace(HYPER, log_r=-math.inf)
    state, _, _ = gaussian_process.posterior(known, hyper)
    mean, _ = gaussian_process.predict(state, fresh)
    noise, a = math.exp(hyper.log_noise), math.exp(hyper.log_a)
    design, there = (np.column_stack([np.ones(len(x)), a * legendre(x)]) for x in (known.x, fresh))
    weights = np.linalg.solve(design.T @ design + noise * np.eye(design.shape[1]), design.T @ known.y)
    np.testing.assert_allclose(mean, there @ weights, rtol=1e-6, atol=1e-8)


def test_with_few_trials_effects_and_interactions_predict_better_than_smoothness_alone() -> None:
    rng = np.random.default_rng(0)
    x, fresh = rng.random((30, 8)), rng.random((500, 8))

    def height(x: Floats) -> Floats:
        z = 2 * x - 1
        return np.asarray(z.sum(axis=1) + 2 * z[:, 0] * z[:, 1] - 2 * z[:, 2] ** 2)

    def error(log_a: float) -> float:
        hyper = replace(gaussian_process._start(8, False), log_a=log_a)
        known = Points(x, height(x), np.ones(30), FeatureColumns.plain(8))
        state, _, _ = gaussian_process.posterior(known, hyper)
        return float(np.mean((gaussian_process.predict(state, fresh)[0] - height(fresh)) ** 2))

    assert error(0.0) < 0.8 * error(-math.inf)


def test_what_is_inactive_has_no_effect() -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (200, len(RICH_SPACE.steps)))
    x, columns = RICH_SPACE.features_of_actions(actions), feature_columns(RICH_SPACE)
    effects = gaussian_process._effects(x, columns)
    count = len(columns.numbers)
    assert effects.shape == (200, 2 * count)
    for index, activity in enumerate(columns.activity):
        inactive = x[:, activity] < 0.5 if activity >= 0 else np.zeros(200, dtype=bool)
        for column in (index, count + index):
            assert (effects[inactive, column] == 0).all()
            assert len(np.unique(effects[~inactive, column])) > 1
    assert (columns.activity >= 0).any()


@pytest.mark.parametrize("with_prior", [False, True])
def test_gradients_are_those_of_finite_differences(with_prior: bool) -> None:
    rng = np.random.default_rng(0)
    x, columns = RICH_SPACE.features_of_actions(rng.uniform(-1, 1, (25, len(RICH_SPACE.steps)))), None
    columns = feature_columns(RICH_SPACE)
    expected = Expected(rng.standard_normal(25), rng.standard_normal((25, 3))) if with_prior else None
    known = Points(x, rng.standard_normal(25), rng.uniform(0.2, 1.0, 25), columns, expected)
    likelihood = gaussian_process.log_likelihood(known)
    vector = rng.normal(-0.5, 0.3, int(columns.groups.max()) + 5)
    if not with_prior:
        vector[-1] = 0.0
    numeric = optimize.approx_fprime(vector, lambda v: likelihood(v)[0], 1e-6)
    end = len(vector) if with_prior else -1
    np.testing.assert_allclose(likelihood(vector)[1][:end], numeric[:end], rtol=1e-3, atol=1e-4)


def test_leave_one_out_is_what_fitting_without_the_point_gives() -> None:
    known = points(12)
    _, means, deviations = gaussian_process.posterior(known, HYPER)
    for left_out in range(12):
        rest = [row for row in range(12) if row != left_out]
        fewer = Points(known.x[rest], known.y[rest], known.weights[rest], known.columns)
        state, _, _ = gaussian_process.posterior(fewer, HYPER)
        mean, std = gaussian_process.predict(state, known.x[left_out : left_out + 1])
        assert float(means[left_out]) == pytest.approx(float(mean[0]), rel=1e-9)
        noisy = math.sqrt(float(std[0]) ** 2 + math.exp(HYPER.log_noise))
        assert float(deviations[left_out]) == pytest.approx(noisy, rel=1e-9)


def test_believing_a_prediction_is_what_fitting_with_it_gives() -> None:
    known, fresh, more = points(20), points(30, seed=1).x, points(3, seed=2).x
    state, _, _ = gaussian_process.posterior(known, HYPER)
    believed = gaussian_process.conditioned(gaussian_process.conditioned(state, more[:1]), more[1:])
    y = np.concatenate([known.y, gaussian_process.predict(state, more)[0]])
    whole = Points(np.concatenate([known.x, more]), y, np.ones(23), known.columns)
    again, _, _ = gaussian_process.posterior(whole, HYPER)
    for found, expected in zip(
        gaussian_process.predict(believed, fresh), gaussian_process.predict(again, fresh), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_the_fitted_hyperparameters_are_a_maximum_within_their_bounds() -> None:
    known = points(40, noise=0.3)
    likelihood, hyper = gaussian_process.log_likelihood(known), gaussian_process.fit(known).to_vector()
    modes, spreads = gaussian_process._modes(3, False), gaussian_process._spreads(3, False)

    def posterior_density(at: Floats) -> float:
        return likelihood(at)[0] - 0.5 * float(np.square((at - modes) / spreads).sum())

    here = posterior_density(hyper)
    for index in range(len(hyper) - 1):  # S is 1 without a prior
        for step in (-0.05, 0.05):
            moved = hyper.copy()
            moved[index] += step
            assert posterior_density(moved) < here + 1e-6


def test_hyperparameters_are_kept_while_little_is_new() -> None:
    known = points(40)
    fitted = gaussian_process.fit(known)
    assert gaussian_process.fit(known, fitted, seen=38) is fitted
    assert gaussian_process.fit(known, fitted, seen=30) is not fitted
    assert gaussian_process.fit(points(10), fitted, seen=10) is not fitted, "each of the first trials says much"
    assert gaussian_process.fit(known, fitted, seen=100) is not fitted, "another study's"


def test_a_prior_that_promises_far_too_much_does_not_break_the_process() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((60, 3))
    promised = Expected(mean=x[:, 0], basis=1e5 * rng.random((60, 2)))
    known = Points(x, rng.standard_normal(60), np.ones(60), FeatureColumns.plain(3), promised)
    least_noise, largest_scale = gaussian_process.LOG_NOISE_BOUNDS[0], gaussian_process.LOG_SCALE_BOUNDS[1]
    hyper = Hyperparameters.of_vector(np.array([0.0, 0.0, 0.0, least_noise, 0.0, 0.0, largest_scale]))
    state, mean, std = gaussian_process.posterior(known, hyper)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    assert np.isfinite(state["alpha"]).all()


def test_of_many_trials_the_process_keeps_the_best_the_latest_and_those_far_apart() -> None:
    x, y = sample(450, noise=0.05)
    y[5] = 100.0
    rows = gaussian_process.subset(x, y)
    assert len(rows) == gaussian_process.MAX_POINTS
    assert list(rows) == sorted(set(rows.tolist()))
    assert 5 in rows
    assert set(range(350, 450)) <= set(rows.tolist())
    assert set(np.argsort(-y)[:100].tolist()) <= set(rows.tolist())
    left_out = sorted(set(range(450)) - set(rows.tolist()))
    apart = [np.linalg.norm(np.delete(x, row, axis=0) - x[row], axis=1).min() for row in range(450)]
    chosen = [row for row in rows if row < 350 and row not in set(np.argsort(-y)[:100].tolist())]
    assert np.median([apart[row] for row in chosen]) > np.median([apart[row] for row in left_out])
