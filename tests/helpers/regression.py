"""Points of a smooth function, for reward models to be fitted to."""

from __future__ import annotations

import numpy as np

from rlhpo_core.arrays import Floats


def smooth(x: Floats) -> Floats:
    """Values (N,) at points x (N, d ≥ 3); only the first three coordinates count."""
    return np.sin(4 * x[:, 0]) + x[:, 1] ** 2 - x[:, 0] * x[:, 2]


def sample(count: int, seed: int = 0, noise: float = 0.0, d: int = 4) -> tuple[Floats, Floats]:
    """Random points (count, d) in [0, 1] and noisy values (count,)."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, d))
    return x, smooth(x) + noise * rng.standard_normal(count)
