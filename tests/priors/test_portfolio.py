"""Portfolios: configurations that complement each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlhpo_core.priors import portfolio
from rlhpo_core.space.search_space import load_space
from rlhpo_core.trial import Config

SPACE = load_space("""
x: {type: float, low: 0.0, high: 1.0}
rounds: {type: int, low: 1, high: 1000, log: true}
""")
PEAKS = np.array([0.2, 0.2, 0.2, 0.8])


def gains(configs: list[Config]) -> NDArray[np.float64]:
    """Three tasks want x at 0.2 and one at 0.8; the number of rounds does not matter."""
    x = np.array([float(config["x"]) for config in configs])
    return np.asarray(1 - 4 * np.abs(x - PEAKS[:, None]))


def chosen(size: int, cost: portfolio.Cost | None = None) -> list[Config]:
    anywhere = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    return portfolio.choose(SPACE, gains, anywhere, size, seed=0, cost=cost)


def test_it_has_something_good_for_every_task_and_begins_with_what_is_good_for_most() -> None:
    first, second = (float(config["x"]) for config in chosen(2))
    assert abs(first - 0.2) < 0.01
    assert abs(second - 0.8) < 0.01


def test_of_what_is_equally_good_the_cheaper_is_taken() -> None:
    cheap = chosen(2, lambda configs: np.array([float(config["rounds"]) for config in configs]))
    assert all(float(config["rounds"]) < 10 for config in cheap)
    assert {round(float(config["x"]), 1) for config in cheap} == {0.2, 0.8}


def test_it_ends_where_nothing_can_be_added() -> None:
    def flat(configs: list[Config]) -> NDArray[np.float64]:
        return np.ones((2, len(configs)))

    found = portfolio.choose(SPACE, flat, np.zeros((3, 2)), 5, seed=0)
    assert len(found) == 1


def test_a_seed_gives_the_same_portfolio() -> None:
    assert chosen(3) == chosen(3)
