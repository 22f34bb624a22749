"""Exact Gaussian process over configurations (Rasmussen & Williams, 2006; below: R&W), with or without a prior.

The model of a standardised reward y measured at x is

    y = c + S · (m(x) + B(x)·ε + r·g(x) + a·h(x)) + noise,    c ~ N(0, 1), ε ~ N(0, I)

g ~ GP(0, Matérn-5/2) can be any smooth function. h ~ GP(0, k + k²) with k(x, x') = φ(x)·φ(x') / p is a sum of what each
of the p numbers does by itself and what each two of them do together: φ holds their Legendre polynomials of degree 1
and 2, and the square of a kernel has the products of all pairs of its features (R&W, section 4.2.2).

m (N,) and B (N, k) come from a prior (``prior.py``): the mean of the gains of earlier tasks, and a factor of the
covariance that those gains have between configurations. S is the scale of this task. r and a are standard deviations,
in units of S, of what no combination of the earlier tasks explains. Without a prior, m and B are absent and S is 1.

The state is a mapping of arrays: ``x`` (N, d) and, with a prior, ``basis`` (N, k); ``groups``, ``numbers``,
``activity`` as in ``FeatureColumns``; ``hyperparameters`` (groups + 4,), as ``Hyperparameters.to_vector`` gives them;
``residual`` (N,) = y − S·m; ``noise`` (N,), the noise variances; ``cholesky`` (N, N), the lower factor of the
covariance of measured rewards K; ``alpha`` (N,) = K⁻¹ residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from rlhpo_core.arrays import Floats, Ints
from rlhpo_core.space.feature_columns import FeatureColumns

#: The arrays of a state; with a prior there is ``basis``, too.
STATE = ("x", "groups", "numbers", "activity", "hyperparameters", "residual", "noise", "cholesky", "alpha")
#: The most points that are fitted: the cost grows with their cube.
MAX_POINTS = 400
#: Bounds of the search for hyperparameters, as logarithms.
LOG_LENGTH_BOUNDS = (math.log(0.01), math.log(1e3))
LOG_NOISE_BOUNDS = (math.log(1e-6), math.log(1.0))
LOG_SHARE_BOUNDS = (math.log(0.01), math.log(30.0))
LOG_SCALE_BOUNDS = (math.log(1e-3), math.log(100.0))
#: Log-normal priors of noise variance, of r and a (without and with a prior from other tasks) and of S: mode, standard
#: deviation.
_NOISE, _R_ALONE, _A_ALONE, _SHARE, _SCALE = (
    (math.log(1e-3), 2.5),
    (0.0, 0.7),
    (0.0, 1.0),
    (math.log(0.2), 1.0),
    (0, 1.5),
)
#: Iterations of the search for hyperparameters: from the start, and from where an earlier search ended.
FIRST_STEPS, NEXT_STEPS = 60, 15
#: Hyperparameters are searched anew at each of the first so many points, and then whenever there are a tenth more.
ALWAYS, GROWTH = 12, 1.1

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Hyperparameters:
    """The process's hyperparameters, as natural logarithms; features and standardised rewards have no units."""

    log_lengths: Floats
    """Of the kernel's length scales, one for each group of features."""
    log_noise: float
    """Of the noise variance of a point with weight 1."""
    log_r: float
    """Of r."""
    log_a: float
    """Of a."""
    log_scale: float
    """Of S; 0 without a prior."""

    @classmethod
    def of_vector(cls, vector: Floats) -> Hyperparameters:
        """From (groups + 4,): length scales, noise variance, r, a, S."""
        return cls(vector[:-4], *(float(value) for value in vector[-4:]))

    def to_vector(self) -> Floats:
        """(groups + 4,), as it is stored and searched."""
        return np.array([*self.log_lengths, self.log_noise, self.log_r, self.log_a, self.log_scale])


@dataclass(frozen=True)
class Expected:
    """What a prior says of B configurations, in units of a task's scale."""

    mean: Floats
    """m, (B,)."""
    basis: Floats
    """B, (B, k)."""
    cost: Floats | None = None
    """Of a training run, (B,), relative to a usual configuration's; ``None`` if not known. The process ignores it."""


@dataclass(frozen=True)
class Points:
    """Configurations, and what was measured of them."""

    x: Floats
    """Features (N, d)."""
    y: Floats
    """Standardised rewards (N,)."""
    weights: Floats
    """(N,) in (0, 1]: weight w means 1/w times the noise variance."""
    columns: FeatureColumns
    expected: Expected | None = None
    """What a prior says of x."""

    def residual(self, hyper: Hyperparameters) -> Floats:
        """y − S·m, (N,)."""
        return self.y if self.expected is None else self.y - math.exp(hyper.log_scale) * self.expected.mean


# -- fitting -----------------------------------------------------------------------------------------------------------


