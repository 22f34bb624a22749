"""Which hyperparameters matter: Sobol indices of the objective, computed on a Gaussian process fitted to the trials.

The first-order index S of a hyperparameter is the share of the objective's variance over the search space that it
explains alone, the total index T its share with all interactions it takes part in (Sobol 1993). Estimators: for S
Saltelli et al. 2010, table 2 (b); for T Jansen 1999, both on scrambled Sobol points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from rlhpo_core.arrays import Floats
from rlhpo_core.space.feature_columns import feature_columns
from rlhpo_core.space.parameters import Tunable
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History
from rlhpo_core.tuner import gaussian_process, reward_model
from rlhpo_core.tuner.reward_model import RewardModel, clip_low_outliers

#: With fewer complete trials there is nothing to conclude.
MIN_TRIALS = 10
#: A model that predicts left-out trials no better than their mean has found nothing but noise.
LEAST_R2 = 0.0
_LOG2_POINTS = 11
#: Bootstrap samples of the trials, and points for each.
_RESAMPLES, _LOG2_RESAMPLED = 20, 8


@dataclass(frozen=True)
class Importance:
    """Sobol indices of one hyperparameter, each in [0, 1]."""

    name: str
    first: float
    """Share of the variance that it explains alone."""
    total: float
    """Share with all interactions."""
    total_std: float = 0.0
    """Standard deviation of ``total`` over bootstrap samples of the trials."""


@dataclass(frozen=True)
class Sensitivity:
    """Importances, the largest total first, and how far the model behind them can be trusted."""

    importances: tuple[Importance, ...]
    r2: float
    """R² of the Gaussian process on trials left out one at a time."""
    trials: int
    """Complete trials that it was fitted to."""


def analyse(spec: StudySpec, history: History) -> Sensitivity | None:
    """Sobol indices of every tunable hyperparameter, which vary uniformly over the space (on their own scales).

    The same study gives the same indices. ``None`` with fewer than two hyperparameters or MIN_TRIALS complete trials,
    if the trials' values, or the model's predictions, are all equal, or if the model predicts left-out trials no better
    than their mean: then the trials differ by no more than noise, and shares of it would be shares of nothing.
    """
    complete = list(history.complete())
    rewards = np.array([history.reward(trial) for trial in complete], dtype=np.float64)
    if len(spec.space.steps) < 2 or len(complete) < MIN_TRIALS or len(np.unique(rewards)) < 2:
        return None
    features = spec.space.features([trial.config for trial in complete])
    columns = feature_columns(spec.space)
    model = reward_model.fit("gp", features, _treated(rewards), spec.seed, columns=columns)
    if model.diagnostics is not None and model.diagnostics.r2 <= LEAST_R2:
        return None
    indices = _sobol_indices(spec, model, _LOG2_POINTS)
    if indices is None:
        return None
    spread = _spread(spec, model, features, _treated(rewards))
    importances = [
        Importance(step.name, float(first), float(total), float(std))
        for step, first, total, std in zip(spec.space.steps, *indices, spread, strict=True)
    ]
    importances.sort(key=lambda importance: -importance.total)
    return Sensitivity(tuple(importances), model.diagnostics.r2 if model.diagnostics else 0.0, len(complete))


def _treated(rewards: Floats) -> Floats:
    """Rewards with low outliers clipped as the reward model does it, and scaled to [-1, 1].

    Scaling leaves Sobol indices as they are. A training run that diverged may score 1e300, whose square would overflow.
    """
    bulk = clip_low_outliers(rewards)
    return np.asarray(bulk / np.abs(bulk).max(), dtype=np.float64)


def importance(spec: StudySpec, history: History) -> list[Importance]:
    """The importances of ``analyse`` alone; empty where it returns ``None``."""
    sensitivity = analyse(spec, history)
    return list(sensitivity.importances) if sensitivity else []


def by_importance(space: SearchSpace, sensitivity: Sensitivity | None) -> list[Tunable]:
    """The hyperparameters of a space, the most important first; in the space's order if that is not known."""
    if sensitivity is None:
        return list(space.steps)
    order = [importance.name for importance in sensitivity.importances]
    return sorted(space.steps, key=lambda step: order.index(step.name))


def _spread(spec: StudySpec, model: RewardModel, features: Floats, rewards: Floats) -> Floats:
    """Standard deviation of the total indices, (n steps), over bootstrap samples of the trials.

    The Gaussian process keeps its hyperparameters; only its posterior is computed anew.
    """
    rng = np.random.default_rng(spec.seed)
    totals = []
    for _ in range(_RESAMPLES):
        rows = np.unique(rng.integers(len(rewards), size=min(len(rewards), gaussian_process.MAX_POINTS)))
        resampled = model.of_others(features[rows], clip_low_outliers(rewards)[rows])
        indices = _sobol_indices(spec, resampled, _LOG2_RESAMPLED)
        if indices is not None:
            totals.append(indices[1])
    return np.std(totals, axis=0) if len(totals) > 1 else np.zeros(len(spec.space.steps))


def _sobol_indices(spec: StudySpec, model: RewardModel, log2_points: int) -> tuple[Floats, Floats] | None:
    """First-order and total indices, each (n steps); ``None`` if the model predicts the same everywhere."""
    n = len(spec.space.steps)

    def predict(unit: Floats) -> Floats:
        return model.predict(spec.space.features_of_actions(2 * unit - 1))[0]

    points = qmc.Sobol(2 * n, scramble=True, rng=spec.seed).random_base2(log2_points)
    a, b = points[:, :n], points[:, n:]
    # Both estimators stay the same when a constant is subtracted; a small mean makes that of S far more accurate.
    f_a, f_b = predict(a), predict(b)
    centre, variance = float(np.mean([f_a, f_b])), float(np.var([f_a, f_b]))
    if variance <= (1e-9 * max(abs(centre), 1e-300)) ** 2:
        return None
    first, total = np.zeros(n), np.zeros(n)
    for i in range(n):
        mixed = a.copy()
        mixed[:, i] = b[:, i]
        f_mixed = predict(mixed)
        first[i] = np.mean((f_b - centre) * (f_mixed - f_a)) / variance
        total[i] = np.mean((f_a - f_mixed) ** 2) / (2 * variance)
    return np.clip(first, 0, 1), np.clip(total, 0, 1)
