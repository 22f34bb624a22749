from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhpo_core.space.search_space import SearchSpace, load_space
from rlhpo_core.stopping.lessons import UNKNOWN
from rlhpo_core.study.tuner_settings import ScreeningSettings, TunerSettings
from rlhpo_core.trial import Config, Stop, Trial, TrialStatus
from rlhpo_core.tuner import algorithm, state_file
from rlhpo_core.tuner.state import TunerState, best_reward, initial_state
from rlhpo_core.tuner.warm_start import warm_state
from tests.helpers.studies import CUBE, RICH_SPACE, VARIANTS, after_rounds, bowl, rich, small_settings, trials_of

variants = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)


def start(settings: TunerSettings, seed: int = 0, space: SearchSpace = RICH_SPACE) -> TunerState:
    return initial_state("study-1", seed, space, "maximize", settings)


# -- the four steps --------------------------------------------------------------------------------------------------


@variants
def test_rounds_leave_a_whole_history_and_a_summary_each(settings: TunerSettings) -> None:
    state = after_rounds(start(settings), rich, 3)
    assert state.round == 3
    assert [trial.proposal.number for trial in state.history.trials] == list(range(12))
    assert [trial.proposal.round for trial in state.history.trials] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({trial.trial_id for trial in state.history.trials}) == 12
    assert [summary.trials for summary in state.summaries] == [4, 8, 12]
    assert state.summaries[-1].best == max(trial.value or 0.0 for trial in state.history.trials)
    assert all(parameter.isfinite().all() for parameter in state.agent.parameters())
    uses_model = settings.mode == "mbrl_sdp"
    ran = uses_model and settings.trains_policy
    assert [summary.model_phase for summary in state.summaries] == ["ran" if ran else "off"] * 3
    assert (state.summaries[-1].model_r2 is not None) == uses_model
    assert (state.model is not None) == uses_model
    assert state.model_trials == (12 if uses_model else 0)
    assert [t.proposal.predicted is not None for t in state.history.trials] == [False] * 4 + [uses_model] * 8


@variants
def test_steps_leave_the_state_they_were_given_as_it_was_and_can_be_run_again(settings: TunerSettings) -> None:
    state = after_rounds(start(settings), rich, 1)
    before = state_file.to_bytes(state)
    proposals = algorithm.propose(state)
    observed = algorithm.observe(state, trials_of(proposals, rich))
    assert algorithm.propose(state) == proposals
    assert state_file.to_bytes(state) == before
    before = state_file.to_bytes(observed)
    fitted = algorithm.fit_reward_model(observed)
    assert state_file.to_bytes(algorithm.fit_reward_model(observed)) == state_file.to_bytes(fitted)
    assert state_file.to_bytes(observed) == before
    before = state_file.to_bytes(fitted)
    updated = algorithm.update_policy(fitted)
    assert state_file.to_bytes(algorithm.update_policy(fitted)) == state_file.to_bytes(updated)
    assert state_file.to_bytes(fitted) == before


@variants
def test_the_seed_decides_everything(settings: TunerSettings) -> None:
    def configs(seed: int) -> list[Config]:
        return [proposal.config for proposal in algorithm.propose(after_rounds(start(settings, seed), rich, 1))]

    assert configs(4) == configs(4)
    assert configs(4) != configs(5)


def test_the_global_random_state_and_the_number_of_threads_are_neither_used_nor_touched() -> None:
    settings = VARIANTS["mbrl extended gp screened"]
    torch.manual_seed(1)
    np.random.seed(1)
    expected = state_file.to_bytes(after_rounds(start(settings), rich, 2))
    torch.manual_seed(2)
    np.random.seed(2)
    left, threads = torch.random.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert state_file.to_bytes(after_rounds(start(settings), rich, 2)) == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.random.get_rng_state(), left)


_ELSEWHERE = """
import hashlib
from rlhpo_core.tuner import state_file
from rlhpo_core.tuner.state import initial_state
from tests.helpers.studies import RICH_SPACE, VARIANTS, after_rounds, rich

for name in {names!r}:
    final = after_rounds(initial_state("study-1", 0, RICH_SPACE, "maximize", VARIANTS[name]), rich, 2)
    print(hashlib.sha256(state_file.to_bytes(final)).hexdigest())
"""


