from __future__ import annotations

import numpy as np
import torch

from rlhpo_core.space.search_space import load_space
from rlhpo_core.tuner import algorithm
from rlhpo_core.tuner.screening import perturbed
from rlhpo_core.tuner.state import initial_state
from tests.helpers.studies import CUBE, after_rounds, bowl, small_settings


def test_screened_proposals_are_promising_and_lie_apart() -> None:
    settings = small_settings(model={"kind": "gp"}, screening={"candidates": 200, "reward": "mean", "spread": 0.05})
    state = after_rounds(initial_state("study-1", 0, CUBE, "maximize", settings), bowl, 5)
    assert state.model is not None
    proposals = algorithm.propose(state)
    predicted = [proposal.predicted for proposal in proposals]
    drawn = state.agent.play(torch.randn(200, 4, generator=torch.Generator().manual_seed(0))).actions_or_nan()
    typical, _ = state.model.predict(CUBE.features_of_actions(drawn))
    assert min(mean or 0.0 for mean in predicted) > np.quantile(typical, 0.9)
    points = CUBE.features([proposal.config for proposal in proposals])
    known = CUBE.features([trial.config for trial in state.history.trials])
    for index, point in enumerate(points):
        others = np.concatenate([known, points[:index]])
        assert np.linalg.norm(others - point, axis=1).min() > 0.05 * 2


def test_screening_a_space_of_four_configurations_repeats_itself_rather_than_failing() -> None:
    space = load_space("a: {type: bool}\nb: {type: bool}")
    settings = small_settings(model={"kind": "gp"}, screening={"candidates": 16})
    start = initial_state("study-1", 0, space, "maximize", settings)
    state = after_rounds(start, lambda c: float(c["a"]) + 0.5 * float(c["b"]), 4)
    assert len(algorithm.propose(state)) == 4
    assert state.history.best_so_far()[-1] == 1.5


def test_mutations_stay_in_range_and_move_a_few_steps() -> None:
    parents = np.random.default_rng(0).uniform(-1, 1, (3, 12))
    children = perturbed(parents, 2000, 0.2, np.random.default_rng(1))
    assert children.shape == (2000, 12)
    assert np.abs(children).max() <= 1
    moved = np.stack([(children != parent).sum(axis=1) for parent in parents]).min(axis=0)
    assert moved.min() >= 1
    assert 2.5 < moved.mean() < 4.5


def test_a_step_that_was_inactive_in_the_parent_gets_an_action() -> None:
    parents = np.array([[0.5, np.nan, -0.5]])
    children = perturbed(parents, 500, 0.1, np.random.default_rng(0))
    assert np.isfinite(children).all()
    assert children[:, 1].std() > 0.5, "from anywhere"
