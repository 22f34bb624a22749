from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from threadpoolctl import ThreadpoolController

from rlhpo_core.arrays import Floats
from rlhpo_core.study.tuner_settings import Kind
from rlhpo_core.tuner import reward_model
from rlhpo_core.tuner.gaussian_process import Hyperparameters
from rlhpo_core.tuner.reward_model import RewardModel, fit, from_state, one_thread
from tests.helpers.regression import sample, smooth

KINDS: tuple[Kind, ...] = ("mlp", "ensemble", "gp")
kinds = pytest.mark.parametrize("kind", KINDS)


def r2(model: RewardModel, x: Floats, y: Floats) -> float:
    mean, _ = model.predict(x)
    return 1 - float(np.mean((mean - y) ** 2) / y.var())


# -- every kind ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "least"), [("mlp", 0.85), ("ensemble", 0.85), ("gp", 0.97)])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-6, 0.9), (1e6, -1e7)])
def test_a_smooth_function_is_learnt_whatever_its_units(kind: Kind, least: float, scale: float, shift: float) -> None:
    x, y = sample(60)
    model = fit(kind, x, scale * y + shift, seed=0)
    fresh, truth = sample(500, seed=1)
    assert r2(model, fresh, scale * truth + shift) > least
    assert model.diagnostics is not None
    assert model.diagnostics.r2 > least - 0.1
    assert model.diagnostics.rank_correlation > 0.9
    assert model.diagnostics.n == 60


@kinds
def test_noise_alone_is_not_learnt(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    model = fit(kind, rng.random((60, 4)), rng.standard_normal(60), seed=0)
    assert model.diagnostics is not None
    assert model.diagnostics.r2 < 0.2
    # Leaving a point out moves the mean of the others away from it: the correlation may well be negative.
    assert model.diagnostics.rank_correlation < 0.4


@kinds
def test_intervals_hold_what_they_promise_on_noisy_rewards(kind: Kind) -> None:
    x, y = sample(120, noise=0.3)
    model = fit(kind, x, y, seed=0)
    fresh, truth = sample(1000, seed=1, noise=0.3)
    mean, std = model.predict(fresh)
    covered = float(np.mean(np.abs(truth - mean) <= reward_model.Z80 * std))
    assert covered == pytest.approx(0.8, abs=0.1)
    assert model.diagnostics is not None
    assert model.diagnostics.coverage == pytest.approx(0.8, abs=0.12)


@pytest.mark.parametrize("kind", ["ensemble", "gp"])
def test_uncertainty_grows_away_from_the_trials(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0.3, 0.5, (40, 4))
    model = fit(kind, x, smooth(x), seed=0)
    _, near = model.predict(rng.uniform(0.3, 0.5, (200, 4)))
    _, far = model.predict(rng.uniform(0.8, 1.0, (200, 4)))
    assert np.median(far) > 2 * np.median(near)


@kinds
def test_a_restored_model_predicts_bit_for_bit_the_same(kind: Kind) -> None:
    x, y = sample(30)
    model = fit(kind, x, y, seed=0)
    restored = from_state(kind, {name: tensor.clone() for name, tensor in model.state().items()})
    fresh, _ = sample(50, seed=1)
    for found, expected in zip(restored.predict(fresh), model.predict(fresh), strict=True):
        assert np.array_equal(found, expected)
    assert restored.diagnostics == model.diagnostics
    assert restored.kind == kind
    assert all(tensor.is_contiguous() for tensor in model.state().values())


@kinds
def test_the_seed_decides_all_chance(kind: Kind) -> None:
    x, y = sample(30)
    torch.manual_seed(1)
    first = fit(kind, x, y, seed=5).state()
    torch.manual_seed(2)
    again = fit(kind, x, y, seed=5).state()
    assert all(torch.equal(first[name], again[name]) for name in first)
    if kind != "gp":
        assert not torch.equal(first["w0"], fit(kind, x, y, seed=6).state()["w0"])


def test_blas_has_one_thread_meanwhile() -> None:
    """OpenBLAS shares the sums of a product among threads on some processors, which changes their last bits."""

    def counts() -> set[int]:
        return {pool["num_threads"] for pool in ThreadpoolController().info() if pool["user_api"] == "blas"}

    with ThreadpoolController().limit(limits=2, user_api="blas"):
        before = counts()
        with one_thread():
            assert counts() == {1}
        assert counts() == before


@kinds
def test_the_number_of_threads_changes_nothing(kind: Kind) -> None:
    x, y = sample(150)
    fresh, _ = sample(400, seed=1)
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(fit(kind, x, y, seed=0).predict(fresh))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])


@kinds
def test_fitting_changes_neither_its_input_nor_the_model_it_starts_from(kind: Kind) -> None:
    x, y = sample(30)
    first = fit(kind, x, y, seed=0)
    kept = {name: tensor.clone() for name, tensor in first.state().items()}
    more_x, more_y = sample(40)
    copies = more_x.copy(), more_y.copy()
    fit(kind, more_x, more_y, seed=1, warm_start=first)
    assert np.array_equal(more_x, copies[0])
    assert np.array_equal(more_y, copies[1])
    assert all(torch.equal(first.state()[name], kept[name]) for name in kept)
    x[:] = 0.0
    assert all(torch.equal(first.state()[name], kept[name]) for name in kept)


@kinds
@pytest.mark.parametrize("value", [0.0, 0.9, -1e9, 1e-12])
def test_equal_rewards_are_predicted_with_certainty(kind: Kind, value: float) -> None:
    x, _ = sample(12)
    model = fit(kind, x, np.full(12, value), seed=0)
    mean, std = model.predict(sample(20, seed=1)[0])
    np.testing.assert_allclose(mean, value, rtol=1e-6, atol=1e-6 if value == 0 else 0)
    assert (std <= max(1e-6 * abs(value), 1e-6 if value == 0 else 0.0)).all()
    assert model.diagnostics is not None
    assert (model.diagnostics.r2, model.diagnostics.n) == (0.0, 12)


