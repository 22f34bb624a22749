"""Acquisition functions: what a configuration is worth trying, given the reward model's prediction of it."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from rlhpo_core.arrays import Floats
from rlhpo_core.study.tuner_settings import Acquisition


def acquisition(name: Acquisition, mean: Floats, std: Floats, best: float, beta: float = 2.0) -> Floats:
    """The acquisition values (B,) of configurations; higher is better.

    Args:
        name: ``mean``; ``ei``, expected improvement over ``best``; ``log_ei``, its logarithm, accurate where EI
            underflows (Ament et al., NeurIPS 2023, eq. 9); ``ucb``, the upper confidence bound mean + beta · std.
        mean: Predicted rewards (B,).
        std: Their standard deviations (B,); below 1e-12 they count as 1e-12.
        best: The reward to be improved upon; ``mean`` and ``ucb`` ignore it.
        beta: How much ``ucb`` rewards uncertainty.

    Raises: ValueError on an unknown name.
    """
    if name == "mean":
        return np.asarray(mean, dtype=np.float64)
    if name == "ucb":
        return np.asarray(mean + beta * std, dtype=np.float64)
    std = np.maximum(std, 1e-12)
    z = (mean - best) / std
    if name == "log_ei":
        return np.asarray(_log_h(z) + np.log(std), dtype=np.float64)
    if name == "ei":
        return np.asarray(np.exp(_log_h(z)) * std, dtype=np.float64)
    raise ValueError(f"unknown acquisition function: {name!r}")


def _log_h(z: Floats) -> Floats:
    """log(φ(z) + z Φ(z)), by Ament et al. (2023), eq. 9."""
    log_root = 0.5 * math.log(2 * math.pi)
    near = np.maximum(z, -1.0)
    direct = np.log(np.exp(-0.5 * near**2 - log_root) + near * special.ndtr(near))
    mid = np.clip(z, -1e6, -1.0)
    tail = np.log1p(-np.sqrt(np.pi / 2) * special.erfcx(-mid / math.sqrt(2)) * -mid)
    tail = np.where(z < -1e6, -2 * np.log(-np.minimum(z, -1.0)), tail)
    return np.asarray(np.where(z > -1, direct, -0.5 * z**2 - log_root + tail), dtype=np.float64)