def test_another_process_with_other_hashes_and_threads_comes_to_the_same_bytes() -> None:
    names = ["mbrl paper ensemble", "mbrl extended gp screened"]
    here = [hashlib.sha256(state_file.to_bytes(after_rounds(start(VARIANTS[n]), rich, 2))).hexdigest() for n in names]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    there = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE.format(names=names)],
        cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert there.stdout.split() == here


# -- propose ---------------------------------------------------------------------------------------------------------


@variants
def test_a_round_that_is_cut_short_starts_with_the_same_proposals(settings: TunerSettings) -> None:
    state = after_rounds(start(settings), rich, 1)
    whole = algorithm.propose(state)
    for count in (1, 2, 3):
        assert algorithm.propose(state, count) == whole[:count]
    assert len(algorithm.propose(state, 7)) == 7


@variants
def test_proposals_lie_in_the_space_and_decode_from_their_actions(settings: TunerSettings) -> None:
    state = after_rounds(start(settings), rich, 2)
    for proposal in algorithm.propose(state):
        assert RICH_SPACE.snap(proposal.config) == proposal.config
        actions = np.array([[np.nan if action is None else action for action in proposal.actions]])
        assert state.space.decode(actions) == [proposal.config]
        assert np.nanmax(np.abs(actions)) <= 1
        # The agent computes in single precision: it must learn from the very action that was decoded.
        if settings.mode != "random":
            assert np.array_equal(actions, actions.astype(np.float32), equal_nan=True)


def test_numbers_and_identities_stay_when_part_of_the_round_is_known() -> None:
    state = after_rounds(start(VARIANTS["mbrl paper mlp"]), rich, 1)
    proposals = algorithm.propose(state)
    resumed = algorithm.observe(state, trials_of(proposals[1:3], rich))
    assert algorithm.propose(resumed) == proposals


def test_numbers_go_on_behind_a_round_that_left_some_out() -> None:
    state = start(small_settings(mode="random"))
    state = algorithm.observe(state, trials_of(algorithm.propose(state)[2:], rich))
    state = algorithm.update_policy(state)
    assert [proposal.number for proposal in algorithm.propose(state)] == [4, 5, 6, 7]


def test_a_round_has_at_least_one_trial() -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        algorithm.propose(start(small_settings()), 0)


def test_predictions_are_the_models() -> None:
    state = after_rounds(start(VARIANTS["mbrl paper gp"]), rich, 2)
    assert state.model is not None
    proposals = algorithm.propose(state)
    mean, std = state.model.predict(state.space.features([proposal.config for proposal in proposals]))
    np.testing.assert_allclose([proposal.predicted for proposal in proposals], mean, rtol=1e-6)
    np.testing.assert_allclose([proposal.predicted_std for proposal in proposals], std, rtol=1e-6)


def test_the_order_seed_shuffles_what_the_agent_chooses_first() -> None:
    listed, shuffled = (start(small_settings(order_seed=seed)).space for seed in (None, 1))
    assert [step.name for step in listed.steps] != [step.name for step in shuffled.steps]
    assert {step.name for step in listed.steps} == {step.name for step in shuffled.steps}


def test_a_study_that_knows_nothing_begins_in_the_middle_unless_it_is_the_papers() -> None:
    space = load_space("x: {type: float, low: 0.0, high: 1.0}\ny: {type: float, low: 0.01, high: 1.0, log: true}")

    def first(settings: TunerSettings) -> list[float]:
        state = initial_state("s", 0, space, "maximize", settings)
        return [float(value) for value in algorithm.propose(state)[0].config.values()]

    assert first(TunerSettings()) == pytest.approx([0.5, 0.1], abs=0.02)
    assert first(TunerSettings(default_first=False)) != pytest.approx([0.5, 0.1], abs=0.02)
    assert not TunerSettings.model_validate("paper").default_first


