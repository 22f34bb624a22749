"""The learned reward model F, which stands in for real training runs.

It maps the features of a configuration to the mean and the standard deviation of its reward. There are three kinds:

``mlp``
    The paper's: one multilayer perceptron. Its uncertainty is the standard deviation of its held-out residuals, the
    same everywhere.
``ensemble``
    Bootstrapped multilayer perceptrons. Where they disagree, the model is uncertain (Lakshminarayanan et al., NeurIPS
    2017).
``gp``
    Exact Gaussian process, which may start from a prior that other studies have taught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor

from rlhpo_core.arrays import Floats
from rlhpo_core.space.feature_columns import FeatureColumns
from rlhpo_core.study.tuner_settings import Acquisition, Kind
from rlhpo_core.tuner import gaussian_process, perceptrons
from rlhpo_core.tuner.acquisition import acquisition
from rlhpo_core.tuner.gaussian_process import Expected, Hyperparameters, Points

#: What a prior says of configurations with features (B, d).
Expect = Callable[[Floats], Expected]

#: Whether this is inside of ``one_thread``.
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)
#: Half width, in standard deviations, of the central 80 % interval of a normal distribution.
Z80 = 1.2815515655446004
#: Perceptrons of each kind.
MEMBERS = {"mlp": 1, "ensemble": 10}
#: How many interquartile ranges below the lower quartile a reward may lie before it is clipped.
FENCE = 1.5
#: Rewards beyond ± this count as this: their squares would overflow.
LARGEST_REWARD = 1e100


@dataclass(frozen=True)
class Diagnostics:
    """How well the model predicts trials that it was not fitted on."""

    r2: float
    """1 − squared error / variance of the rewards; 0.0 if they are all equal."""
    rank_correlation: float
    """Spearman's; 0.0 if predictions or rewards are all equal."""
    coverage: float
    """Fraction of rewards inside the model's central 80 % interval; 0.8 is calibrated."""
    n: int
    """Trials predicted."""


@dataclass(frozen=True)
class RewardModel:
    """A fitted model: its kind and its tensors, which nobody changes."""

    kind: Kind
    tensors: dict[str, Tensor]
    """The state of the Gaussian process or of the perceptrons; ``centre`` and ``scale`` of the rewards; ``seen``, the
    number of trials that the hyperparameters of the process were fitted to; ``diagnostics``.
    """
    expect: Expect | None = None
    """The prior's view of configurations, if the model was fitted with a prior."""

    @property
    def diagnostics(self) -> Diagnostics | None:
        """From held-out predictions; ``None`` below four trials."""
        if "diagnostics" not in self.tensors:
            return None
        r2, rank_correlation, coverage, n = self.tensors["diagnostics"].tolist()
        return Diagnostics(r2, rank_correlation, coverage, int(n))

    @property
    def informed(self) -> bool:
        """Whether it has seen trials; before, its rewards are in units of the prior."""
        return self.kind != "gp" or len(self.tensors["x"]) > 0

    def predict(self, features: Floats, noisy: bool = True) -> tuple[Floats, Floats]:
        """Mean and standard deviation, each (B,) in reward units, of the reward of configurations.

        Args:
            features: (B, d), in [0, 1].
            noisy: Whether the standard deviation is that of the reward that a training run would measure, or, where the
                model tells them apart, of the reward without noise.
        """
        return self._predict(features, noisy)[:2]

    def _predict(self, features: Floats, noisy: bool) -> tuple[Floats, Floats, Floats | None]:
        """Mean, std and, where a prior knows of it, cost, each (B,)."""
        x = np.ascontiguousarray(features, dtype=np.float64)
        with one_thread():
            expected = self.expect(x) if self.expect is not None else None
            if self.kind == "gp":
                mean, std = gaussian_process.predict(self._process, x, expected)
                if noisy:
                    std = np.sqrt(std**2 + np.exp(self._hyperparameters.log_noise))
            else:
                with torch.no_grad():
                    mean, std = (found.numpy() for found in perceptrons.predict(self.tensors, torch.from_numpy(x)))
        centre, scale = float(self.tensors["centre"]), float(self.tensors["scale"])
        return centre + scale * mean, scale * std, expected.cost if expected else None

    @cached_property
    def _process(self) -> dict[str, NDArray[Any]]:
        """The state of the Gaussian process, which shares its memory with the tensors."""
        return {name: tensor.numpy() for name, tensor in self.tensors.items()}

    @property
    def _hyperparameters(self) -> Hyperparameters:
        return Hyperparameters.of_vector(self._process["hyperparameters"])

    def worth(
        self, name: Acquisition, features: Floats, best: float, noisy: bool = True, tolerance: float | None = None
    ) -> Floats:
        """The acquisition value of configurations, (B,), per unit of cost where the cost is known.

        Expected improvement is divided by 1 + cost / tolerance, much as Snoek et al. (NeurIPS 2012, section 3.2) divide
        it by the cost; from its logarithm, the logarithm of that is subtracted. ``mean``, which may be negative, and
        ``ucb`` stay as they are.

        Args:
            name: The acquisition function.
            features: (B, d), in [0, 1].
            best: The reward to be improved upon, in reward units.
            noisy: As in ``predict``.
            tolerance: The cost, relative to a usual configuration's, that halves expected improvement. Costs do not
                count if it is not given, or if there is no prior that knows them.
        """
        mean, std, cost = self._predict(features, noisy)
        value = acquisition(name, mean, std, best)
        if tolerance is None or cost is None or name not in ("ei", "log_ei"):
            return value
        log_cost_factor = np.log1p(cost / tolerance)
        return np.asarray(value - log_cost_factor if name == "log_ei" else value * np.exp(-log_cost_factor))

    def conditioned(self, features: Floats) -> RewardModel:
        """The model after fantasy trials with features (B, d), each with its predicted mean (kriging believer).

        Perceptrons stay as they are.
        """
        if self.kind != "gp":
            return self
        x = np.ascontiguousarray(features, dtype=np.float64)
        with one_thread():
            grown = gaussian_process.conditioned(self._process, x, self.expect(x) if self.expect else None)
        return replace(self, tensors=_tensors(grown))

    def of_others(self, features: Floats, rewards: Floats) -> RewardModel:
        """A Gaussian process without a prior with the same hyperparameters and units, given other trials.

        Args:
            features: (N, d), in [0, 1].
            rewards: (N,).
        """
        columns = FeatureColumns(*(self._process[name] for name in ("groups", "numbers", "activity")))
        y = (rewards - float(self.tensors["centre"])) / float(self.tensors["scale"])
        with one_thread():
            state, _, _ = gaussian_process.posterior(
                Points(features, y, np.ones(len(y)), columns), self._hyperparameters
            )
        return replace(self, tensors=self.tensors | _tensors(state))

    def state(self) -> dict[str, Tensor]:
        """Contiguous tensors from which ``from_state`` restores the same predictions, bit for bit."""
        return dict(self.tensors)


