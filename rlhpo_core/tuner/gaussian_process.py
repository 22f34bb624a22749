"""Exact Gaussian process over configurations (Rasmussen & Williams, 2006; below: R&W), with or without a prior.

Of a standardised reward y measured at x it is believed that

    y = c + S · (m(x) + B(x)·ε + r·g(x)) + noise,    c ~ N(0, 1), ε ~ N(0, I), g ~ GP(0, Matérn-5/2)

where m (N,) and B (N, k) are what a prior (``prior.py``) says of other tasks: their mean, and a factor of the
covariance between configurations over tasks. S is the scale of this task, r how far it may be unlike any combination of
the others. Without a prior m and B are absent and S is 1.

Its state: ``x`` (N, d) and, with a prior, ``basis`` (N, k); ``hyperparameters`` (d + 3,): d log length scales, log
noise variance, log r, log S; ``residual`` (N,) = y − S·m; ``noise`` (N,), the noise variances; ``cholesky`` (N, N), the
lower factor of the covariance of measured rewards K; ``alpha`` (N,) = K⁻¹ residual.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhpo_core.arrays import Floats

STATE = ("x", "hyperparameters", "residual", "noise", "cholesky", "alpha")
MAX_POINTS = 400
LOG_LENGTH_BOUNDS = (math.log(0.01), math.log(1e3))
LOG_NOISE_BOUNDS = (math.log(1e-6), math.log(1.0))
LOG_R_BOUNDS = (math.log(0.01), math.log(30.0))
LOG_S_BOUNDS = (math.log(1e-3), math.log(100.0))
#: Log-normal priors of noise variance, r (without and with other tasks to lean on) and S: mode, deviation.
_NOISE, _R_ALONE, _R, _S = (math.log(1e-3), 2.5), (0.0, 0.7), (math.log(0.2), 1.0), (0.0, 1.5)
#: Steps of the search for hyperparameters: from scratch, and from where an earlier search ended. Every RESTART points
#: it is made from scratch, too, lest it stay where few points had led it.
FIRST_STEPS, NEXT_STEPS, RESTART = 60, 12, 16


@dataclass(frozen=True)
class Expected:
    """What a prior says of B configurations, in units of a task's scale."""

    mean: Tensor
    """m, (B,)."""
    basis: Tensor
    """B, (B, k)."""
    cost: Tensor | None = None
    """Of training, (B,), in units of a usual configuration's; ``None`` if not known. The process makes no use of it."""


