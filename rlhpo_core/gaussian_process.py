"""Exact Gaussian process with a Matérn-5/2 kernel (Rasmussen & Williams, 2006; below: R&W).

Its state: ``x`` (N, d); ``hyperparameters`` (d + 2,): d log length scales, log noise variance, mean; ``cholesky``
(N, N), the lower factor of the covariance of measured rewards K; ``alpha`` (N,) = K⁻¹(y − mean).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

Floats = NDArray[np.float64]

STATE = ("x", "hyperparameters", "cholesky", "alpha")
MAX_POINTS = 400
LOG_LENGTH_BOUNDS = (math.log(0.01), math.log(1e3))
LOG_NOISE_BOUNDS = (math.log(1e-5), math.log(1.0))
MEAN_BOUNDS = (-3.0, 3.0)
#: Mode of the prior of the log noise variance.
_LOG_NOISE = -4.0


def fit(
    x: Tensor, y: Tensor, previous: Tensor | None = None, told: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Fit to x (N, d) and standardised y (N,), N ≤ MAX_POINTS, from two starts; the second is ``previous``, if it fits.

    The noise variance of a point is that of the hyperparameters divided by ``told`` (N,) in (0, 1], 1 if not given.

    Returns: the state, and the means and deviations (N,) of leave-one-out predictions.
    """
    d = x.shape[1]
    centre = _prior_centre(d)
    second = torch.cat([centre - 3.0, torch.tensor([_LOG_NOISE + 2.0, 0.0], dtype=torch.float64)])
    if previous is not None and len(previous) == d + 2:
        second = previous
    starts = [torch.cat([centre - 1.0, torch.tensor([_LOG_NOISE, 0.0], dtype=torch.float64)]), second]

    def objective(values: Floats) -> tuple[float, Floats]:
        hyper = torch.from_numpy(values.copy()).requires_grad_()
        with torch.enable_grad():
            loss = -log_likelihood(hyper, x, y, told) - _log_prior(hyper)
        (gradient,) = torch.autograd.grad(loss, hyper)
        return float(loss.detach()), gradient.numpy()

    bounds = [LOG_LENGTH_BOUNDS] * d + [LOG_NOISE_BOUNDS, MEAN_BOUNDS]
    found: list[Any] = [
        optimize.minimize(objective, s.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
        for s in starts
    ]
    best = min(found, key=lambda result: float(result.fun))
    return posterior(x, y, torch.from_numpy(np.array(best.x, dtype=np.float64)), told)


def posterior(
    x: Tensor, y: Tensor, hyper: Tensor, told: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The state for given hyperparameters, and leave-one-out means and deviations (N,) (R&W, eq. 5.12)."""
    factor = _factor(x, hyper, told)
    alpha = torch.cholesky_solve((y - hyper[-1])[:, None], factor)[:, 0]
    variance = 1 / torch.cholesky_inverse(factor).diagonal()
    state = {"x": x, "hyperparameters": hyper, "cholesky": factor, "alpha": alpha}
    return state, y - alpha * variance, variance.sqrt()


def predict(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std, each (B,), of standardised rewards measured at x (B, d): R&W, algorithm 2.1, plus noise."""
    hyper = state["hyperparameters"]
    cross = _kernel(x, state["x"], hyper[:-2].exp())
    explained = torch.linalg.solve_triangular(state["cholesky"], cross.T, upper=False).square().sum(0)
    return hyper[-1] + cross @ state["alpha"], ((1 - explained).clamp(min=0) + hyper[-2].exp()).sqrt()


def log_likelihood(hyper: Tensor, x: Tensor, y: Tensor, told: Tensor | None = None) -> Tensor:
    """log p(y | x, hyper), a scalar (R&W, eq. 2.30)."""
    factor = _factor(x, hyper, told)
    residual = torch.linalg.solve_triangular(factor, (y - hyper[-1])[:, None], upper=False)
    misfit, volume = residual.square().sum(), 2 * factor.diagonal().log().sum()
    total: Tensor = -0.5 * (misfit + volume + len(y) * math.log(2 * math.pi))
    return total


def _log_prior(hyper: Tensor) -> Tensor:
    """Up to a constant. Length scales and noise variance are log-normal, the mean is free.

    The length scales' prior grows with the dimension (Hvarfner et al., ICML 2024).
    """
    lengths = ((hyper[:-2] - _prior_centre(len(hyper) - 2)) / math.sqrt(3)).square().sum()
    return -0.5 * (lengths + (hyper[-2] - _LOG_NOISE).square())


def _prior_centre(d: int) -> Tensor:
    return torch.full((d,), math.sqrt(2) + 0.5 * math.log(d), dtype=torch.float64)


def _kernel(a: Tensor, b: Tensor, lengths: Tensor) -> Tensor:
    """Matérn-5/2 with length scales (d,) and unit variance (R&W, eq. 4.17), between a (A, d) and b (B, d): (A, B)."""
    a, b = a / lengths, b / lengths
    squared = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=1e-20)
    r = (5 * squared).sqrt()
    return torch.mul(1 + r + r.square() / 3, (-r).exp())


def _factor(x: Tensor, hyper: Tensor, told: Tensor | None = None) -> Tensor:
    """Cholesky factor (N, N) of the covariance of measured rewards, with as little jitter as it takes."""
    covariance = _kernel(x, x, hyper[:-2].exp())
    eye = torch.eye(len(x), dtype=torch.float64)
    noise = hyper[-2].exp() * (eye if told is None else torch.diag(1 / told))
    for jitter in (0.0, 1e-8, 1e-6, 1e-4):
        factor: Tensor
        factor, info = torch.linalg.cholesky_ex(covariance + noise + jitter * eye)
        if int(info) == 0:
            return factor.contiguous()
    raise ValueError("the covariance of the rewards is not positive definite")


def subset(features: Floats, rewards: Floats) -> NDArray[np.int64]:
    """At most MAX_POINTS rows, in order: the best quarter, the latest quarter, and others that lie far apart."""
    n = len(rewards)
    if n <= MAX_POINTS:
        return np.arange(n)
    quarter = MAX_POINTS // 4
    chosen = set(np.argsort(-rewards, kind="stable")[:quarter].tolist()) | set(range(n - quarter, n))
    distance = np.full(n, np.inf)
    for row in chosen:
        distance = np.minimum(distance, np.square(features - features[row]).sum(1))
    while len(chosen) < MAX_POINTS:
        distance[list(chosen)] = -1.0
        row = int(np.argmax(distance))
        chosen.add(row)
        distance = np.minimum(distance, np.square(features - features[row]).sum(1))
    return np.array(sorted(chosen))
