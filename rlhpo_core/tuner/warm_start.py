"""A warm start: a tuner that begins with the policy, the reward model and the trials of an earlier study.

The further the data has moved since, the less the trials count. The policy is taken over only in the space in which it
learnt, since in another one an action means another value. Trials are taken over in any space of the same
hyperparameters that holds them.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from rlhpo_core.errors import UserError
from rlhpo_core.space.parameters import Fixed
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.stopping.lessons import taught_rewards, taught_weight
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import Config, Direction, EarlierTrial, Inherited
from rlhpo_core.tuner import algorithm
from rlhpo_core.tuner.prior import Prior
from rlhpo_core.tuner.state import TunerState, initial_state

#: A trial is worth half when the data has moved by this (mean population stability index).
HALVED_BY = 0.1
#: Trials worth less are left behind, and of more than so many the earliest.
LEAST_WEIGHT, MOST_TRIALS = 0.05, 200


def warm_state(
    earlier: TunerState,
    study_id: str,
    seed: int,
    space: SearchSpace,
    direction: Direction,
    settings: TunerSettings,
    moved: float = 0.0,
    first: Config | None = None,
    prior: Prior | None = None,
) -> TunerState:
    """The first state of a new study.

    Args:
        earlier: The state of the earlier study; it is not changed.
        study_id: Of the new study, as are ``seed``, ``space``, ``direction`` and ``settings``.
        seed: Decides all random draws of the new study.
        space: Of the same hyperparameters as the earlier one, in other ranges if need be.
        direction: That of the earlier study.
        settings: May differ from those of the earlier study.
        moved: How far the data has moved since the earlier study, as a mean population stability index.
        first: The first configuration to try; the earlier study's best if not given.
        prior: What other studies have taught, if the new study is to lean on that, too.

    Raises: UserError if the spaces or the objectives do not fit, or if ``first`` is not in the space.
    """
    if earlier.history.direction != direction:
        raise UserError(f"warm_start: study {earlier.study_id} was to {earlier.history.direction} its objective")
    _check_names(earlier.space, space, earlier.study_id)
    fresh = initial_state(study_id, seed, space, direction, settings, prior)
    trials = _carried(earlier, space, 0.5 ** (moved / HALVED_BY))
    best = earlier.history.best()
    if first is not None and not _lies_in(first, space):
        raise UserError(f"warm_start: the first configuration, {first}, is not in this study's space")
    if first is None and best is not None and _lies_in(best.config, space):
        first = best.config
    known = earlier.history.trials or (earlier.inherited.trials if earlier.inherited is not None else ())
    if known and not trials and first is None:
        raise UserError(
            f"warm_start: nothing of study {earlier.study_id} lies in this study's space, or the data has moved too "
            f"far (by {moved:.2f}); widen the ranges, or start without warm_start"
        )
    state = replace(fresh, inherited=Inherited(source=earlier.study_id, trials=trials, first=first))
    if earlier.space.parameters == fresh.space.parameters and _same_agent(earlier.settings, settings):
        state = _with_policy(state, earlier)
    if earlier.model is not None and earlier.model.kind == settings.model.kind:
        # A Gaussian process searches its hyperparameters from those that were found.
        state = replace(state, model=earlier.model)
    fitted = algorithm.fit_reward_model(state)
    return fitted if fitted is not state else replace(state, model=fresh.model)


def _check_names(earlier: SearchSpace, space: SearchSpace, study_id: str) -> None:
    then = {parameter.name: parameter for parameter in earlier.parameters}
    now = {parameter.name: parameter for parameter in space.parameters}
    if then.keys() != now.keys():
        lacking, new = sorted(then.keys() - now.keys()), sorted(now.keys() - then.keys())
        changes = [f"{text} {', '.join(names)}" for text, names in (("lacks", lacking), ("adds", new)) if names]
        raise UserError(
            f"warm_start: this space {' and '.join(changes)} against that of study {study_id}; name the same "
            "hyperparameters (`type: fixed` keeps one in place), or start without warm_start"
        )
    for name, parameter in now.items():
        before = then[name]
        if not isinstance(parameter, Fixed) and not isinstance(before, Fixed) and before.type != parameter.type:
            raise UserError(
                f"warm_start: {name} is of type {parameter.type} here and was of type {before.type} in study {study_id}"
            )


def _lies_in(config: Config, space: SearchSpace) -> bool:
    try:
        return space.snap(config) == config
    except ValueError:
        return False


def _carried(earlier: TunerState, space: SearchSpace, factor: float) -> tuple[EarlierTrial, ...]:
    """Earlier trials, and those that they had inherited, that lie in the space, with what they are still worth."""
    before = earlier.inherited.trials if earlier.inherited is not None else ()
    measured = [
        EarlierTrial(config=trial.config, reward=reward, weight=taught_weight(trial, noise=None))
        for trial, reward in zip(earlier.history.trials, taught_rewards(earlier.history), strict=True)
    ]
    carried = [
        trial.model_copy(update={"weight": trial.weight * factor})
        for trial in (*before, *measured)
        if trial.weight * factor >= LEAST_WEIGHT and _lies_in(trial.config, space)
    ]
    return tuple(carried[-MOST_TRIALS:])


def _same_agent(then: TunerSettings, now: TunerSettings) -> bool:
    return then.agent == now.agent and (then.mode == "rl_doc") == (now.mode == "rl_doc")


def _with_policy(state: TunerState, earlier: TunerState) -> TunerState:
    """With the policy and its optimizer's moments; the learning rate is the new study's."""
    return replace(state, agent=copy.deepcopy(earlier.agent), moments=earlier.moments)