def test_a_study_that_knows_nothing_begins_with_the_defaults_of_its_evaluator() -> None:
    defaults = RICH_SPACE.nearest({"depth": 3})
    state = initial_state("s", 0, RICH_SPACE, "maximize", TunerSettings(), first=defaults)
    assert [proposal.config for proposal in algorithm.propose(state)] == [defaults]
    later = after_rounds(state, rich, 1)
    assert state_file.from_bytes(state_file.to_bytes(later)).first == defaults
    assert algorithm.propose(later)[0].config != defaults


def test_the_first_rounds_have_one_trial_each_and_the_model_chooses_from_the_fourth_on() -> None:
    state = start(TunerSettings(screening=ScreeningSettings(candidates=32)), space=CUBE)
    state = after_rounds(state, bowl, 7)
    assert [trial.proposal.round for trial in state.history.trials] == [0, 1, 2, 3, 4, *[5] * 5, *[6] * 5]
    assert [summary.trials for summary in state.summaries] == [1, 2, 3, 4, 5, 10, 15]
    predicted = [trial.proposal.predicted is not None for trial in state.history.trials]
    assert predicted[3:] == [True] * 12


def test_the_most_promising_candidates_are_carried_on() -> None:
    state = after_rounds(start(small_settings(screening={"candidates": 32, "carried": 6}), space=CUBE), bowl, 3)
    assert state.promising is not None
    assert state.promising.shape == (6, 4)
    assert state.model is not None
    best = best_reward(state)
    anywhere = CUBE.features_of_actions(np.random.default_rng(0).uniform(-1, 1, (200, 4)))
    worth = state.model.worth("log_ei", CUBE.features_of_actions(state.promising), best, noisy=False)
    assert worth.min() > np.median(state.model.worth("log_ei", anywhere, best, noisy=False))
    without = after_rounds(start(small_settings(screening={"candidates": 32, "carried": 0}), space=CUBE), bowl, 3)
    assert without.promising is None


def test_a_policy_that_is_not_trained_stays_as_it_began() -> None:
    first = start(TunerSettings(), space=CUBE)
    later = after_rounds(first, bowl, 7)
    assert later.agent is first.agent
    assert TunerSettings.model_validate("paper").trains_policy
    assert TunerSettings(mode="rl_sdp").trains_policy
    assert not TunerSettings().trains_policy


# -- observe ---------------------------------------------------------------------------------------------------------


def test_observing_is_idempotent_and_heeds_no_order() -> None:
    state = after_rounds(start(VARIANTS["mbrl paper mlp"]), rich, 1)
    trials = trials_of(algorithm.propose(state), rich)
    expected = algorithm.observe(state, trials).history
    assert algorithm.observe(state, trials[::-1]).history == expected
    assert algorithm.observe(state, trials + trials).history == expected
    assert algorithm.observe(algorithm.observe(state, trials), trials).history == expected
    in_parts = state
    for trial in (trials[2], trials[0], trials[3], trials[0], trials[1]):
        in_parts = algorithm.observe(in_parts, [trial])
    assert in_parts.history == expected


def test_the_first_report_of_a_trial_counts() -> None:
    state = start(small_settings())
    first = trials_of(algorithm.propose(state), rich)
    again = trials_of(algorithm.propose(state), lambda config: 99.0)
    assert algorithm.observe(algorithm.observe(state, first), again).history.trials == tuple(first)


def test_trials_of_another_study_or_round_are_refused() -> None:
    state = start(small_settings())
    stranger = initial_state("study-2", 0, RICH_SPACE, "maximize", small_settings())
    with pytest.raises(ValueError, match="not of round 0 of study study-1"):
        algorithm.observe(state, trials_of(algorithm.propose(stranger), rich))
    trials = trials_of(algorithm.propose(state), rich)
    later = algorithm.update_policy(algorithm.observe(state, trials))
    with pytest.raises(ValueError, match="not of round 1"):
        algorithm.observe(later, trials)
    with pytest.raises(ValueError, match="no trials"):
        algorithm.observe(state, [])


