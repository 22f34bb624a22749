"""Time of the learning parts on one core, and where a whole study's goes.

    OMP_NUM_THREADS=1 python -m benchmarks.performance
    OMP_NUM_THREADS=1 python -m benchmarks.performance --trials 2000

256 episodes of 14 steps are sampled, then learnt from by one PPO update of 4 epochs; each reward model is fitted to 100
trials. Medians. With ``--trials`` a study of so many trials is made instead, in the default settings, on a function
that costs nothing, and the CPU time of each of the tuner's steps is told by the number of trials so far.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import get_args

import numpy as np
import torch

from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import AgentSettings, Kind, PPOSettings, TunerSettings
from rlhpo_core.trial import Config, Proposal, Trial, TrialStatus
from rlhpo_core.tuner import algorithm, ppo, reward_model
from rlhpo_core.tuner.agent import Agent

EPISODES, STEPS, REPEATS = 256, 14, 21
#: Numbers of trials at which a study's time is told, each the mean of the ROUNDS rounds before: some rounds search the
#: hyperparameters of the Gaussian process, and others do not.
MARKS, ROUNDS = (25, 50, 100, 200, 400, 800, 1200, 1600, 2000), 5


def median(task: Callable[[], object]) -> float:
    """Seconds, after one run to warm up."""
    task()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def space_of(steps: int) -> SearchSpace:
    return SearchSpace.model_validate({f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(steps)})


def height(config: Config) -> float:
    """One hill, and ripples on it."""
    x = np.array([float(value) for value in config.values()])
    return float(-np.square(x - 0.6).sum() + 0.1 * np.cos(9 * x).sum())


def whole_study(trials: int) -> None:
    """Print the CPU seconds a trial of each step."""
    state = algorithm.initial_state("time", 0, space_of(STEPS), "maximize", TunerSettings())
    spent: list[list[float]] = []
    print(f"{STEPS} hyperparameters, {state.settings.trials_per_round} trials a round; CPU ms a trial\n")
    print("| trials | propose | observe | fit_reward_model | update_policy | all |\n|---|---|---|---|---|---|")
    total = 0.0
    while len(state.history) < trials:
        marks = [time.process_time()]
        proposals = algorithm.propose(state)
        marks.append(time.process_time())
        done = [_done(proposal) for proposal in proposals]
        state = algorithm.observe(state, done)
        marks.append(time.process_time())
        state = algorithm.fit_reward_model(state)
        marks.append(time.process_time())
        state = algorithm.update_policy(state)
        marks.append(time.process_time())
        spent.append((np.diff(marks) / len(done)).tolist())
        total += marks[-1] - marks[0]
        if len(state.history) in MARKS:
            typical = np.mean(np.array(spent[-ROUNDS:]), axis=0) * 1e3
            cells = " | ".join(f"{value:.1f}" for value in [*typical, typical.sum()])
            print(f"| {len(state.history)} | {cells} |", flush=True)
    print(f"\n{total:.0f} CPU s in all")


def _done(proposal: Proposal) -> Trial:
    return Trial(proposal=proposal, status=TrialStatus.COMPLETE, value=height(proposal.config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, help="of a whole study")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.trials:
        print(f"torch {torch.__version__}, Python {platform.python_version()}, one thread")
        whole_study(given.trials)
        return
    space = space_of(STEPS)
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
