"""The tuner: the paper's algorithm 1 as four steps over one TunerState.

    propose → (training runs) → observe → fit_reward_model → update_policy → propose → …

Each step takes a state and returns a new one; none changes what it was given, reads a clock or keeps anything
elsewhere. All that survives between steps is in TunerState, so a step may run in another process or pod, and a step
that is run again on the same state gives the same result: to the last bit on the same machine, with other last bits on
another, which later rounds amplify. Every random draw derives from (seed, round, index).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rlhpo_core.arrays import Floats
from rlhpo_core.seeds import derive_seed
from rlhpo_core.study import rounds
from rlhpo_core.trial import Proposal, RoundSummary, Trial, trial_id
from rlhpo_core.tuner import ppo, prior_mapping, reward_model
from rlhpo_core.tuner.agent import Agent, divergence
from rlhpo_core.tuner.reward_model import RewardModel, clip_low_outliers, one_thread
from rlhpo_core.tuner.screening import Search, screen
from rlhpo_core.tuner.state import (
    TunerState,
    actions_of,
    best_reward,
    columns,
    cost_tolerance,
    evidence,
    features_of,
    rewards_of,
)

#: The best trials, around which screening searches.
PARENTS = 8


# -- propose ---------------------------------------------------------------------------------------------------------


@one_thread()
def propose(state: TunerState, count: int | None = None) -> list[Proposal]:
    """The proposals of the round under way; the state stays as it is.

    Args:
        state: As the last round left it.
        count: How many; as many as the round has if not given. Fewer are the first of the whole round's.

    Raises: ValueError if ``count`` is below 1.
    """
    whole = rounds.size(state.settings, state.round)
    count = whole if count is None else count
    if count < 1:
        raise ValueError("a round has at least one trial")
    # A round that is cut short is drawn as a whole: the last bits of a row may depend on the size of its batch.
    drawn = max(count, whole)
    actions = _choose_actions(state, drawn)
    if state.round == 0 and state.inherited is not None and state.inherited.first is not None:
        actions[0] = state.space.encode([state.inherited.first])[0]
    predicted: list[tuple[float | None, float | None]] = [(None, None)] * drawn
    if state.model is not None and state.model.informed:
        mean, std = state.model.predict(state.space.features_of_actions(actions))
        predicted = list(zip(mean.tolist(), std.tolist(), strict=True))
    rows = list(zip(state.space.decode(actions), actions, predicted, strict=True))[:count]
    # Not the number of trials: a round that was cut short may have left numbers out.
    earlier = [t.proposal.number for t in state.history.trials if t.proposal.round < state.round]
    first = earlier[-1] + 1 if earlier else 0
    return [
        Proposal(
            trial_id=trial_id(state.study_id, state.round, index),
            number=first + index,
            round=state.round,
            index=index,
            config=config,
            actions=tuple(None if np.isnan(action) else float(action) for action in row),
            predicted=mean,
            predicted_std=std,
        )
        for index, (config, row, (mean, std)) in enumerate(rows)
    ]


def _choose_actions(state: TunerState, count: int) -> Floats:
    """Actions (count, n) of the proposals, in the order in which they were drawn or ranked."""
    n = len(state.space.steps)
    settings = state.settings
    if settings.screening is not None and state.model is not None and _may_screen(state):
        first = _portfolio(state)[:count]
        if len(first) == count:
            return first
        seed = derive_seed(state.seed, state.round, "candidates")
        return np.concatenate([first, screen(_search(state, "policy").given(first), count - len(first), seed)])
    seeds = [derive_seed(state.seed, state.round, "proposal", index) for index in range(count)]
    if settings.mode == "random":
        return np.stack([np.random.default_rng(seed).uniform(-1, 1, n) for seed in seeds])
    noise = torch.stack([torch.randn(n, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    begins = state.round == 0 and settings.default_first
    if begins:
        noise[0] = 0.0
    actions = state.agent.play(noise).actions_or_nan()
    # A policy that a prior has taught knows better.
    if begins and not _has_taught(state):
        actions[0] = state.space.encode([state.first or state.space.nearest({})])[0]
    return actions


def _portfolio(state: TunerState) -> Floats:
    """Actions (B, n) of what the prior has to be tried first and has not been; nothing after an earlier study."""
    if state.prior is None or state.inherited is not None:
        return np.zeros((0, len(state.space.steps)))
    seed = derive_seed(state.seed, 0, "portfolio")
    ignoring_time = state.settings.cost_tolerance is None
    return prior_mapping.portfolio(state.prior, state.space, seed, ignoring_time)[len(state.history) :]


def _search(state: TunerState, purpose: str) -> Search:
    """The search for what F finds most promising.

    Args:
        purpose: Tells one use of the policy's draws in a round from another.
    """
    space, settings, model = state.space, state.settings.screening, state.model
    assert settings is not None
    assert model is not None
    earlier = state.inherited.trials if state.inherited is not None else ()
    parents = actions_of(state, state.history.ranked()[:PARENTS])
    tried = features_of(state, state.history.trials)
    inherited = [] if len(tried) else [trial.config for trial in earlier if trial.reward is not None]
    nothing = np.zeros((0, len(space.steps)))
    return Search(
        space=space,
        model=model,
        settings=settings,
        parents=parents,
        policy=_drawn(state, purpose) if state.settings.trains_policy or _has_taught(state) else nothing,
        carried=nothing if state.promising is None else state.promising,
        tried=tried,
        reference=space.features(inherited) if inherited else tried,
        tolerance=cost_tolerance(state),
    )


def _has_taught(state: TunerState) -> bool:
    """Whether a prior has taught the policy."""
    return state.prior is not None and state.prior.has_policy


def _drawn(state: TunerState, purpose: str) -> Floats:
    """Candidates (B, n) that the policy draws, as many as are left to it."""
    settings = state.settings.screening
    assert settings is not None
    count = round(settings.candidates * (1 - settings.local_share - settings.uniform_share))
    generator = torch.Generator().manual_seed(derive_seed(state.seed, state.round, purpose))
    noise = torch.randn(count, len(state.space.steps), generator=generator)
    return state.agent.play(noise).actions_or_nan()


def _may_screen(state: TunerState) -> bool:
    """Whether the reward model knows enough to choose what is trained."""
    assert state.settings.screening is not None
    taught = state.prior is not None or state.inherited is not None
    return state.settings.mode == "mbrl_sdp" and (taught or len(state.history) >= state.settings.screening.min_trials)


# -- observe ---------------------------------------------------------------------------------------------------------


def observe(state: TunerState, trials: Sequence[Trial]) -> TunerState:
    """Take the round's trials into the history, whatever order they come in.

    Idempotent: trials that the history holds already are passed over.

    Raises: ValueError if a trial belongs to another study or round, or if there is nothing to observe.
    """
    if not trials:
        raise ValueError("no trials to observe: a round has at least one")
    for trial in trials:
        expected = trial_id(state.study_id, state.round, trial.proposal.index)
        if trial.proposal.round != state.round or trial.trial_id != expected:
            raise ValueError(f"trial {trial.trial_id} is not of round {state.round} of study {state.study_id}")
    known = {trial.trial_id for trial in state.history.trials}
    fresh: dict[str, Trial] = {}
    for trial in trials:
        if trial.trial_id not in known:
            fresh.setdefault(trial.trial_id, trial)
    return replace(state, history=state.history.extended(list(fresh.values())))


# -- fit the reward model --------------------------------------------------------------------------------------------


@one_thread()
def fit_reward_model(state: TunerState) -> TunerState:
    """Fit F on all trials so far, and on those that were inherited.

    Unchanged without a model in the mode, or with fewer than two distinct rewards (with a prior, without any).
    """
    features, rewards, sample_weights = evidence(state)
    expect = state.expect() if state.settings.model.kind == "gp" else None
    least = 2 if expect is None else 1
    if state.settings.mode != "mbrl_sdp" or len(np.unique(rewards[~np.isnan(rewards)])) < least:
        return state
    # Those that were stopped early taught something, but nobody knows what F should have said of them.
    judged = sum(trial.stop is None for trial in state.history.trials)
    model = reward_model.fit(
        state.settings.model.kind,
        features,
        rewards,
        derive_seed(state.seed, state.round, "reward model"),
        warm_start=state.model,
        sample_weights=sample_weights,
        # A few trials say little about how well F predicts; those that were inherited then help out.
        judged=judged if judged >= state.settings.model.min_trials else None,
        expect=expect,
        columns=columns(state.space, state.settings),
    )
    return _with_promising(replace(state, model=model, model_trials=len(state.history)))


def _with_promising(state: TunerState) -> TunerState:
    """The state with what F finds most promising, for the next search to begin from."""
    settings = state.settings.screening
    if settings is None or not settings.carried or not _may_screen(state):
        return state
    seed = derive_seed(state.seed, state.round, "promising")
    candidates, _ = _search(state, "promising policy").ranked(np.random.default_rng(seed))
    return replace(state, promising=candidates[: settings.carried])


# -- update the policy -----------------------------------------------------------------------------------------------


@one_thread()
def update_policy(state: TunerState) -> TunerState:
    """PPO on the round's real trials, then on imagined ones while F may steer; ends the round.

    Raises: ValueError if the round has no observed trials.
    """
    trials = [trial for trial in state.history.trials if trial.proposal.round == state.round]
    if not trials:
        raise ValueError(f"round {state.round} has no trials yet: observe before you update")
    best = state.history.best()
    summary = RoundSummary(round=state.round, trials=len(state.history), best=best.value if best else None)
    agent, moments = state.agent, state.moments
    if state.settings.mode == "mbrl_sdp":
        summary = _with_quality(summary, state.model)
    if state.settings.trains_policy and state.settings.mode != "random":
        agent = copy.deepcopy(agent)
        optimizer = ppo.make_optimizer(agent, state.settings.ppo, moments)
        entropy = _learn_from_trials(agent, optimizer, state, trials)
        summary = summary.model_copy(update={"entropy": entropy})
        if state.settings.mode == "mbrl_sdp":
            summary = _model_phase(agent, optimizer, state, summary)
        moments = ppo.moments_of(optimizer)
    # The tuner has no use for curves, of which each may hold thousands of points: from here on, the files have them.
    history = state.history.model_copy(update={"trials": tuple(t.without_curve() for t in state.history.trials)})
    summaries = (*state.summaries, summary)
    return replace(state, round=state.round + 1, history=history, agent=agent, moments=moments, summaries=summaries)


def _learn_from_trials(
    agent: Agent, optimizer: torch.optim.Adam, state: TunerState, trials: Sequence[Trial]
) -> float | None:
    """The real phase; returns the policy's entropy in nats per step, ``None`` if nothing could be learnt."""
    rewards = rewards_of(state.history)
    if np.isnan(rewards).any():
        return None
    # A crash or a diverged training run may lie many standard deviations below the rest and must not drown the others.
    reference = clip_low_outliers(rewards[-max(state.settings.reference_trials, len(trials)) :])
    scale = float(np.std(reference))
    if scale == 0:
        return None
    latest = reference[-len(trials) :]
    advantages = torch.from_numpy(np.clip((latest - np.mean(reference)) / scale, -3, 3)).float()
    actions = torch.tensor([[float("nan") if a is None else a for a in t.proposal.actions] for t in trials])
    rollout = agent.play(torch.zeros_like(actions), actions)
    return ppo.update(agent, optimizer, rollout, advantages, state.settings.ppo)