def fit(
    points: Points, previous: Hyperparameters | None = None, seen: int = 0, now: int | None = None
) -> Hyperparameters:
    """The hyperparameters with the highest posterior density, or the previous ones while little is new.

    Args:
        points: At most MAX_POINTS.
        previous: Where the search may go on; passed over if they are of other features.
        seen: The number of trials to which ``previous`` was fitted.
        now: The number of trials from which the points were chosen; that of the points if not given.
    """
    groups, now = int(points.columns.groups.max()) + 1, len(points.y) if now is None else now
    start = _start(groups, points.expected is not None)
    starts, steps = [start], FIRST_STEPS
    if previous is not None and len(previous.log_lengths) == groups:
        if ALWAYS <= seen <= now < GROWTH * seen:
            return previous
        starts, steps = [previous], NEXT_STEPS
        # Few points may have led to a poor local optimum.
        if int(2 * math.log2(now)) != int(2 * math.log2(max(seen, 1))):
            starts, steps = [previous, start], FIRST_STEPS
    return min((_searched(points, begin, steps) for begin in starts), key=lambda found: found[0])[1]


def _searched(points: Points, start: Hyperparameters, steps: int) -> tuple[float, Hyperparameters]:
    """The negative log posterior density at its minimum, and where that is."""
    from scipy import optimize  # here, since it is slow to import and most processes only predict

    likelihood, with_prior, groups = log_likelihood(points), points.expected is not None, len(start.log_lengths)
    modes, spreads = _modes(groups, with_prior), _spreads(groups, with_prior)

    def objective(vector: Floats) -> tuple[float, Floats]:
        value, gradient = likelihood(vector)
        deviation = (vector - modes) / spreads
        return 0.5 * float(deviation @ deviation) - value, deviation / spreads - gradient

    scale = LOG_SCALE_BOUNDS if with_prior else (0.0, 0.0)
    bounds = [LOG_LENGTH_BOUNDS] * groups + [LOG_NOISE_BOUNDS, LOG_SHARE_BOUNDS, LOG_SHARE_BOUNDS, scale]
    found = optimize.minimize(
        objective, start.to_vector(), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}
    )
    return float(found.fun), Hyperparameters.of_vector(np.asarray(found.x, dtype=np.float64))


def _modes(groups: int, with_prior: bool) -> Floats:
    """Of the hyperparameters' log-normal priors; that of the length scales grows with their number (Hvarfner et al.,
    ICML 2024)."""
    r, a = (_SHARE, _SHARE) if with_prior else (_R_ALONE, _A_ALONE)
    return np.array([math.sqrt(2) + 0.5 * math.log(groups)] * groups + [_NOISE[0], r[0], a[0], _SCALE[0]])


def _spreads(groups: int, with_prior: bool) -> Floats:
    r, a = (_SHARE, _SHARE) if with_prior else (_R_ALONE, _A_ALONE)
    return np.array([math.sqrt(3)] * groups + [_NOISE[1], r[1], a[1], _SCALE[1]])


def _start(groups: int, with_prior: bool) -> Hyperparameters:
    """Where the search begins: shorter length scales than the mode of their prior, the modes of the others."""
    modes = _modes(groups, with_prior)
    modes[:groups] -= 1.0
    return Hyperparameters.of_vector(modes)


def log_likelihood(points: Points) -> Callable[[Floats], tuple[float, Floats]]:
    """The log marginal likelihood log p(y | x, hyperparameters) and its gradient (R&W, eq. 2.30 and 5.9), as a function
    of the hyperparameters' vector.

    It raises ValueError where the covariance is not positive definite whatever the jitter.
    """
    n, groups, expected = len(points.y), points.columns.groups, points.expected
    distances = np.zeros((int(groups.max()) + 1, n, n))
    for column, group in zip(points.x.T, groups, strict=True):
        distances[group] += (column[:, None] - column) ** 2
    flat = distances.reshape(len(distances), n * n)
    additive = _effects(points.x, points.columns)
    effects = _with_pairs(additive @ additive.T)
    known = 0.0 if expected is None else expected.basis @ expected.basis.T

    def at(vector: Floats) -> tuple[float, Floats]:
        hyper = Hyperparameters.of_vector(vector)
        scale, r, a = (math.exp(2 * log) for log in (hyper.log_scale, hyper.log_r, hyper.log_a))
        inverse_squares, noise = np.exp(-2 * hyper.log_lengths), math.exp(hyper.log_noise) / points.weights
        distance = np.sqrt(np.maximum(5 * (inverse_squares @ flat).reshape(n, n), 1e-20))
        decay = np.exp(-distance)
        matern = (1 + distance + distance**2 / 3) * decay
        modelled = scale * (r * matern + a * effects + known)
        factor = _factor(1.0 + modelled, noise)
        inverse, residual = _inverse(factor), points.residual(hyper)
        alpha = inverse @ residual
        value = (
            -0.5 * float(residual @ alpha) - float(np.log(factor.diagonal()).sum()) - 0.5 * n * math.log(2 * math.pi)
        )
        slope = 0.5 * (np.outer(alpha, alpha) - inverse)
        by_lengths = (flat @ (slope * (1 + distance) * decay).ravel()) * inverse_squares * (5 / 3 * scale * r)
        by_scale = 2 * _inner(slope, modelled)
        if expected is not None:
            by_scale += math.exp(hyper.log_scale) * float(expected.mean @ alpha)
        by_r, by_a = 2 * scale * r * _inner(slope, matern), 2 * scale * a * _inner(slope, effects)
        return value, np.array([*by_lengths, float(slope.diagonal() @ noise), by_r, by_a, by_scale])

    return at


