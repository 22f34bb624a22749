"""Exact Gaussian process over configurations (Rasmussen & Williams, 2006; below: R&W), with or without a prior.

The model of a standardised reward y measured at x is

    y = c + S · (m(x) + B(x)·ε + r·g(x)) + noise,    c ~ N(0, 1), ε ~ N(0, I), g ~ GP(0, Matérn-5/2)

where m (N,) and B (N, k) come from a prior (``prior.py``): the mean of the gains of earlier tasks, and a factor of the
covariance that those gains have between configurations. S is the scale of this task. r is the standard deviation, in
units of S, of what no combination of the earlier tasks explains. Without a prior, m and B are absent and S is 1.

The state is a mapping of tensors: ``x`` (N, d) and, with a prior, ``basis`` (N, k); ``hyperparameters`` (d + 3,), as
``Hyperparameters.to_vector`` gives them; ``residual`` (N,) = y − S·m; ``noise`` (N,), the noise variances; ``cholesky``
(N, N), the lower factor of the covariance of measured rewards K; ``alpha`` (N,) = K⁻¹ residual.
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

#: The tensors of a state; with a prior there is ``basis``, too.
STATE = ("x", "hyperparameters", "residual", "noise", "cholesky", "alpha")
#: The most points that are fitted: the cost grows with their cube.
MAX_POINTS = 400
#: Bounds of the search for hyperparameters, as logarithms.
LOG_LENGTH_BOUNDS = (math.log(0.01), math.log(1e3))
LOG_NOISE_BOUNDS = (math.log(1e-6), math.log(1.0))
LOG_R_BOUNDS = (math.log(0.01), math.log(30.0))
LOG_SCALE_BOUNDS = (math.log(1e-3), math.log(100.0))
#: Log-normal priors of noise variance, r (without and with a prior from other tasks) and S: mode, standard deviation.
_NOISE, _R_ALONE, _R, _SCALE = (math.log(1e-3), 2.5), (0.0, 0.7), (math.log(0.2), 1.0), (0.0, 1.5)
#: Iterations of the search for hyperparameters: from the start, and from where an earlier search ended. Every RESTART
#: points it runs from the start, too: few points may have led it to a poor local optimum.
FIRST_STEPS, NEXT_STEPS, RESTART = 60, 12, 16


@dataclass(frozen=True)
class Hyperparameters:
    """The process's hyperparameters, as natural logarithms; features and standardised rewards have no units."""

    log_lengths: Tensor
    """Of the kernel's length scales, (d,)."""
    log_noise: Tensor
    """Of the noise variance of a point with weight 1, a scalar."""
    log_r: Tensor
    """Of r, a scalar."""
    log_scale: Tensor
    """Of S, a scalar; 0 without a prior."""

    @classmethod
    def of_vector(cls, vector: Tensor) -> Hyperparameters:
        """From (d + 3,): length scales, noise variance, r, S; gradients flow back to the vector."""
        return cls(vector[:-3], vector[-3], vector[-2], vector[-1])

    def to_vector(self) -> Tensor:
        """(d + 3,), as it is stored and searched."""
        return torch.cat([self.log_lengths, torch.stack([self.log_noise, self.log_r, self.log_scale])])

    def noise(self, sample_weights: Tensor) -> Tensor:
        """Noise variances (N,) of points with weights (N,) in (0, 1]: weight w means 1/w times the variance."""
        return self.log_noise.exp() * (1 / sample_weights)


@dataclass(frozen=True)
class Expected:
    """What a prior says of B configurations, in units of a task's scale."""

    mean: Tensor
    """m, (B,)."""
    basis: Tensor
    """B, (B, k)."""
    cost: Tensor | None = None
    """Of a training run, (B,), relative to a usual configuration's; ``None`` if not known. The process ignores it."""