def _with_quality(summary: RoundSummary, model: RewardModel | None) -> RoundSummary:
    """With how well F predicts trials that it was not fitted to, if that is known."""
    quality = model.diagnostics if model is not None else None
    if quality is None:
        return summary
    known = {
        "model_r2": quality.r2,
        "model_rank_correlation": quality.rank_correlation,
        "model_coverage": quality.coverage,
    }
    return summary.model_copy(update=known)


def _model_phase(agent: Agent, optimizer: torch.optim.Adam, state: TunerState, summary: RoundSummary) -> RoundSummary:
    """Update the agent, in place, on imagined episodes until it has moved by delta; returns what happened."""
    settings = state.settings.model
    if state.model is None:
        return summary.model_copy(update={"model_phase": "skipped: no reward model yet"})
    skip = _why_skip(state)
    if skip:
        return summary.model_copy(update={"model_phase": f"skipped: {skip}"})
    generator = torch.Generator().manual_seed(derive_seed(state.seed, state.round, "imagined"))
    shape = (settings.episodes, len(state.space.steps))
    best = best_reward(state)
    tolerance = cost_tolerance(state)
    saved, saved_policy = agent.play_policy(torch.randn(shape, generator=generator))
    kl, updates, entropy = 0.0, 0, summary.entropy
    while kl <= settings.delta and updates < settings.max_updates:
        rollout = agent.play(torch.randn(shape, generator=generator))
        features = state.space.features_of_actions(rollout.actions_or_nan())
        imagined = state.model.worth(settings.reward, features, best, tolerance=tolerance)
        entropy = ppo.update(agent, optimizer, rollout, _standardised(imagined), state.settings.ppo)
        kl = divergence(agent, saved, saved_policy)
        updates += 1
    return summary.model_copy(update={"model_phase": "ran", "kl": kl, "imagined_updates": updates, "entropy": entropy})


def _why_skip(state: TunerState) -> str | None:
    """Why F may not steer the policy now (Angermueller et al. 2020, section 3, gates on held-out R² likewise)."""
    settings = state.settings.model
    inherited = len(state.inherited.trials) if state.inherited is not None else 0
    if len(state.history) + inherited < settings.min_trials:
        return f"fewer than {settings.min_trials} trials"
    if settings.min_r2 is not None:
        quality = state.model.diagnostics if state.model is not None else None
        if quality is None:
            return "too few trials to tell whether the reward model predicts well"
        if quality.r2 < settings.min_r2:
            return f"R² on held-out trials is {quality.r2:.2f}, below {settings.min_r2:g}"
    return None


def _standardised(values: Floats) -> Tensor:
    """Zero mean, unit standard deviation; all zero if the values are equal."""
    scale = float(np.std(values))
    centred = torch.from_numpy(values - np.mean(values)).float()
    return centred / scale if scale > 1e-12 else torch.zeros_like(centred)
