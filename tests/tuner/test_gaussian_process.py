from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from rlhpo_core.tuner import gaussian_process
from rlhpo_core.tuner.gaussian_process import Expected, Hyperparameters
from tests.helpers.regression import sample


def tensors(count: int, seed: int = 0, noise: float = 0.1, d: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = sample(count, seed, noise, d)
    return torch.from_numpy(x), torch.from_numpy((y - y.mean()) / y.std())


#: Length scales 0.5, 0.8 and 2, noise variance 0.05, r 0.7 and S 1.
HYPER = Hyperparameters.of_vector(torch.tensor([0.5, 0.8, 2.0, 0.05, 0.7, 1.0], dtype=torch.float64).log())


def sklearn_process(x: torch.Tensor, y: torch.Tensor) -> GaussianProcessRegressor:
    matern = Matern(length_scale=HYPER.log_lengths.exp().numpy(), nu=2.5)
    kernel = ConstantKernel(1.0) + ConstantKernel(float((2 * HYPER.log_r).exp())) * matern
    noise = float(HYPER.log_noise.exp())
    return GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(x.numpy(), y.numpy())


def test_likelihood_and_posterior_are_those_of_scikit_learn() -> None:
    x, y = tensors(30)
    theirs = sklearn_process(x, y)
    ours = float(gaussian_process.log_likelihood(HYPER, x, y))
    assert ours == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-10)
    state, _, _ = gaussian_process.posterior(x, y, HYPER)
    fresh, _ = tensors(20, seed=1)
    mean, std = gaussian_process.predict(state, fresh)
    their_mean, their_std = theirs.predict(fresh.numpy(), return_std=True)
    np.testing.assert_allclose(mean, their_mean, rtol=1e-8)
    np.testing.assert_allclose(std, their_std, rtol=1e-6)


def test_leave_one_out_is_what_fitting_without_the_point_gives() -> None:
    x, y = tensors(12)
    _, means, deviations = gaussian_process.posterior(x, y, HYPER)
    for left_out in range(len(y)):
        rest = [row for row in range(len(y)) if row != left_out]
        state, _, _ = gaussian_process.posterior(x[rest], y[rest], HYPER)
        mean, std = gaussian_process.predict(state, x[left_out : left_out + 1])
        assert float(means[left_out]) == pytest.approx(float(mean[0]), rel=1e-9)
        noisy = math.sqrt(float(std[0]) ** 2 + float(HYPER.log_noise.exp()))
        assert float(deviations[left_out]) == pytest.approx(noisy, rel=1e-9)


def test_the_fitted_hyperparameters_are_a_maximum_within_their_bounds() -> None:
    x, y = tensors(40, noise=0.3)
    state, _, _ = gaussian_process.fit(x, y)
    hyper = state["hyperparameters"]

    def posterior_density(at: torch.Tensor) -> float:
        there = Hyperparameters.of_vector(at)
        return float(gaussian_process.log_likelihood(there, x, y) + gaussian_process._log_prior(there, False))

    here = posterior_density(hyper)
    for index in range(len(hyper) - 1):  # S is 1 without a prior
        for step in (-0.05, 0.05):
            moved = hyper.clone()
            moved[index] += step
            assert posterior_density(moved) < here + 1e-6


def test_a_prior_that_promises_far_too_much_does_not_break_the_process() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(60, generator=generator, dtype=torch.float64)
    promised = Expected(mean=x[:, 0], basis=1e5 * torch.rand(60, 2, generator=generator, dtype=torch.float64))
    least_noise, largest_scale = gaussian_process.LOG_NOISE_BOUNDS[0], gaussian_process.LOG_SCALE_BOUNDS[1]
    hyper = Hyperparameters.of_vector(torch.tensor([0.0, 0.0, 0.0, least_noise, 0.0, largest_scale]).double())
    state, mean, std = gaussian_process.posterior(x, y, hyper, None, promised)
    assert bool(mean.isfinite().all() and std.isfinite().all() and state["alpha"].isfinite().all())


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
