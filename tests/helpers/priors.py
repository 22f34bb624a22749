"""Priors learnt from finished studies of one function with a condition, and what its trainings cost."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from rlhpo_core.priors.training import FinishedStudy, PriorSettings, train
from rlhpo_core.space.search_space import SearchSpace, load_space
from rlhpo_core.trial import Config
from rlhpo_core.tuner.prior import Prior

SPACE = load_space("""
kind: {type: categorical, choices: [a, b]}
x: {type: float, low: 0.0, high: 1.0}
y: {type: float, low: 0.001, high: 1.0, log: true, when: {kind: a}}
""")
PEAKS = (0.6, 0.65, 0.7, 0.75, 0.8)


def height(config: Config, peak: float = 0.7) -> float:
    """Best at kind a and x near the peak; studies differ in where that is."""
    return (1.0 if config["kind"] == "a" else 0.0) - 2 * abs(float(config["x"]) - peak)


def finished(peak: float, seed: int, count: int = 60, space: SearchSpace = SPACE) -> FinishedStudy:
    """A study of random configurations."""
    rng = np.random.default_rng(seed)
    configs = space.decode(rng.uniform(-1, 1, (count, len(space.steps))))
    return FinishedStudy(f"study-{seed}", configs, np.array([height(config, peak) for config in configs]))


def cost(config: Config) -> float:
    """Of a training run, relative to a usual one's. It says nothing of how good a configuration is."""
    return (float(config["y"]) / 0.03) ** 2 if config["kind"] == "a" else 1.0


def timed(peak: float, seed: int) -> FinishedStudy:
    """All training runs of a study take longer than those of the study before."""
    study = finished(peak, seed)
    return replace(study, seconds=10.0**seed * np.array([cost(config) for config in study.configs]))


@cache
def taught_prior() -> Prior:
    """From five studies that do not tell how long their trials took."""
    studies = [finished(peak, seed) for seed, peak in enumerate(PEAKS)]
    settings = PriorSettings(width=32, features=8, steps=400, policy_updates=30, episodes=64)
    return train("test", SPACE, studies, "height", "made up by this test", settings)


@cache
def timed_prior() -> Prior:
    """From five studies that tell how long their trials took."""
    studies = [timed(peak, seed) for seed, peak in enumerate(PEAKS)]
    settings = PriorSettings(width=32, features=8, steps=1000, policy_updates=30, episodes=64)
    return train("timed", SPACE, studies, "height", settings=settings)
