from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from rlhpo_core.study.tuner_settings import Kind
from rlhpo_core.tuner import gaussian_process, reward_model
from rlhpo_core.tuner.acquisition import acquisition
from rlhpo_core.tuner.gaussian_process import Expected
from rlhpo_core.tuner.reward_model import RewardModel, fit, from_state

Floats = NDArray[np.float64]
KINDS: tuple[Kind, ...] = ("mlp", "ensemble", "gp")
kinds = pytest.mark.parametrize("kind", KINDS)


def smooth(x: Floats) -> Floats:
    return np.sin(4 * x[:, 0]) + x[:, 1] ** 2 - x[:, 0] * x[:, 2]


def sample(count: int, seed: int = 0, noise: float = 0.0, d: int = 4) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    x = rng.random((count, d))
    return x, smooth(x) + noise * rng.standard_normal(count)


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


# -- perceptrons -----------------------------------------------------------------------------------------------------


def test_the_members_of_an_ensemble_differ() -> None:
    x, y = sample(30)
    state = fit("ensemble", x, y, seed=0).state()
    assert state["w0"].shape == (10, 4, 64)
    assert not torch.equal(state["w0"][0], state["w0"][1])
    assert fit("mlp", x, y, seed=0).state()["w0"].shape == (1, 4, 64)


def test_the_noise_of_a_perceptron_is_its_error_on_what_it_has_not_seen() -> None:
    x, y = sample(200, noise=0.5)
    _, std = fit("mlp", x, y, seed=0).predict(x)
    assert np.ptp(std) == 0
    assert std[0] == pytest.approx(0.5, rel=0.3)


# -- Gaussian process ------------------------------------------------------------------------------------------------


def tensors(count: int, seed: int = 0, noise: float = 0.1, d: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = sample(count, seed, noise, d)
    return torch.from_numpy(x), torch.from_numpy((y - y.mean()) / y.std())


#: Length scales, noise variance, r and S, all as logarithms.
HYPER = torch.tensor([math.log(0.5), math.log(0.8), math.log(2.0), math.log(0.05), math.log(0.7), 0.0]).double()


def sklearn_process(x: torch.Tensor, y: torch.Tensor) -> GaussianProcessRegressor:
    matern = Matern(length_scale=HYPER[:3].exp().numpy(), nu=2.5)
    kernel = ConstantKernel(1.0) + ConstantKernel(float((2 * HYPER[-2]).exp())) * matern
    noise = float(HYPER[-3].exp())
    return GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(x.numpy(), y.numpy())


def test_likelihood_and_posterior_are_those_of_scikit_learn() -> None:
    x, y = tensors(30)
    theirs = sklearn_process(x, y)
    ours = float(gaussian_process.log_likelihood(HYPER, x, y))
    assert ours == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-10)
    state, _, _ = gaussian_process.posterior(x, y, HYPER)
    fresh, _ = tensors(20, seed=1)
    mean, std = gaussian_process.predict(state, fresh)
    their_mean, their_std = theirs.predict(fresh.numpy(), return_std=True)
    np.testing.assert_allclose(mean, their_mean, rtol=1e-8)
    np.testing.assert_allclose(std, their_std, rtol=1e-6)


def test_leave_one_out_is_what_fitting_without_the_point_gives() -> None:
    x, y = tensors(12)
    _, means, deviations = gaussian_process.posterior(x, y, HYPER)
    for left_out in range(len(y)):
        rest = [row for row in range(len(y)) if row != left_out]
        state, _, _ = gaussian_process.posterior(x[rest], y[rest], HYPER)
        mean, std = gaussian_process.predict(state, x[left_out : left_out + 1])
        assert float(means[left_out]) == pytest.approx(float(mean[0]), rel=1e-9)
        noisy = math.sqrt(float(std[0]) ** 2 + float(HYPER[-3].exp()))
        assert float(deviations[left_out]) == pytest.approx(noisy, rel=1e-9)


def test_the_fitted_hyperparameters_are_a_maximum_within_their_bounds() -> None:
    x, y = tensors(40, noise=0.3)
    state, _, _ = gaussian_process.fit(x, y)
    hyper = state["hyperparameters"]

    def posterior_density(at: torch.Tensor) -> float:
        return float(gaussian_process.log_likelihood(at, x, y) + gaussian_process._log_prior(at, leaning=False))

    here = posterior_density(hyper)
    for index in range(len(hyper) - 1):  # S is 1 without a prior
        for step in (-0.05, 0.05):
            moved = hyper.clone()
            moved[index] += step
            assert posterior_density(moved) < here + 1e-6


def test_noise_is_recovered() -> None:
    x, y = sample(200, noise=0.3, d=3)
    model = fit("gp", x, y, seed=0)
    deviation = math.sqrt(float(model.state()["hyperparameters"][-3].exp())) * float(model.state()["scale"])
    assert deviation == pytest.approx(0.3, rel=0.2)


def test_hyperparameters_without_influence_get_long_length_scales() -> None:
    x, y = sample(80, d=6)
    lengths = fit("gp", x, y, seed=0).state()["hyperparameters"][:-3].exp()
    assert lengths[3:].min() > 3 * lengths[0]