def test_a_round_without_trials_cannot_teach() -> None:
    with pytest.raises(ValueError, match="observe before you update"):
        algorithm.update_policy(start(small_settings()))


# -- learning --------------------------------------------------------------------------------------------------------

PAPER = TunerSettings.model_validate("paper")
DEFAULT = TunerSettings(trials_per_round=5)


@pytest.mark.parametrize("settings", [pytest.param(PAPER, marks=pytest.mark.e2e), DEFAULT], ids=["paper", "default"])
def test_the_method_finds_better_configurations_than_chance(settings: TunerSettings) -> None:
    """The seeds are fixed; the margins are a fraction of what was measured over others."""

    def results(settings: TunerSettings) -> tuple[float, float]:
        best, late = [], []
        for seed in range(3):
            history = after_rounds(start(settings, seed, CUBE), bowl, 8).history
            best.append(history.best_so_far()[-1])
            late.append(np.mean([trial.value for trial in history.trials[-10:]]))
        return float(np.mean(best)), float(np.mean(late))

    best, late = results(settings)
    best_by_chance, late_by_chance = results(TunerSettings(mode="random", trials_per_round=5))
    assert late > late_by_chance / 2
    assert best > best_by_chance / 1.3


def test_minimising_is_maximising_the_negative() -> None:
    settings = VARIANTS["mbrl extended gp"]
    up = after_rounds(initial_state("s", 0, CUBE, "maximize", settings), bowl, 3)
    down = after_rounds(initial_state("s", 0, CUBE, "minimize", settings), lambda c: -bowl(c), 3)
    assert [trial.config for trial in up.history.trials] == [trial.config for trial in down.history.trials]


def fails_on_the_right(config: Config) -> float | None:
    return None if float(config["a"]) > 0.5 else float(config["b"])


@pytest.mark.parametrize("mode", ["rl_sdp", "mbrl_sdp"])
def test_what_fails_is_avoided(mode: str) -> None:
    """Half of the space fails, and half of the first policy's draws are in it; later ones are rarely."""
    settings = TunerSettings.model_validate(
        {
            **{"mode": mode, "trials_per_round": 8, "train_policy": True},
            **{"agent": {"profile": "extended"}, "model": {"kind": "gp"}},
        }
    )
    rounds = {"rl_sdp": 25, "mbrl_sdp": 6}[mode]
    state = after_rounds(start(settings, space=CUBE), fails_on_the_right, rounds)
    draws = state.agent.play(torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))).actions_or_nan()
    assert np.mean([float(config["a"]) > 0.5 for config in CUBE.decode(draws)]) < 0.25
    if state.model is not None:
        left, right = np.full((1, 4), 0.5), np.full((1, 4), 0.5)
        left[0, 0], right[0, 0] = 0.2, 0.8
        assert state.model.predict(left)[0] > state.model.predict(right)[0]


@pytest.mark.parametrize("kind", ["mlp", "gp"])
def test_where_all_that_works_is_equally_good_the_failures_still_teach(kind: str) -> None:
    state = start(small_settings(trials_per_round=30, model={"kind": kind}), space=CUBE)
    state = algorithm.observe(
        state, trials_of(algorithm.propose(state), lambda c: None if float(c["a"]) > 0.5 else 0.9)
    )
    model = algorithm.fit_reward_model(state).model
    assert model is not None
    points = np.full((2, 4), 0.5)
    points[:, 0] = 0.1, 0.9
    works, fails = model.predict(points)[0]
    assert works > 0.7
    assert fails < 0.5


@variants
def test_a_round_in_which_everything_fails_ends_nothing(settings: TunerSettings) -> None:
    state = after_rounds(start(settings), lambda config: None, 2)
    assert state.model is None
    assert state.history.best() is None
    assert state.summaries[-1].best is None
    if settings.mode == "mbrl_sdp":
        assert state.summaries[-1].model_phase == ("skipped: no reward model yet" if settings.trains_policy else "off")
    recovered = after_rounds(state, rich, 1)
    assert len(recovered.history) == 12
    assert (recovered.model is not None) == (settings.mode == "mbrl_sdp")