def fit(
    x: Tensor, y: Tensor, previous: Tensor | None = None, seen: int = 0, told: Tensor | None = None,
    expected: Expected | None = None,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:  # fmt: skip
    """Fit to x (N, d) and standardised y (N,), N ≤ MAX_POINTS.

    Args:
        previous: Hyperparameters from which the search may go on, found with ``seen`` points.
        told: (N,) in (0, 1]; a point's noise variance is that of the hyperparameters divided by it. 1 if not given.
        expected: What a prior says of x.

    Returns: the state, and the means and deviations (N,) of leave-one-out predictions.
    """
    from scipy import optimize  # here, since it is slow to import and most processes only predict

    d = x.shape[1]
    start = _start(d, expected is not None)
    starts, steps = [start], FIRST_STEPS
    if previous is not None and len(previous) == len(start):
        starts, steps = [previous], NEXT_STEPS
        if len(y) // RESTART != seen // RESTART:
            starts, steps = [previous, start], FIRST_STEPS

    def objective(values: Floats) -> tuple[float, Floats]:
        hyper = torch.from_numpy(values.copy()).requires_grad_()
        with torch.enable_grad():
            loss = -log_likelihood(hyper, x, y, told, expected) - _log_prior(hyper, expected is not None)
        (gradient,) = torch.autograd.grad(loss, hyper)
        return float(loss.detach()), gradient.numpy()

    bounds = [LOG_LENGTH_BOUNDS] * d + [LOG_NOISE_BOUNDS, LOG_R_BOUNDS, LOG_S_BOUNDS if expected else (0.0, 0.0)]
    options = {"maxiter": steps}
    found: list[Any] = [
        optimize.minimize(objective, s.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for s in starts
    ]
    best = min(found, key=lambda result: float(result.fun))
    return posterior(x, y, torch.from_numpy(np.array(best.x, dtype=np.float64)), told, expected)


def unfitted(d: int, expected: Expected) -> dict[str, Tensor]:
    """The state before the first trial: what the prior says alone. ``expected`` is that of no configurations."""
    empty = torch.zeros(0, dtype=torch.float64)
    return posterior(empty.new_zeros(0, d), empty, _start(d, True), None, expected)[0]


def posterior(
    x: Tensor, y: Tensor, hyper: Tensor, told: Tensor | None = None, expected: Expected | None = None
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The state for given hyperparameters, and leave-one-out means and deviations (N,) (R&W, eq. 5.12)."""
    state = {"x": x, "hyperparameters": hyper, "residual": _residual(y, hyper, expected)}
    state["noise"] = hyper[-3].exp() * (torch.ones_like(y) if told is None else 1 / told)
    if expected is not None:
        state["basis"] = expected.basis
    state = _factored(state)
    variance = 1 / torch.cholesky_inverse(state["cholesky"]).diagonal()
    return state, y - state["alpha"] * variance, variance.sqrt()


def predict(state: dict[str, Tensor], x: Tensor, expected: Expected | None = None) -> tuple[Tensor, Tensor]:
    """Mean and std, each (B,), of the standardised reward at x (B, d), without noise (R&W, algorithm 2.1)."""
    hyper, basis = state["hyperparameters"], expected.basis if expected is not None else None
    cross = _covariance(hyper, x, basis, state["x"], state.get("basis"))
    explained = torch.linalg.solve_triangular(state["cholesky"], cross.T, upper=False).square().sum(0)
    own = (2 * hyper[-2]).exp() + (basis.square().sum(1) if basis is not None else 0.0)
    variance = 1.0 + (2 * hyper[-1]).exp() * own - explained
    mean = cross @ state["alpha"] + (hyper[-1].exp() * expected.mean if expected is not None else 0.0)
    return mean, variance.clamp(min=1e-12).sqrt()


def conditioned(state: dict[str, Tensor], x: Tensor, expected: Expected | None = None) -> dict[str, Tensor]:
    """The state as if x (B, d) had been measured and had come out as predicted: less uncertain, and no wiser."""
    hyper = state["hyperparameters"]
    mean, _ = predict(state, x, expected)
    grown = dict(state)
    grown["x"] = torch.cat([state["x"], x])
    grown["residual"] = torch.cat([state["residual"], _residual(mean, hyper, expected)])
    grown["noise"] = torch.cat([state["noise"], hyper[-3].exp().expand(len(x))])
    if expected is not None:
        grown["basis"] = torch.cat([state["basis"], expected.basis])
    return _factored(grown)


def log_likelihood(
    hyper: Tensor, x: Tensor, y: Tensor, told: Tensor | None = None, expected: Expected | None = None
) -> Tensor:
    """log p(y | x, hyper), a scalar (R&W, eq. 2.30)."""
    basis = expected.basis if expected is not None else None
    noise = hyper[-3].exp() * (torch.ones_like(y) if told is None else 1 / told)
    factor = _factor(_covariance(hyper, x, basis, x, basis), noise)
    misfit = torch.linalg.solve_triangular(factor, _residual(y, hyper, expected)[:, None], upper=False).square().sum()
    volume = 2 * factor.diagonal().log().sum()
    total: Tensor = -0.5 * (misfit + volume + len(y) * math.log(2 * math.pi))
    return total


def _log_prior(hyper: Tensor, leaning: bool) -> Tensor:
    """Up to a constant; ``leaning`` on other tasks or not. All are log-normal.

    The length scales' prior grows with the dimension (Hvarfner et al., ICML 2024).
    """
    total = ((hyper[:-3] - _log_length(len(hyper) - 3)) / math.sqrt(3)).square().sum()
    for value, (mode, deviation) in zip(hyper[-3:], (_NOISE, _R if leaning else _R_ALONE, _S), strict=True):
        total = total + ((value - mode) / deviation).square()
    return -0.5 * total


def _start(d: int, leaning: bool) -> Tensor:
    lengths = torch.full((d,), _log_length(d) - 1.0, dtype=torch.float64)
    rest = torch.tensor([_NOISE[0], (_R if leaning else _R_ALONE)[0], _S[0]], dtype=torch.float64)
    return torch.cat([lengths, rest])


def _log_length(d: int) -> float:
    return math.sqrt(2) + 0.5 * math.log(d)


def _residual(y: Tensor, hyper: Tensor, expected: Expected | None) -> Tensor:
    return y if expected is None else y - hyper[-1].exp() * expected.mean


def _covariance(hyper: Tensor, a: Tensor, basis_a: Tensor | None, b: Tensor, basis_b: Tensor | None) -> Tensor:
    """Between rewards at a (A, d) and at b (B, d), without noise: (A, B)."""
    covariance = (2 * hyper[-2]).exp() * _matern(a, b, hyper[:-3].exp())
    if basis_a is not None and basis_b is not None:
        covariance = covariance + basis_a @ basis_b.T
    return torch.add(1.0, (2 * hyper[-1]).exp() * covariance)


def _matern(a: Tensor, b: Tensor, lengths: Tensor) -> Tensor:
    """Matérn-5/2 with length scales (d,) and unit variance (R&W, eq. 4.17), between a (A, d) and b (B, d): (A, B)."""
    a, b = a / lengths, b / lengths
    squared = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=1e-20)
    r = (5 * squared).sqrt()
    return torch.mul(1 + r + r.square() / 3, (-r).exp())


def _factored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With ``cholesky`` and ``alpha`` for what else is in the state."""
    basis = state.get("basis")
    factor = _factor(_covariance(state["hyperparameters"], state["x"], basis, state["x"], basis), state["noise"])
    alpha = torch.cholesky_solve(state["residual"][:, None], factor)[:, 0]
    return state | {"cholesky": factor, "alpha": alpha}


def _factor(covariance: Tensor, noise: Tensor) -> Tensor:
    """Cholesky factor (N, N) of the covariance of measured rewards, with as little jitter as it takes.

    The jitter is relative to the variances: a prior may make them large, and rounding errors with them.
    """
    factor: Tensor
    size = float(covariance.detach().diagonal().mean().clamp(min=1.0)) if len(noise) else 1.0
    for jitter in (0.0, 1e-8, 1e-6, 1e-4):
        factor, info = torch.linalg.cholesky_ex(covariance + torch.diag(noise + jitter * size))
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
