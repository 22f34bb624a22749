"""What survives between the steps of the tuner, and what has been seen by then, as F and the policy take it.

Functions of a state give data; none changes it. ``algorithm`` has the steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhpo_core.arrays import Floats
from rlhpo_core.seeds import derive_seed
from rlhpo_core.space.feature_columns import FeatureColumns, feature_columns
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.stopping.lessons import taught_rewards, taught_weight
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import Config, Direction, History, Inherited, RoundSummary, Trial
from rlhpo_core.tuner import ppo, prior_mapping, reward_model
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.prior import Prior
from rlhpo_core.tuner.reward_model import LARGEST_REWARD, Expect, RewardModel

#: Seconds of a usual training run below which it does not matter how many times as long others take (decision 9).
QUICK = 0.01


@dataclass(frozen=True)
class TunerState:
    """All that survives between steps. ``agent`` and ``moments`` are never changed in place once in a state."""

    study_id: str
    seed: int
    """Of the study; every random draw derives from it."""
    settings: TunerSettings
    space: SearchSpace
    """With the steps in the order in which the agent takes them."""
    round: int
    """The round under way, counted from 0: the next ``propose`` is for it."""
    history: History
    """Trials of earlier rounds without their curves."""
    agent: Agent
    moments: ppo.Moments
    """Of the optimizer of the agent's parameters; empty until the policy has learnt."""
    model: RewardModel | None
    """F, fitted to the history up to ``model_trials``; ``None`` before there is one."""
    model_trials: int
    """How many of the study's own trials the model was fitted to."""
    summaries: tuple[RoundSummary, ...]
    """One per round that has ended."""
    inherited: Inherited | None = None
    """What an earlier study has handed on; see ``warm_start``."""
    prior: Prior | None = None
    """What many studies have taught; the policy and the reward model started from it."""
    first: Config | None = None
    """The evaluator's defaults: what to try first if nothing better is known."""
    promising: Floats | None = None
    """Actions (E, n) of what F found most promising when it was fitted; the next search begins from them, too."""

    def expect(self) -> Expect | None:
        """The prior's view of configurations of this space; ``None`` without a prior."""
        return None if self.prior is None else prior_mapping.expectation(self.prior, self.space)


def initial_state(
    study_id: str,
    seed: int,
    space: SearchSpace,
    direction: Direction,
    settings: TunerSettings,
    prior: Prior | None = None,
    first: Config | None = None,
) -> TunerState:
    """The state of a study before its first round.

    Args:
        study_id: Identities of trials derive from it.
        seed: Decides all random draws of the study.
        space: What is searched. ``settings.order_seed`` shuffles the order in which the agent chooses.
        direction: Of the objective.
        settings: Of the tuner.
        prior: What other studies have taught; the policy and a Gaussian process as reward model start from it.
        first: The evaluator's defaults; the middle of all ranges if not given.

    Raises: UserError if the prior does not fit the space.
    """
    if settings.order_seed is not None:
        names = [parameter.name for parameter in space.parameters]
        shuffled = np.random.default_rng(settings.order_seed).permutation(len(names))
        space = space.reordered([names[i] for i in shuffled])
    agent_seed, one_step = derive_seed(seed, 0, "agent"), settings.mode == "rl_doc"
    if prior is None:
        agent, model = Agent(space, settings.agent, one_step, agent_seed), None
    else:
        expect = prior_mapping.expectation(prior, space)
        agent = prior_mapping.starting_agent(prior, space, settings.agent, one_step, agent_seed)
        leans = settings.mode == "mbrl_sdp" and settings.model.kind == "gp"
        model = reward_model.before_trials(columns(space, settings), expect) if leans else None
    return TunerState(
        study_id=study_id,
        seed=seed,
        settings=settings,
        space=space,
        round=0,
        history=History(direction=direction),
        agent=agent,
        moments={},
        model=model,
        model_trials=0,
        summaries=(),
        prior=prior,
        first=first,
    )


def columns(space: SearchSpace, settings: TunerSettings) -> FeatureColumns:
    """What the reward model takes the features for."""
    columns = feature_columns(space)
    return columns if settings.model.effects else columns.without_numbers()