@pytest.mark.parametrize("value", [-1e300, 1e300, -1e-300, 1e-300, 1.7e308])
@pytest.mark.parametrize("kind", ["mlp", "gp"])
def test_absurd_scores_do_not_poison_the_policy(kind: str, value: float) -> None:
    def score(config: Config) -> float:
        return value if float(config["a"]) > 0.3 else value / 2 + float(config["b"]) * 1e-310

    settings = small_settings(model={"kind": kind, "reward": "log_ei"}, screening={"candidates": 16})
    with np.errstate(all="ignore"):
        state = after_rounds(start(settings, space=CUBE), score, 3)
    assert all(parameter.isfinite().all() for parameter in state.agent.parameters())
    assert state_file.from_bytes(state_file.to_bytes(state)).round == 3


def test_one_diverged_training_does_not_drown_the_others() -> None:
    """The update from a round with a score of −1e9 is nearly that from one with a merely bad score."""

    def moved(bad: float) -> torch.Tensor:
        state = start(small_settings(mode="rl_sdp", trials_per_round=12), space=CUBE)
        trials = trials_of(algorithm.propose(state), bowl)
        trials[3] = trials[3].model_copy(update={"value": bad})
        after = algorithm.update_policy(algorithm.observe(state, trials)).agent
        pairs = zip(after.parameters(), state.agent.parameters(), strict=True)
        return torch.cat([(new - old).detach().flatten() for new, old in pairs])

    bad, terrible = moved(-3.0), moved(-1e9)
    assert torch.nn.functional.cosine_similarity(bad, terrible, dim=0) > 0.99


def test_a_round_of_pruned_trials_is_learnt_from_and_has_no_best() -> None:
    state = start(small_settings(), space=CUBE)
    proposals = algorithm.propose(state)
    trials = [
        Trial(proposal=p, status=TrialStatus.PRUNED, stop=Stop(reason="poor", step=1, value=bowl(p.config)))
        for p in proposals
    ]
    state = algorithm.fit_reward_model(algorithm.observe(state, trials))
    assert state.model is not None
    assert algorithm.update_policy(state).summaries[-1].best is None


# -- the model phase -------------------------------------------------------------------------------------------------


def test_the_model_phase_stops_at_delta_or_at_the_cap() -> None:
    def phase(delta: float, max_updates: int) -> tuple[float, int]:
        model = {"delta": delta, "max_updates": max_updates, "episodes": 32, "kind": "gp"}
        summary = after_rounds(start(small_settings(model=model), space=CUBE), bowl, 1).summaries[-1]
        assert summary.kl is not None
        return summary.kl, summary.imagined_updates

    kl, updates = phase(delta=0.4, max_updates=100)
    assert kl > 0.4
    assert 1 < updates < 100
    before, _ = phase(delta=0.4, max_updates=updates - 1)
    assert before <= 0.4
    _, capped = phase(delta=1000.0, max_updates=3)
    assert capped == 3


def test_the_model_phase_moves_the_policy_to_where_the_model_expects_more() -> None:
    settings = small_settings(trials_per_round=30, model={"kind": "gp", "max_updates": 30, "episodes": 64})
    state = start(settings, space=CUBE)
    state = algorithm.fit_reward_model(algorithm.observe(state, trials_of(algorithm.propose(state), bowl)))
    assert state.model is not None
    noise = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))

    def expected(agent: algorithm.Agent) -> float:
        assert state.model is not None
        return float(state.model.predict(CUBE.features_of_actions(agent.play(noise).actions_or_nan()))[0].mean())

    assert expected(algorithm.update_policy(state).agent) > expected(state.agent) + 0.1


def test_the_gate_skips_a_model_that_predicts_nothing_and_says_so() -> None:
    rng = np.random.default_rng(0)
    settings = small_settings(trials_per_round=20, model={"min_r2": 0.3})
    state = after_rounds(start(settings, space=CUBE), lambda config: float(rng.standard_normal()), 1)
    summary = state.summaries[-1]
    assert summary.model_r2 is not None
    assert summary.model_r2 < 0.3
    assert summary.model_phase == f"skipped: R² on held-out trials is {summary.model_r2:.2f}, below 0.3"
    assert summary.imagined_updates == 0
    assert summary.kl is None


