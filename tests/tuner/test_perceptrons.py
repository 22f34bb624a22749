from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhpo_core.tuner.reward_model import fit
from tests.helpers.regression import sample


def test_the_members_of_an_ensemble_differ() -> None:
    x, y = sample(30)
    state = fit("ensemble", x, y, seed=0).state()
    assert state["w0"].shape == (10, 4, 64)
    assert not torch.equal(state["w0"][0], state["w0"][1])
    assert fit("mlp", x, y, seed=0).state()["w0"].shape == (1, 4, 64)


def test_the_noise_of_a_perceptron_is_its_error_on_what_it_has_not_seen() -> None:
    x, y = sample(200, noise=0.5)
    _, std = fit("mlp", x, y, seed=0).predict(x)
    assert np.ptp(std) == 0
    assert std[0] == pytest.approx(0.5, rel=0.3)