def fit(
    x: Tensor,
    y: Tensor,
    previous: Hyperparameters | None = None,
    seen: int = 0,
    sample_weights: Tensor | None = None,
    expected: Expected | None = None,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Fit by maximising the posterior density of the hyperparameters.

    Args:
        x: Features (N, d), N ≤ MAX_POINTS.
        y: Standardised rewards (N,).
        previous: Where the search may go on; passed over if it is of another dimension.
        seen: The number of points to which ``previous`` was fitted.
        sample_weights: (N,) in (0, 1], as in ``Hyperparameters.noise``; 1 if not given.
        expected: What a prior says of x.

    Returns: the state, and the means and standard deviations (N,) of leave-one-out predictions.
    """
    from scipy import optimize  # here, since it is slow to import and most processes only predict

    d = x.shape[1]
    start = _start(d, expected is not None)
    starts, steps = [start], FIRST_STEPS
    if previous is not None and len(previous.log_lengths) == d:
        starts, steps = [previous], NEXT_STEPS
        if len(y) // RESTART != seen // RESTART:
            starts, steps = [previous, start], FIRST_STEPS

    def objective(values: Floats) -> tuple[float, Floats]:
        vector = torch.from_numpy(values.copy()).requires_grad_()
        with torch.enable_grad():
            hyper = Hyperparameters.of_vector(vector)
            loss = -log_likelihood(hyper, x, y, sample_weights, expected) - _log_prior(hyper, expected is not None)
        (gradient,) = torch.autograd.grad(loss, vector)
        return float(loss.detach()), gradient.numpy()

    bounds = [LOG_LENGTH_BOUNDS] * d + [LOG_NOISE_BOUNDS, LOG_R_BOUNDS, LOG_SCALE_BOUNDS if expected else (0.0, 0.0)]
    options = {"maxiter": steps}
    results: list[Any] = [
        optimize.minimize(objective, s.to_vector().numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for s in starts
    ]
    best = min(results, key=lambda result: float(result.fun))
    vector = torch.from_numpy(np.array(best.x, dtype=np.float64))
    return posterior(x, y, Hyperparameters.of_vector(vector), sample_weights, expected)


def unfitted(d: int, expected: Expected) -> dict[str, Tensor]:
    """The state before the first trial, in which the prior alone predicts.

    Args:
        d: The number of features.
        expected: What the prior says of no configurations: its tensors have the right widths and no rows.
    """
    empty = torch.zeros(0, dtype=torch.float64)
    return posterior(empty.new_zeros(0, d), empty, _start(d, True), None, expected)[0]


def posterior(
    x: Tensor,
    y: Tensor,
    hyper: Hyperparameters,
    sample_weights: Tensor | None = None,
    expected: Expected | None = None,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The state for given hyperparameters, and leave-one-out predictions (R&W, eq. 5.12).

    Args:
        x: Features (N, d).
        y: Standardised rewards (N,).
        hyper: Taken as they are.
        sample_weights: (N,) in (0, 1]; 1 if not given.
        expected: What a prior says of x.

    Returns: the state, and the means and standard deviations (N,) of the leave-one-out predictions.

    Raises: ValueError if the covariance is not positive definite whatever the jitter.
    """
    state = {"x": x, "hyperparameters": hyper.to_vector(), "residual": _residual(y, hyper, expected)}
    state["noise"] = hyper.noise(torch.ones_like(y) if sample_weights is None else sample_weights)
    if expected is not None:
        state["basis"] = expected.basis
    state = _factored(state)
    variance = 1 / torch.cholesky_inverse(state["cholesky"]).diagonal()
    return state, y - state["alpha"] * variance, variance.sqrt()


def predict(state: dict[str, Tensor], x: Tensor, expected: Expected | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (B,), of the standardised reward without noise (R&W, algorithm 2.1).

    Args:
        state: As ``fit`` returned it.
        x: Features (B, d).
        expected: What the prior says of x; needed if the state was fitted with a prior.
    """
    hyper = Hyperparameters.of_vector(state["hyperparameters"])
    basis = expected.basis if expected is not None else None
    cross = _covariance(hyper, x, basis, state["x"], state.get("basis"))
    explained = torch.linalg.solve_triangular(state["cholesky"], cross.T, upper=False).square().sum(0)
    before = (2 * hyper.log_r).exp() + (basis.square().sum(1) if basis is not None else 0.0)
    variance = 1.0 + (2 * hyper.log_scale).exp() * before - explained
    mean = cross @ state["alpha"] + (hyper.log_scale.exp() * expected.mean if expected is not None else 0.0)
    return mean, variance.clamp(min=1e-12).sqrt()


def conditioned(state: dict[str, Tensor], x: Tensor, expected: Expected | None = None) -> dict[str, Tensor]:
    """The state after fantasy observations at x: the kriging believer (Ginsbourger et al., 2010).

    Each point is taken to have been measured at its predicted mean. The means stay as they are and the variances near
    the points shrink, so that a further point of the same batch is chosen elsewhere.

    Args:
        state: As ``fit`` returned it; it is not changed.
        x: Features (B, d).
        expected: What the prior says of x; needed if the state was fitted with a prior.
    """
    hyper = Hyperparameters.of_vector(state["hyperparameters"])
    mean, _ = predict(state, x, expected)
    grown = dict(state)
    grown["x"] = torch.cat([state["x"], x])
    grown["residual"] = torch.cat([state["residual"], _residual(mean, hyper, expected)])
    grown["noise"] = torch.cat([state["noise"], hyper.log_noise.exp().expand(len(x))])
    if expected is not None:
        grown["basis"] = torch.cat([state["basis"], expected.basis])
    return _factored(grown)


def log_likelihood(
    hyper: Hyperparameters,
    x: Tensor,
    y: Tensor,
    sample_weights: Tensor | None = None,
    expected: Expected | None = None,
) -> Tensor:
    """The log marginal likelihood log p(y | x, hyper), a scalar (R&W, eq. 2.30).

    Args:
        hyper: Gradients flow back to them.
        x: Features (N, d).
        y: Standardised rewards (N,).
        sample_weights: (N,) in (0, 1]; 1 if not given.
        expected: What a prior says of x.

    Raises: ValueError if the covariance is not positive definite whatever the jitter.
    """
    basis = expected.basis if expected is not None else None
    noise = hyper.noise(torch.ones_like(y) if sample_weights is None else sample_weights)
    factor = _factor(_covariance(hyper, x, basis, x, basis), noise)
    misfit = torch.linalg.solve_triangular(factor, _residual(y, hyper, expected)[:, None], upper=False).square().sum()
    volume = 2 * factor.diagonal().log().sum()
    total: Tensor = -0.5 * (misfit + volume + len(y) * math.log(2 * math.pi))
    return total


def _log_prior(hyper: Hyperparameters, with_prior: bool) -> Tensor:
    """Log density of the hyperparameters, up to a constant; all are log-normal.

    The length scales' prior grows with the dimension (Hvarfner et al., ICML 2024).
    """
    total = ((hyper.log_lengths - _log_length(len(hyper.log_lengths))) / math.sqrt(3)).square().sum()
    scalars = (hyper.log_noise, _NOISE), (hyper.log_r, _R if with_prior else _R_ALONE), (hyper.log_scale, _SCALE)
    for value, (mode, std) in scalars:
        total = total + ((value - mode) / std).square()
    return -0.5 * total


def _start(d: int, with_prior: bool) -> Hyperparameters:
    """Where the search begins: shorter length scales than the mode of their prior, the modes of the others."""
    modes = torch.tensor([_NOISE[0], (_R if with_prior else _R_ALONE)[0], _SCALE[0]], dtype=torch.float64)
    return Hyperparameters(torch.full((d,), _log_length(d) - 1.0, dtype=torch.float64), *modes)


def _log_length(d: int) -> float:
    return math.sqrt(2) + 0.5 * math.log(d)


def _residual(y: Tensor, hyper: Hyperparameters, expected: Expected | None) -> Tensor:
    return y if expected is None else y - hyper.log_scale.exp() * expected.mean


def _covariance(hyper: Hyperparameters, a: Tensor, basis_a: Tensor | None, b: Tensor, basis_b: Tensor | None) -> Tensor:
    """Between rewards at a (A, d) and at b (B, d), without noise: (A, B)."""
    covariance = (2 * hyper.log_r).exp() * _matern(a, b, hyper.log_lengths.exp())
    if basis_a is not None and basis_b is not None:
        covariance = covariance + basis_a @ basis_b.T
    return torch.add(1.0, (2 * hyper.log_scale).exp() * covariance)


def _matern(a: Tensor, b: Tensor, lengths: Tensor) -> Tensor:
    """Matérn-5/2 with length scales (d,) and unit variance (R&W, eq. 4.17), between a (A, d) and b (B, d): (A, B)."""
    a, b = a / lengths, b / lengths
    squared = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=1e-20)
    r = (5 * squared).sqrt()
    return torch.mul(1 + r + r.square() / 3, (-r).exp())


def _factored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With ``cholesky`` and ``alpha`` for what else is in the state."""
    hyper, basis = Hyperparameters.of_vector(state["hyperparameters"]), state.get("basis")
    factor = _factor(_covariance(hyper, state["x"], basis, state["x"], basis), state["noise"])
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
    """Rows to fit, at most MAX_POINTS, in order: the best quarter, the latest quarter, and others that lie far apart.

    Args:
        features: (N, d).
        rewards: (N,), in the order of the trials.
    """
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