# -- what follows from it -------------------------------------------------------------------------------------------


def actions_of(state: TunerState, trials: Sequence[Trial]) -> Floats:
    """Those of the study's trials, (B, n), NaN where inactive."""
    rows = [[math.nan if action is None else action for action in trial.proposal.actions] for trial in trials]
    return np.array(rows).reshape(len(rows), len(state.space.steps))


def features_of(state: TunerState, trials: Sequence[Trial]) -> Floats:
    """Features (B, d) of the study's trials."""
    return state.space.features_of_actions(actions_of(state, trials))


def rewards_of(history: History) -> Floats:
    """Rewards (N,) of all trials. One of which nothing is known earns the worst there is, to be avoided from then on.

    NaN throughout if nothing is known of any. A trial that was stopped early counts as ``stopping.lessons`` says.
    """
    return _filled(taught_rewards(history))


def evidence(state: TunerState) -> tuple[Floats, Floats, Floats]:
    """Features (N, d), rewards (N,) and sample weights (N,) of inherited trials and then of the study's trials.

    Of the study's, those that were stopped early come first, and count as ``stopping.lessons`` says. The level of
    inherited rewards is shifted by what the configurations that both have in common have gained or lost.
    """
    measured = [state.history.reward(trial) for trial in state.history.trials]
    configs = [trial.config for trial in state.history.trials]
    earlier = state.inherited.trials if state.inherited is not None else ()
    then = {_key(trial.config): trial.reward for trial in earlier if trial.reward is not None}
    gains = [
        now - then[_key(config)]
        for config, now in zip(configs, measured, strict=True)
        if now is not None and _key(config) in then
    ]
    shift = float(np.mean(gains)) if gains else 0.0
    shifted = [None if trial.reward is None else trial.reward + shift for trial in earlier]
    noise = _noise(state)
    own = list(zip(state.history.trials, taught_rewards(state.history), strict=True))
    own.sort(key=lambda pair: pair[0].stop is None)
    taught = [reward for _, reward in own]
    sample_weights = [trial.weight for trial in earlier] + [taught_weight(trial, noise) for trial, _ in own]
    features = features_of(state, [trial for trial, _ in own])
    if earlier:
        features = np.concatenate([state.space.features([trial.config for trial in earlier]), features])
    return features, _filled(shifted + taught), np.array(sample_weights)


def best_reward(state: TunerState) -> float:
    """The highest reward of the study's own trials; of those that were inherited, while none of its own has a value."""
    rewards = rewards_of(state.history)
    return float((evidence(state)[1] if np.isnan(rewards).all() else rewards).max())


def cost_tolerance(state: TunerState) -> float | None:
    """That of the settings; ``None`` once the trials have shown that a usual training run takes less than QUICK."""
    expect = state.expect()
    took = [(trial.config, trial.seconds) for trial in state.history.complete()]
    if expect is None or not took:
        return state.settings.cost_tolerance
    cost = expect(state.space.features([config for config, _ in took])).cost
    quick = cost is not None and np.median(np.array([seconds for _, seconds in took]) / cost) < QUICK
    return None if quick else state.settings.cost_tolerance


def _filled(rewards: Sequence[float | None]) -> Floats:
    """Rewards (N,) with the worst of them where there is none."""
    measured = [reward for reward in rewards if reward is not None]
    worst = min(measured, default=math.nan)
    if measured and worst == max(measured):
        # All that worked did so equally well: still better than what did not work.
        worst -= max(abs(worst), 1.0)
    filled = np.array([worst if reward is None else reward for reward in rewards])
    return np.asarray(np.clip(filled, -LARGEST_REWARD, LARGEST_REWARD))


def _noise(state: TunerState) -> float | None:
    """Variance of a score around what F, as it was last fitted, predicts where it has seen one; ``None`` if unknown.

    Asked for only if a trial was stopped early.
    """
    complete = [trial.config for trial in state.history.complete()]
    if state.model is None or not state.model.informed or not complete:
        return None
    if all(trial.stop is None for trial in state.history.trials):
        return None
    _, deviation = state.model.predict(state.space.features(complete))
    return float(np.median(deviation) ** 2)


def _key(config: Config) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(config.items()))