def _inner(a: Floats, b: Floats) -> float:
    return float(a.ravel() @ b.ravel())


# -- predicting --------------------------------------------------------------------------------------------------------


def unfitted(columns: FeatureColumns, expected: Expected) -> dict[str, NDArray[Any]]:
    """The state before the first trial, in which the prior alone predicts.

    Args:
        columns: Of the features.
        expected: What the prior says of no configurations: its arrays have the right widths and no rows.
    """
    none = np.zeros(0)
    points = Points(np.zeros((0, len(columns.groups))), none, none, columns, expected)
    return posterior(points, _start(int(columns.groups.max()) + 1, True))[0]


def posterior(points: Points, hyper: Hyperparameters) -> tuple[dict[str, NDArray[Any]], Floats, Floats]:
    """The state for given hyperparameters, and leave-one-out predictions (R&W, eq. 5.12).

    Returns: the state, and the means and standard deviations (N,) of the leave-one-out predictions.

    Raises: ValueError if the covariance is not positive definite whatever the jitter.
    """
    columns, expected = points.columns, points.expected
    state: dict[str, NDArray[Any]] = {
        "x": points.x,
        "groups": columns.groups,
        "numbers": columns.numbers,
        "activity": columns.activity,
    }
    state |= {"hyperparameters": hyper.to_vector(), "residual": points.residual(hyper)}
    state["noise"] = math.exp(hyper.log_noise) / points.weights
    if expected is not None:
        state["basis"] = expected.basis
    seen = _seen(state)
    state["cholesky"] = _factor(_covariance(hyper, seen, seen), state["noise"])
    state["alpha"] = _solved(state["cholesky"], state["residual"])
    variance: Floats = 1 / _inverse(state["cholesky"]).diagonal()
    return state, points.y - state["alpha"] * variance, np.sqrt(variance)


def predict(state: Arrays, x: Floats, expected: Expected | None = None) -> tuple[Floats, Floats]:
    """Mean and standard deviation, each (B,), of the standardised reward without noise (R&W, algorithm 2.1).

    Args:
        state: As ``posterior`` returned it.
        x: Features (B, d).
        expected: What the prior says of x; needed if the state was fitted with a prior.
    """
    hyper, there = Hyperparameters.of_vector(state["hyperparameters"]), _view(state, x, expected)
    cross = _covariance(hyper, there, _seen(state))
    mean = cross @ state["alpha"]
    explained = _halved(state["cholesky"], cross.T)
    variance = _own_variance(hyper, there) - np.einsum("ij,ij->j", explained, explained)
    if expected is not None:
        mean = mean + math.exp(hyper.log_scale) * expected.mean
    return mean, np.sqrt(np.maximum(variance, 1e-12))


def conditioned(state: Arrays, x: Floats, expected: Expected | None = None) -> dict[str, NDArray[Any]]:
    """The state after fantasy observations at x: the kriging believer (Ginsbourger et al., 2010).

    Each point is taken to have been measured at its predicted mean. The means stay as they are and the variances near
    the points shrink, so that a further point of the same batch is chosen elsewhere.

    Args:
        state: As ``posterior`` returned it; it is not changed.
        x: Features (B, d).
        expected: What the prior says of x; needed if the state was fitted with a prior.
    """
    hyper, there = Hyperparameters.of_vector(state["hyperparameters"]), _view(state, x, expected)
    cross = _covariance(hyper, there, _seen(state))
    n, count, noise = len(state["x"]), len(x), np.full(len(x), math.exp(hyper.log_noise))
    left = _halved(state["cholesky"], cross.T)
    factor = np.zeros((n + count, n + count))
    factor[:n, :n], factor[n:, :n] = state["cholesky"], left.T
    factor[n:, n:] = _factor(_covariance(hyper, there, there) - left.T @ left, noise)
    grown = dict(state) | {"x": np.concatenate([state["x"], x]), "cholesky": factor}
    grown["residual"] = np.concatenate([state["residual"], cross @ state["alpha"]])
    grown["noise"] = np.concatenate([state["noise"], noise])
    if expected is not None:
        grown["basis"] = np.concatenate([state["basis"], expected.basis])
    grown["alpha"] = _solved(factor, grown["residual"])
    return grown