def fit(
    kind: Kind,
    features: Floats,
    rewards: Floats,
    seed: int,
    warm_start: RewardModel | None = None,
    sample_weights: Floats | None = None,
    judged: int | None = None,
    expect: Expect | None = None,
    columns: FeatureColumns | None = None,
) -> RewardModel:
    """Fit a model to trials.

    Args:
        kind: ``mlp``, ``ensemble`` or ``gp``.
        features: (N, d), in [0, 1].
        rewards: (N,), of any scale, higher is better.
        seed: Of the perceptrons' initial weights, bootstrap samples and folds; a Gaussian process draws nothing.
        warm_start: A Gaussian process starts its search for hyperparameters from those of this one. Perceptrons always
            start afresh, since warm-started ones generalise worse (Ash & Adams, NeurIPS 2020).
        sample_weights: (N,), in (0, 1]; a trial's noise variance is 1/weight times as large. 1 if not given.
        judged: How many of the last trials the diagnostics are about; all if not given.
        expect: A prior's view of configurations. Only a Gaussian process uses it, and then one trial suffices.
        columns: What the features are; only a Gaussian process asks. Numbers that are always active if not given.

    Raises: ValueError on fewer than two trials, shapes that disagree, NaN, infinity or an unknown kind.
    """
    _check_kind(kind)
    expect = expect if kind == "gp" else None
    x, y = _checked(features, rewards, least=2 if expect is None else 1)
    weights = np.ones(len(y)) if sample_weights is None else np.asarray(sample_weights, dtype=np.float64)
    among_judged = np.arange(len(y)) >= len(y) - (len(y) if judged is None else judged)
    y = clip_low_outliers(y)
    if kind == "gp":
        rows = gaussian_process.subset(x, y)
        x, y, weights, among_judged = x[rows], y[rows], weights[rows], among_judged[rows]
    centre, scale = float(y.mean()), _scale(y) if len(y) > 1 else 1.0
    standardised = (y - centre) / scale
    with one_thread():
        if kind == "gp":
            points = Points(
                x, standardised, weights, columns or FeatureColumns.plain(x.shape[1]), expect(x) if expect else None
            )
            state, mean, std = _fitted_process(points, len(rewards), warm_start)
        else:
            given, targets, w = (torch.from_numpy(array.copy()) for array in (x, standardised, weights))
            state, *held_out = perceptrons.fit(given, targets, MEMBERS[kind], seed, w)
            mean, std = (found.numpy() for found in held_out)
    state |= {name: torch.tensor(v, dtype=torch.float64) for name, v in (("centre", centre), ("scale", scale))}
    if among_judged.sum() >= 4:
        quality = _diagnose(*(array[among_judged] for array in (standardised, mean, std)))
        values = [quality.r2, quality.rank_correlation, quality.coverage, float(quality.n)]
        state["diagnostics"] = torch.tensor(values, dtype=torch.float64)
    return RewardModel(kind, state, expect)