def test_the_gate_waits_for_trials() -> None:
    settings = small_settings(model={"min_trials": 9})
    phases = [s.model_phase for s in after_rounds(start(settings), rich, 3).summaries]
    assert phases == ["skipped: fewer than 9 trials", "skipped: fewer than 9 trials", "ran"]
    settings = small_settings(trials_per_round=3, model={"min_trials": 2, "min_r2": -10.0})
    phases = [s.model_phase for s in after_rounds(start(settings), rich, 2).summaries]
    assert phases == ["skipped: too few trials to tell whether the reward model predicts well", "ran"]


def test_a_copied_optimizer_goes_on_with_its_moments() -> None:
    state = after_rounds(start(VARIANTS["rl_sdp paper"]), rich, 2)
    moments = copy.deepcopy(state.moments)
    later = after_rounds(state, rich, 1)
    steps = [float(found["step"]) for found in later.moments.values()]
    assert set(steps) == {3.0 * state.settings.ppo.epochs}
    for index, found in state.moments.items():
        assert torch.equal(found["exp_avg"], moments[index]["exp_avg"])


# -- trials that were stopped early ----------------------------------------------------------------------------------


def stopped(trial: Trial, estimate: float, deviation: float) -> Trial:
    """The trial as if a rule had stopped it."""
    stop = Stop(reason="poor", step=1, value=estimate - 1, estimate=estimate, deviation=deviation)
    return Trial(proposal=trial.proposal, status=TrialStatus.PRUNED, stop=stop)


def after_a_round(change: Callable[[list[Trial]], list[Trial]]) -> TunerState:
    """Two rounds, the trials of the second changed; not yet the policy's update."""
    state = after_rounds(start(small_settings(trials_per_round=8), space=CUBE), bowl, 1)
    trials = change(trials_of(algorithm.propose(state), bowl))
    return algorithm.fit_reward_model(algorithm.observe(state, trials))


def predicted(state: TunerState, config: Config) -> float:
    assert state.model is not None
    return float(state.model.predict(state.space.features([config]))[0][0])


def test_a_stopped_trial_teaches_the_model_the_more_the_surer_its_estimate_is() -> None:
    def taught(deviation: float | None) -> float:
        def change(trials: list[Trial]) -> list[Trial]:
            last = trials[7]
            return [*trials[:7], last if deviation is None else stopped(last, bowl(last.config) - 3, deviation)]

        state = after_a_round(change)
        return predicted(state, state.history.trials[15].config)

    true, vague, sure = taught(None), taught(100.0), taught(1e-6)
    assert sure < vague < true


def test_a_stopped_trial_is_never_what_is_to_be_improved_upon() -> None:
    state = after_a_round(lambda trials: [*trials[:7], stopped(trials[7], 5.0, 1e-6)])
    best = state.history.best()
    assert best is not None
    assert best_reward(state) == state.history.reward(best)
    assert algorithm.update_policy(state).summaries[-1].best == best.value


def test_diagnostics_are_about_trials_that_ended() -> None:
    whole, cut = after_a_round(lambda trials: trials), after_a_round(lambda ts: [stopped(t, -1.0, 0.1) for t in ts])
    assert whole.model is not None
    assert cut.model is not None
    assert whole.model.diagnostics is not None
    assert cut.model.diagnostics is not None
    assert (whole.model.diagnostics.n, cut.model.diagnostics.n) == (16, 8)


def test_a_later_study_inherits_what_a_stopped_trial_taught() -> None:
    earlier = algorithm.update_policy(after_a_round(lambda ts: [*ts[:7], stopped(ts[7], -0.5, 0.1)]))
    later = warm_state(earlier, "later", 1, CUBE, "maximize", small_settings())
    assert later.inherited is not None
    assert [trial.weight for trial in later.inherited.trials] == [1.0] * 15 + [UNKNOWN]
    assert later.inherited.trials[-1].reward == -0.5