# -- covariances -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """What the covariance sees of B configurations."""

    scaled: Floats
    """Features over their length scales, (B, d)."""
    effects: Floats
    """φ / √p, (B, 2p)."""
    basis: Floats | None


def _view(state: Arrays, x: Floats, expected: Expected | None) -> _View:
    columns = FeatureColumns(state["groups"], state["numbers"], state["activity"])
    lengths = np.exp(state["hyperparameters"][:-4])[columns.groups]
    return _View(x / lengths, _effects(x, columns), None if expected is None else expected.basis)


def _seen(state: Arrays) -> _View:
    known = Expected(np.zeros(0), state["basis"]) if "basis" in state else None
    return _view(state, state["x"], known)


def _effects(x: Floats, columns: FeatureColumns) -> Floats:
    """φ / √p: Legendre polynomials of degree 1 and half of those of degree 2, (B, 2p), 0 where a number is inactive."""
    z = 2 * x[:, columns.numbers] - 1
    both = np.concatenate([z, (3 * z**2 - 1) / 4], axis=1) / math.sqrt(max(len(columns.numbers), 1))
    if (columns.activity >= 0).any():
        active = np.where(columns.activity >= 0, x[:, columns.activity], 1.0)
        both *= np.concatenate([active, active], axis=1)
    return both


def _with_pairs(kernel: Floats) -> Floats:
    return np.asarray(kernel + kernel**2)


def _covariance(hyper: Hyperparameters, a: _View, b: _View) -> Floats:
    """Between rewards at a (A, d) and at b (B, d), without noise: (A, B)."""
    squared = np.einsum("ij,ij->i", a.scaled, a.scaled)[:, None] + np.einsum("ij,ij->i", b.scaled, b.scaled)
    squared -= 2 * a.scaled @ b.scaled.T
    distance = np.sqrt(5 * np.maximum(squared, 1e-20))
    # Matérn-5/2 (R&W, eq. 4.17).
    covariance = math.exp(2 * hyper.log_r) * (1 + distance + distance**2 / 3) * np.exp(-distance)
    covariance += math.exp(2 * hyper.log_a) * _with_pairs(a.effects @ b.effects.T)
    if a.basis is not None and b.basis is not None:
        covariance += a.basis @ b.basis.T
    return np.asarray(1.0 + math.exp(2 * hyper.log_scale) * covariance)


def _own_variance(hyper: Hyperparameters, there: _View) -> Floats:
    """The diagonal of ``_covariance`` of a view with itself, (B,)."""
    effects = _with_pairs(np.einsum("ij,ij->i", there.effects, there.effects))
    variance = math.exp(2 * hyper.log_r) + math.exp(2 * hyper.log_a) * effects
    if there.basis is not None:
        variance += np.einsum("ij,ij->i", there.basis, there.basis)
    return np.asarray(1.0 + math.exp(2 * hyper.log_scale) * variance)


def _factor(covariance: Floats, noise: Floats) -> Floats:
    """Cholesky factor (N, N) of the covariance of measured rewards, with as little jitter as it takes.

    The jitter is relative to the variances: a prior may make them large, and rounding errors with them.
    """
    if not len(noise):
        return covariance
    size = max(1.0, float(covariance.diagonal().mean()))
    for jitter in (0.0, 1e-8, 1e-6, 1e-4):
        factor, info = lapack.dpotrf(covariance + np.diag(noise + jitter * size), lower=1, clean=1)
        if info == 0:
            return np.asarray(factor, dtype=np.float64)
    raise ValueError("the covariance of the rewards is not positive definite")


def _inverse(factor: Floats) -> Floats:
    """K⁻¹ (N, N) from the lower factor of K."""
    if not len(factor):
        return factor
    lower, _ = lapack.dpotri(factor, lower=1)
    return np.asarray(np.tril(lower) + np.tril(lower, -1).T)


def _solved(factor: Floats, right: Floats) -> Floats:
    """K⁻¹ right, (N,)."""
    # LAPACK takes columns for rows: so to it the lower factor is an upper one, and nothing has to be copied.
    return np.asarray(lapack.dpotrs(np.ascontiguousarray(factor).T, right, lower=0)[0]) if len(right) else right


def _halved(factor: Floats, right: Floats) -> Floats:
    """L⁻¹ right, (N, B), for the lower factor L of K."""
    if not len(right):
        return right
    return np.asarray(lapack.dtrtrs(np.ascontiguousarray(factor).T, right, lower=0, trans=1)[0])


def subset(features: Floats, rewards: Floats) -> Ints:
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