def _fitted_process(
    points: Points, trials: int, warm_start: RewardModel | None
) -> tuple[dict[str, Tensor], Floats, Floats]:
    """The Gaussian process of the points, and its leave-one-out predictions.

    Args:
        trials: From which the points were chosen.
        warm_start: As for ``fit``.
    """
    previous, seen = None, 0
    if warm_start is not None and warm_start.kind == "gp":
        previous, seen = warm_start._hyperparameters, int(warm_start.tensors["seen"])
    hyper = gaussian_process.fit(points, previous, seen, trials)
    state, mean, std = gaussian_process.posterior(points, hyper)
    seen = seen if hyper is previous else trials
    return _tensors(state) | {"seen": torch.tensor(seen)}, mean, std


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Copies, aligned as those are that a file is read into: so both give the same sums, bit for bit."""
    order = torch.contiguous_format
    return {name: torch.from_numpy(np.array(array)).clone(memory_format=order) for name, array in arrays.items()}


def _checked(features: Floats, rewards: Floats, least: int) -> tuple[Floats, Floats]:
    """Features (N, d) and rewards (N,) in double precision. Raises: ValueError if they cannot be fitted."""
    x, y = np.asarray(features, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or x.shape[1] == 0:
        raise ValueError(f"features (N, d) and rewards (N,) are wanted, not {x.shape} and {y.shape}")
    if len(y) < least:
        raise ValueError("a reward model needs at least two trials")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features and rewards must be finite")
    return x, y


def before_trials(columns: FeatureColumns, expect: Expect) -> RewardModel:
    """The Gaussian process before the first trial, in which the prior alone predicts.

    Its rewards are in units of the prior: 0 for a middling configuration, 1 for the best.

    Args:
        columns: What the features are.
        expect: The prior's view of configurations.
    """
    with one_thread():
        state = gaussian_process.unfitted(columns, expect(np.zeros((0, len(columns.groups)))))
    state |= {"centre": np.array(0.0), "scale": np.array(1.0), "seen": np.array(0)}
    return RewardModel("gp", _tensors(state), expect)


def from_state(kind: Kind, state: dict[str, Tensor], expect: Expect | None = None) -> RewardModel:
    """The model whose ``state()`` this was.

    Args:
        kind: The model's kind, which the state does not hold.
        state: The tensors; they are not copied.
        expect: The view of the prior that it was fitted with.

    Raises: KeyError if a tensor is missing, ValueError on an unknown kind.
    """
    _check_kind(kind)
    names = (*gaussian_process.STATE, "seen") if kind == "gp" else perceptrons.STATE
    for name in (*names, "centre", "scale"):
        if name not in state:
            raise KeyError(name)
    return RewardModel(kind, dict(state), expect if kind == "gp" else None)


def _check_kind(kind: str) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"unknown kind of reward model: {kind!r}; choose one of {', '.join(get_args(Kind))}")


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and BLAS on one thread, for a ``with`` statement or as a decorator.

    The result must not depend on how many threads share a sum; at these sizes one thread is also the fastest.
    """
    if _ALONE.get():  # To ask and set the pools takes longer than many a prediction.
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    inside = _ALONE.set(True)
    try:
        with _pools().limit(limits=1, user_api="blas"):
            yield
    finally:
        _ALONE.reset(inside)
        torch.set_num_threads(threads)


@cache
def _pools() -> ThreadpoolController:
    """Those of NumPy and SciPy among others, which are loaded by now: to look for them takes ten times as long."""
    return ThreadpoolController()


# -- what the kinds share --------------------------------------------------------------------------------------------


def clip_low_outliers(rewards: Floats) -> Floats:
    """Rewards (N,) with low outliers clipped.

    A few configurations score terribly. How terribly does not matter, but would dominate the squared error: rewards
    more than FENCE interquartile ranges below the lower quartile are set to that limit (Tukey's fence).
    """
    rewards = np.clip(rewards, -LARGEST_REWARD, LARGEST_REWARD)
    low, high = np.quantile(rewards, [0.25, 0.75])
    return np.maximum(rewards, low - FENCE * (high - low)) if high > low else rewards


def _scale(rewards: Floats) -> float:
    """Standard deviation; tiny if they are equal, but never so tiny that rounding errors count as differences."""
    return max(float(rewards.std()), 1e-9 * float(np.abs(rewards).max())) or 1e-9


def _diagnose(rewards: Floats, mean: Floats, std: Floats) -> Diagnostics:
    """The diagnostics of held-out predictions of standardised rewards, all (N,)."""
    variance = float(rewards.var())
    return Diagnostics(
        r2=1 - float(np.mean((rewards - mean) ** 2)) / variance if variance > 1e-12 else 0.0,
        rank_correlation=rank_correlation(rewards, mean),
        coverage=float(np.mean(np.abs(rewards - mean) <= Z80 * std)),
        n=len(rewards),
    )


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation of a and b, each (N,); 0.0 if all values of either are equal."""
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    scale = float(ranks_a.std() * ranks_b.std())
    return float(np.mean((ranks_a - ranks_a.mean()) * (ranks_b - ranks_b.mean()))) / scale if scale > 0 else 0.0


def _ranks(values: Floats) -> Floats:
    """Ranks (N,), ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], dtype=np.float64)