@kinds
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_handful_of_trials_is_enough_to_start(kind: Kind, count: int) -> None:
    x, y = sample(count)
    model = fit(kind, x, y, seed=0)
    mean, std = model.predict(x)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    assert np.argmax(mean) == np.argmax(y)
    assert (model.diagnostics is None) == (count < 4)


@kinds
def test_repeated_configurations_with_differing_rewards(kind: Kind) -> None:
    x = np.repeat(np.array([[0.2, 0.2], [0.8, 0.8]]), 10, axis=0)
    y = np.concatenate([np.tile([0.0, 1.0], 5), np.tile([4.0, 5.0], 5)])
    model = fit(kind, x, y, seed=0)
    mean, std = model.predict(np.array([[0.2, 0.2], [0.8, 0.8]]))
    np.testing.assert_allclose(mean, [0.5, 4.5], atol=0.4)
    assert (std > 0.2).all()


@kinds
def test_a_terrible_trial_does_not_spoil_the_ranking_of_the_rest(kind: Kind) -> None:
    found = []
    for seed in range(3):
        x, y = sample(60, seed=10 + seed)
        y[7] = -1e8
        fresh, truth = sample(300, seed=1)
        found.append(stats.spearmanr(fit(kind, x, y, seed=0).predict(fresh)[0], truth).statistic)
    assert np.median(found) > 0.75


@kinds
def test_rewards_at_the_end_of_double_precision(kind: Kind) -> None:
    x, y = sample(20)
    with np.errstate(over="ignore"):
        mean, std = fit(kind, x, np.where(y > np.median(y), 1e300, -1e300), seed=0).predict(x)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()


@kinds
def test_what_cannot_be_fitted_is_refused(kind: Kind) -> None:
    x, y = sample(10)
    for bad_x, bad_y, message in [
        (x[:1], y[:1], "at least two"),
        (x, y[:5], r"wanted, not \(10, 4\) and \(5,\)"),
        (x[:, 0], y, "wanted"),
        (x[:, :0], y, "wanted"),
        (x, np.where(y > 0, np.nan, y), "finite"),
        (np.where(x > 0.5, np.inf, x), y, "finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(kind, bad_x, bad_y, seed=0)


def test_unknown_kinds_and_incomplete_states_are_refused() -> None:
    x, y = sample(10)
    with pytest.raises(ValueError, match="unknown kind of reward model: 'svm'; choose one of mlp, ensemble, gp"):
        fit("svm", x, y, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown kind"):
        from_state("svm", {})  # type: ignore[arg-type]
    for kind in KINDS:
        state = fit(kind, x, y, seed=0).state()
        for name in set(state) - {"diagnostics"}:
            with pytest.raises(KeyError, match=name):
                from_state(kind, {key: tensor for key, tensor in state.items() if key != name})


def test_diagnostics_agree_with_scipy() -> None:
    """Ties in both, as integers give."""
    rng = np.random.default_rng(0)
    truth, mean = rng.integers(0, 5, 50).astype(float), rng.integers(0, 5, 50).astype(float)
    found = reward_model._diagnose(truth, mean, np.full(50, 1.0))
    assert found.rank_correlation == pytest.approx(stats.spearmanr(truth, mean).statistic)
    assert found.coverage == np.mean(np.abs(truth - mean) < stats.norm.ppf(0.9))
    assert found.r2 == pytest.approx(1 - np.mean((truth - mean) ** 2) / truth.var())


# -- Gaussian process ------------------------------------------------------------------------------------------------


def test_noise_is_recovered() -> None:
    x, y = sample(200, noise=0.3, d=3)
    model = fit("gp", x, y, seed=0)
    noise = math.exp(Hyperparameters.of_vector(model.state()["hyperparameters"].numpy()).log_noise)
    assert math.sqrt(noise) * float(model.state()["scale"]) == pytest.approx(0.3, rel=0.2)


def test_hyperparameters_without_influence_get_long_length_scales() -> None:
    x, y = sample(80, d=6)
    hyper = Hyperparameters.of_vector(fit("gp", x, y, seed=0).state()["hyperparameters"].numpy())
    assert min(hyper.log_lengths[3:]) > math.log(3) + hyper.log_lengths[0]


def test_a_warm_start_of_another_width_or_kind_is_passed_over() -> None:
    x, y = sample(30)
    alone = fit("gp", x, y, seed=0).state()["hyperparameters"]
    narrower = fit("gp", x[:, :3], y, seed=0)
    for start in (narrower, fit("mlp", x, y, seed=0)):
        assert torch.equal(fit("gp", x, y, seed=0, warm_start=start).state()["hyperparameters"], alone)
    better = fit("gp", x, y, seed=0, warm_start=fit("gp", x, y, seed=0)).state()["hyperparameters"]
    torch.testing.assert_close(better, alone, atol=0.05, rtol=0.05)


def test_more_trials_than_the_process_takes_are_fitted_all_the_same() -> None:
    x, y = sample(420, noise=0.02)
    model = fit("gp", x, y, seed=0)
    assert model.state()["x"].shape == (400, 4)
    assert model.diagnostics is not None
    assert model.diagnostics.n == 400
    fresh, truth = sample(300, seed=1)
    assert r2(model, fresh, truth) > 0.95


# -- diagnostics -----------------------------------------------------------------------------------------------------


def test_the_80_percent_interval_is_the_normal_distributions() -> None:
    assert special.ndtr(reward_model.Z80) - special.ndtr(-reward_model.Z80) == pytest.approx(0.8, abs=1e-12)