def test_a_prior_that_promises_far_too_much_does_not_break_the_process() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(60, generator=generator, dtype=torch.float64)
    promised = Expected(mean=x[:, 0], basis=1e5 * torch.rand(60, 2, generator=generator, dtype=torch.float64))
    least_noise, largest_scale = gaussian_process.LOG_NOISE_BOUNDS[0], gaussian_process.LOG_S_BOUNDS[1]
    hyper = torch.tensor([0.0, 0.0, 0.0, least_noise, 0.0, largest_scale], dtype=torch.float64)
    state, mean, std = gaussian_process.posterior(x, y, hyper, None, promised)
    assert bool(mean.isfinite().all() and std.isfinite().all() and state["alpha"].isfinite().all())


def test_a_warm_start_of_another_width_or_kind_is_passed_over() -> None:
    x, y = sample(30)
    alone = fit("gp", x, y, seed=0).state()["hyperparameters"]
    narrower = fit("gp", x[:, :3], y, seed=0)
    for start in (narrower, fit("mlp", x, y, seed=0)):
        assert torch.equal(fit("gp", x, y, seed=0, warm_start=start).state()["hyperparameters"], alone)
    better = fit("gp", x, y, seed=0, warm_start=fit("gp", x, y, seed=0)).state()["hyperparameters"]
    torch.testing.assert_close(better, alone, atol=0.05, rtol=0.05)


def test_of_many_trials_the_process_keeps_the_best_the_latest_and_those_far_apart() -> None:
    x, y = sample(450, noise=0.05)
    y[5] = 100.0
    rows = gaussian_process.subset(x, y)
    assert len(rows) == gaussian_process.MAX_POINTS
    assert list(rows) == sorted(set(rows.tolist()))
    assert 5 in rows
    assert set(range(350, 450)) <= set(rows.tolist())
    assert set(np.argsort(-y)[:100].tolist()) <= set(rows.tolist())
    left_out = sorted(set(range(450)) - set(rows.tolist()))
    apart = [np.linalg.norm(np.delete(x, row, axis=0) - x[row], axis=1).min() for row in range(450)]
    chosen = [row for row in rows if row < 350 and row not in set(np.argsort(-y)[:100].tolist())]
    assert np.median([apart[row] for row in chosen]) > np.median([apart[row] for row in left_out])


def test_more_trials_than_the_process_takes_are_fitted_all_the_same() -> None:
    x, y = sample(420, noise=0.02)
    model = fit("gp", x, y, seed=0)
    assert model.state()["x"].shape == (400, 4)
    assert model.diagnostics is not None
    assert model.diagnostics.n == 400
    fresh, truth = sample(300, seed=1)
    assert r2(model, fresh, truth) > 0.95


# -- acquisition -----------------------------------------------------------------------------------------------------

MEAN, STD = np.array([-3.0, -0.5, 0.0, 0.4, 2.0]), np.array([0.5, 1.0, 0.1, 2.0, 0.3])


def test_expected_improvement_is_its_closed_form_and_its_integral() -> None:
    best = 0.3
    z = (MEAN - best) / STD
    closed = STD * (stats.norm.pdf(z) + z * stats.norm.cdf(z))
    np.testing.assert_allclose(acquisition("ei", MEAN, STD, best), closed, rtol=1e-9)
    np.testing.assert_allclose(acquisition("log_ei", MEAN, STD, best), np.log(closed), rtol=1e-9)
    draws = np.random.default_rng(0).normal(MEAN, STD, (200_000, 5))
    np.testing.assert_allclose(
        acquisition("ei", MEAN, STD, best), np.maximum(draws - best, 0).mean(0), rtol=0.03, atol=1e-3
    )


@pytest.mark.parametrize("z", [-5.0, -20.0, -38.0, -100.0, -1e4, -9e5, -1.1e6, -1e8])
def test_log_expected_improvement_far_below_the_best(z: float) -> None:
    """Against the asymptotic series φ(z)/z² · (1 − 3/z² + 15/z⁴ − 105/z⁶ …) and, nearer, against mills ratios."""
    found = float(acquisition("log_ei", np.array([z]), np.array([1.0]), 0.0)[0])
    series = 1 - 3 / z**2 + 15 / z**4 - 105 / z**6 + 945 / z**8
    expected = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) - 2 * math.log(-z) + math.log(series)
    assert found == pytest.approx(expected, rel=1e-3 if z == -5 else 1e-8, abs=1e-3)


def test_log_expected_improvement_rises_without_a_step() -> None:
    z = np.concatenate([-np.logspace(8, -3, 4000), np.logspace(-3, 8, 4000)])
    found = acquisition("log_ei", z, np.ones_like(z), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    beside = acquisition("log_ei", np.array([-1 - 1e-9, -1 + 1e-9]), np.ones(2), 0.0)
    assert beside[1] - beside[0] < 1e-7


def test_upper_bound_mean_and_certainty() -> None:
    np.testing.assert_allclose(acquisition("ucb", MEAN, STD, 0.0, beta=3.0), MEAN + 3 * STD)
    assert np.array_equal(acquisition("mean", MEAN, STD, 0.0), MEAN)
    certain = acquisition("ei", np.array([1.0, -1.0]), np.zeros(2), 0.0)
    np.testing.assert_allclose(certain, [1.0, 0.0], atol=1e-9)
    assert np.isfinite(acquisition("log_ei", np.array([1.0, -1.0]), np.zeros(2), 0.0)).all()
    with pytest.raises(ValueError, match="'pi'"):
        acquisition("pi", MEAN, STD, 0.0)  # type: ignore[arg-type]


def test_the_80_percent_interval_is_the_normal_distributions() -> None:
    assert special.ndtr(reward_model.Z80) - special.ndtr(-reward_model.Z80) == pytest.approx(0.8, abs=1e-12)
