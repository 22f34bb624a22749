from __future__ import annotations

import numpy as np
import pytest

from rlhpo_core.evaluators.metrics import score


def test_binary_and_two_column_probabilities_score_the_same() -> None:
    rng = np.random.default_rng(0)
    target, share = rng.integers(0, 2, 200).astype(float), rng.uniform(0.01, 0.99, 200)
    both = np.column_stack([1 - share, share])
    for metric in ("accuracy", "balanced_accuracy", "log_loss"):
        assert score(metric, target, share, 2) == pytest.approx(score(metric, target, both, 2), abs=1e-9)
