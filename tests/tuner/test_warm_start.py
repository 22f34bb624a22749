from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from rlhpo_core.errors import UserError
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import Config
from rlhpo_core.tuner import algorithm
from rlhpo_core.tuner.state import TunerState, initial_state
from rlhpo_core.tuner.state_file import from_bytes, to_bytes
from rlhpo_core.tuner.warm_start import HALVED_BY, warm_state
from tests.helpers.studies import CUBE, RICH_SPACE, VARIANTS, after_rounds, bowl, rich, small_settings

SETTINGS = small_settings(model={"kind": "gp"}, screening={"candidates": 64})


@cache
def earlier(space: SearchSpace = CUBE, settings: TunerSettings = SETTINGS, rounds: int = 4) -> TunerState:
    objective = bowl if space is CUBE else rich
    return after_rounds(initial_state("earlier", 0, space, "maximize", settings), objective, rounds)


def later(state: TunerState, space: SearchSpace | None = None, **more: float | Config) -> TunerState:
    space = CUBE if space is None else space
    return warm_state(state, "later", 1, space, "maximize", state.settings, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["random", "rl_doc extended", "mbrl paper mlp", "mbrl extended gp screened"])
def test_a_warm_study_goes_on_bit_for_bit_when_it_is_saved_and_loaded(name: str) -> None:
    straight = stopped = later(earlier(RICH_SPACE, VARIANTS[name], rounds=2), RICH_SPACE)
    for _ in range(2):
        stopped = from_bytes(to_bytes(stopped))
        assert to_bytes(stopped) == to_bytes(straight)
        straight, stopped = (after_rounds(state, rich, 1) for state in (straight, stopped))
    assert to_bytes(stopped) == to_bytes(straight)


def test_the_first_trial_is_the_best_of_the_earlier_study_or_the_one_that_is_given() -> None:
    state = earlier()
    best = state.history.best()
    assert best is not None
    assert algorithm.propose(later(state))[0].config == best.config
    given: Config = {"a": 0.125, "b": 0.5, "c": 0.25, "d": 1.0}
    proposals = algorithm.propose(later(state, first=given))
    assert proposals[0].config == given
    assert CUBE.decode(np.array([proposals[0].actions], dtype=float)) == [given]
    assert given not in [proposal.config for proposal in proposals[1:]]
    with pytest.raises(UserError, match="not in this study's space"):
        later(state, first={**given, "a": 2.0})


def test_policy_and_trials_go_on_where_they_were() -> None:
    state = earlier()
    start = later(state)
    assert start.round == 0
    assert len(start.history) == 0
    for name, tensor in state.agent.state_dict().items():
        assert torch.equal(start.agent.state_dict()[name], tensor)
    assert start.inherited is not None
    assert [trial.config for trial in start.inherited.trials] == [trial.config for trial in state.history.trials]
    assert start.model is not None
    predicted = start.model.predict(CUBE.features([trial.config for trial in state.history.trials]))[0]
    assert np.corrcoef(predicted, [trial.value or 0.0 for trial in state.history.trials])[0, 1] > 0.8


def test_a_warm_study_finds_good_values_sooner() -> None:
    """Eight seeds of a study on the same function after one of sixteen trials, and cold ones."""
    known = earlier()

    def best(start: TunerState) -> float:
        found = after_rounds(start, bowl, 2).history.best()
        assert found is not None
        assert found.value is not None
        return found.value

    seeds = range(8)
    cold = [best(initial_state("cold", seed, CUBE, "maximize", SETTINGS)) for seed in seeds]
    warm = [best(warm_state(known, "later", seed, CUBE, "maximize", SETTINGS)) for seed in seeds]
    assert float(np.median(warm)) > float(np.median(cold))


def test_trials_count_less_the_further_the_data_has_moved() -> None:
    state = earlier()
    weights = {moved: later(state, moved=moved).inherited for moved in (0.0, HALVED_BY, 3 * HALVED_BY)}
    counted = [found.trials[0].weight for found in weights.values() if found is not None]
    assert counted == pytest.approx([1.0, 0.5, 0.125])
    far = later(state, moved=2.0)
    assert far.inherited is not None
    assert far.inherited.trials == ()
    assert far.inherited.first is not None, "the champion's configuration is tried all the same"
    assert far.model is None
    chain = later(later(state, moved=HALVED_BY), moved=HALVED_BY)
    assert chain.inherited is not None
    assert {round(trial.weight, 12) for trial in chain.inherited.trials} == {0.25}


def test_what_is_worth_little_is_predicted_with_less_confidence() -> None:
    state = earlier(rounds=6)
    features = CUBE.features([trial.config for trial in state.history.trials])
    spreads = []
    for moved in (0.0, 0.3):
        model = later(state, moved=moved).model
        assert model is not None
        spreads.append(float(model.predict(features)[1].mean() / model.tensors["scale"]))
    assert spreads[0] < spreads[1]


def test_the_level_of_earlier_scores_is_shifted_by_what_both_have_in_common() -> None:
    """All scores are 5 lower now: the champion's configuration tells, and the others are taken down with it."""
    state = earlier()
    start = later(state)
    moved = after_rounds(start, lambda config: bowl(config) - 5, 1)
    assert moved.model is not None
    worst, best = -7.0, -4.9
    predicted = moved.model.predict(CUBE.features([trial.config for trial in state.history.trials]))[0]
    assert ((predicted > worst) & (predicted < best)).all()


def test_a_first_round_without_a_success_does_not_end_it() -> None:
    for settings in (SETTINGS, small_settings(model={"kind": "gp", "reward": "ei"})):
        state = after_rounds(later(earlier(settings=settings)), lambda config: None, 2)
        assert len(algorithm.propose(state)) == 4


def narrowed(**changes: dict[str, object]) -> SearchSpace:
    return SearchSpace.model_validate({**CUBE.model_dump(), **changes})


def test_other_ranges_take_over_the_trials_that_lie_in_them_but_not_the_policy() -> None:
    state = earlier()
    low = narrowed(a={"type": "float", "low": 0.0, "high": 0.5})
    start = later(state, low)
    assert start.inherited is not None
    inside = [trial.config for trial in state.history.trials if float(trial.config["a"]) <= 0.5]
    assert 0 < len(inside) < len(state.history)
    assert [trial.config for trial in start.inherited.trials] == inside
    assert not torch.equal(start.agent.output.weight, state.agent.output.weight)
    assert len(after_rounds(start, bowl, 2).history) == 8


def test_spaces_that_do_not_map_are_refused() -> None:
    state = earlier()
    four = {name: {"type": "float", "low": 0.0, "high": 1.0} for name in "abce"}
    with pytest.raises(UserError, match="lacks d and adds e against that of study earlier"):
        later(state, SearchSpace.model_validate(four))
    with pytest.raises(UserError, match="a is of type int here and was of type float"):
        later(state, narrowed(a={"type": "int", "low": 0, "high": 3}))
    with pytest.raises(UserError, match=r"nothing of study earlier lies in this study's space"):
        later(state, narrowed(a={"type": "float", "low": 7.0, "high": 9.0}))
    with pytest.raises(UserError, match="was to maximize"):
        warm_state(state, "later", 1, CUBE, "minimize", state.settings)


def test_another_agent_starts_afresh() -> None:
    state = earlier()
    other = state.settings.model_copy(update={"agent": state.settings.agent.model_copy(update={"nodes": 8})})
    start = warm_state(state, "later", 1, CUBE, "maximize", other)
    assert start.agent.settings.nodes == 8
    assert start.inherited is not None
    assert len(start.inherited.trials) == 16
