"""Time of the learning parts on one core: OMP_NUM_THREADS=1 python benchmarks/performance.py

256 episodes of 14 steps are sampled, then learnt from by one PPO update of 4 epochs; each reward model is fitted to 100
trials. Medians.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import get_args

import numpy as np
import torch

from rlhpo_core import ppo, reward_model
from rlhpo_core.agent import Agent
from rlhpo_core.settings import AgentSettings, Kind, PPOSettings
from rlhpo_core.space import SearchSpace

EPISODES, STEPS, REPEATS = 256, 14, 21


def median(task: Callable[[], object]) -> float:
    """Seconds, after one run to warm up."""
    task()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    torch.set_num_threads(1)
    space = SearchSpace.model_validate({f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(STEPS)})
    print(f"torch {torch.__version__}, Python {platform.python_version()}, one thread, median of {REPEATS}\n")
    print(f"| profile | sample {EPISODES} × {STEPS} | PPO update, 4 epochs | both |")
    print("|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(EPISODES, STEPS, generator=generator)
    advantages = torch.randn(EPISODES, generator=generator)
    settings = PPOSettings(epochs=4)
    for profile in ("paper", "extended"):
        agent = Agent(space, AgentSettings.model_validate({"profile": profile}), one_step=False, seed=0)
        optimizer = ppo.make_optimizer(agent, settings)
        rollout = agent.play(noise)
        sample = median(lambda agent=agent: agent.play(noise))  # type: ignore[misc]
        update = median(lambda a=agent, o=optimizer, r=rollout: ppo.update(a, o, r, advantages, settings))  # type: ignore[misc]
        print(f"| {profile} | {sample * 1e3:.0f} ms | {update * 1e3:.0f} ms | {(sample + update) * 1e3:.0f} ms |")
    rng = np.random.default_rng(0)
    features = rng.random((100, STEPS))
    rewards = np.sin(features @ np.arange(STEPS)) + rng.normal(0, 0.1, 100)
    print("\n| reward model | fit to 100 trials |\n|---|---|")
    for kind in get_args(Kind):
        print(
            f"| {kind} | {median(lambda kind=kind: reward_model.fit(kind, features, rewards, seed=0)) * 1e3:.0f} ms |"
        )


if __name__ == "__main__":
    main()
