from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlhpo_core.evaluators.metrics import score
from rlhpo_core.production.answers import Answers
from rlhpo_core.production.gate import Measured, Verdict, judge, margin_of
from rlhpo_core.study.production_settings import GateSpec
from rlhpo_core.study.spec import CLASSIFICATION_METRICS, METRICS

QUICK = GateSpec(resamples=400, log_loss_increase=None)


def answers(correct: np.ndarray, target: np.ndarray, sure: float = 0.9, **more: float) -> Answers:
    """A classifier of two classes that is right where it is said to be."""
    chosen = np.where(correct, target, 1 - target).astype(int)
    output = np.full((len(target), 2), 1 - sure)
    output[np.arange(len(target)), chosen] = sure
    return Answers(output, more.get("seconds", 1e-5), int(more.get("size", 1000)))


def pair(rows: int, won: float, lost: float, seed: int) -> tuple[np.ndarray, Answers, Answers]:
    """Two models that disagree: the challenger alone is right on a share of rows, the champion alone on another."""
    rng = np.random.default_rng(seed)
    target, fate = rng.integers(2, size=rows), rng.random(rows)
    both = rng.random(rows) < 0.8
    champion = np.where(fate < won, False, np.where(fate < won + lost, True, both))
    challenger = np.where(fate < won, True, np.where(fate < won + lost, False, both))
    return target.astype(float), answers(champion, target), answers(challenger, target)


def verdict(rows: int, won: float, lost: float, seed: int = 0, spec: GateSpec = QUICK, rivals: int = 1) -> Verdict:
    target, champion, challenger = pair(rows, won, lost, seed)
    return judge("accuracy", target, champion, challenger, {}, spec, seed, rivals)


def measured_of(verdict: Verdict) -> Measured:
    assert verdict.measured is not None
    return verdict.measured


def test_a_challenger_that_is_surely_better_is_promoted() -> None:
    judged = verdict(1000, won=0.1, lost=0.02)
    assert judged.decision == "promote"
    measured = measured_of(judged)
    assert 0 < measured.low < measured.gain < measured.high
    assert measured.gain == pytest.approx(measured.challenger - measured.champion)
    assert verdict(1000, won=0.02, lost=0.1).decision == "keep"


def test_the_margin_has_to_be_surpassed_and_not_only_reached() -> None:
    strict = QUICK.model_copy(update={"margin": 0.08})
    judged = verdict(1000, won=0.1, lost=0.02, spec=strict)
    assert judged.decision == "keep"
    assert "not above the margin of 0.08" in judged.reason
    assert 0.08 < measured_of(judged).detectable < 0.12


def test_equal_models_and_few_lucky_rows_change_nothing() -> None:
    assert verdict(500, won=0.0, lost=0.0).decision == "keep"
    target = np.zeros(400)
    before, after = np.ones(400, dtype=bool), np.ones(400, dtype=bool)
    before[:4] = False
    judged = judge("accuracy", target, answers(before, target), answers(after, target), {}, QUICK, 0)
    assert measured_of(judged).low > 0, "the bootstrap alone would be sure"
    assert judged.decision == "keep", "four rows won and none lost happens by chance one time in sixteen"


def test_too_few_rows_are_refused() -> None:
    judged = verdict(199, won=0.5, lost=0.0)
    assert (judged.decision, judged.measured) == ("refuse", None)
    assert "199 rows are too few to decide; gate.min_rows asks for 200" in judged.reason


def test_a_metric_that_is_not_defined_is_refused() -> None:
    target = np.zeros(300)
    model = answers(np.ones(300, dtype=bool), target)
    assert judge("auc", target, model, model, {}, QUICK, 0).decision == "refuse"


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_knows_what_is_better(metric: str) -> None:
    rng = np.random.default_rng(0)
    if metric in CLASSIFICATION_METRICS:
        target, worse, better = pair(800, won=0.25, lost=0.02, seed=1)
    else:
        target = rng.normal(0, 1, 800)
        worse, better = (Answers(target + rng.normal(0, s, 800), 1e-5, 1000) for s in (0.5, 0.3))
    assert judge(metric, target, worse, better, {}, QUICK, 0).decision == "promote"
    assert judge(metric, target, better, worse, {}, QUICK, 0).decision == "keep"


def test_guards_veto() -> None:
    target, champion, challenger = pair(1000, won=0.1, lost=0.0, seed=0)
    spec = GateSpec(resamples=400)
    assert judge("accuracy", target, champion, challenger, {}, spec, 0).decision == "promote"
    for change, word in (({"seconds_per_row": 5e-5}, "milliseconds per row"), ({"size": 20_000}, "kilobytes")):
        judged = judge("accuracy", target, champion, replace(challenger, **change), {}, spec, 0)
        assert judged.decision == "veto"
        assert word in judged.reason
    # Right more often, but when it is wrong, it is so without a doubt.
    rash = answers(challenger.output.argmax(1) == target, target, sure=0.9999999)
    judged = judge("accuracy", target, champion, rash, {}, spec, 0)
    assert judged.decision == "veto"
    assert "log-loss" in judged.reason
    off = GateSpec(resamples=400, latency_ratio=None, size_ratio=None, log_loss_increase=None)
    assert judge("accuracy", target, champion, replace(rash, size=10**9, seconds_per_row=1.0), {}, off, 0).decision == (
        "promote"
    )


def test_the_worst_slice_vetoes_if_it_is_surely_worse() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(2, size=1200)
    small = np.arange(1200) < 150
    before = rng.random(1200) < 0.7
    after = np.where(small, before & (rng.random(1200) < 0.5), before | (rng.random(1200) < 0.5))
    slices = {"region=north": small, "region=south": ~small, "region=none": np.zeros(1200, dtype=bool)}
    champion, challenger = answers(before, target), answers(after, target)
    judged = judge("accuracy", target.astype(float), champion, challenger, slices, QUICK, 0)
    assert judged.decision == "veto"
    assert "accuracy where region=north" in judged.reason
    lenient = QUICK.model_copy(update={"slice_drop": 0.6})
    assert judge("accuracy", target.astype(float), champion, challenger, slices, lenient, 0).decision == "promote"
    # A slice that is a little worse by chance is no reason.
    noise = {f"part={k}": np.arange(1200) % 12 == k for k in range(12)}
    judged = judge("accuracy", *pair(1200, 0.1, 0.04, 3), noise, QUICK, 0)
    assert judged.decision == "promote"


def test_among_several_challengers_each_must_be_surer() -> None:
    decisions = {rivals: verdict(600, 0.06, 0.03, seed=11, rivals=rivals) for rivals in (1, 20)}
    assert decisions[1].confidence == 0.95
    assert decisions[20].confidence == 0.9975
    assert measured_of(decisions[20]).low < measured_of(decisions[1]).low


@pytest.mark.parametrize("margin", [0.0, 0.03])
def test_no_gain_beyond_the_margin_passes_at_most_at_the_error_rate(margin: float) -> None:
    """200 pairs whose true gain is the margin. One in twenty may pass; 17 of 200 would be a rare accident (2 %)."""
    spec = QUICK.model_copy(update={"margin": margin})
    passed = sum(
        verdict(600, won=0.08 + margin, lost=0.08, seed=seed, spec=spec).decision == "promote" for seed in range(200)
    )
    assert passed <= 16


def test_twice_the_margin_passes_four_times_out_of_five() -> None:
    spec = QUICK.model_copy(update={"margin": 0.04})
    passed = sum(verdict(600, won=0.12, lost=0.04, seed=seed, spec=spec).decision == "promote" for seed in range(100))
    assert passed >= 80


@pytest.mark.parametrize(
    ("metric", "champion", "given", "margin"),
    [("accuracy", 0.8, None, 0.01), ("log_loss", 0.4, None, 0.004), ("rmse", 3e4, None, 300.0), ("rmse", 3e4, 5, 5)],
)
def test_without_a_margin_it_is_in_proportion(metric: str, champion: float, given: float | None, margin: float) -> None:
    assert margin_of(GateSpec(margin=given), metric, champion) == pytest.approx(margin)


def test_a_gain_within_the_default_margin_keeps_the_champion() -> None:
    judged = verdict(5000, won=0.088, lost=0.08, spec=QUICK)
    assert judged.decision == "keep"
    assert measured_of(judged).margin == 0.01


def customers(groups: int, each: int, seed: int) -> tuple[np.ndarray, Answers, Answers, np.ndarray]:
    """Customers of whom each is served better by one of two models that are equally good on the whole."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), each)
    rows = len(group)
    target, both, differ = rng.integers(2, size=rows), rng.random(rows) < 0.8, rng.random(rows) < 0.3
    lean = rng.choice([-1, 0, 1], groups)[group]
    champion = np.where(differ & (lean != 0), lean < 0, both)
    challenger = np.where(differ & (lean != 0), lean > 0, both)
    return target.astype(float), answers(champion, target), answers(challenger, target), group


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_rows_of_one_group_do_not_count_as_so_many(metric: str) -> None:
    """60 pairs of equal models: by rows one in four passes, by groups one in twenty may (7 are a 3 % accident)."""
    spec = QUICK.model_copy(update={"margin": 0.0, "resamples": 200})
    passed = {"rows": 0, "groups": 0}
    for seed in range(60):
        *pair, group = customers(40, 10, seed)
        passed["rows"] += judge(metric, *pair, {}, spec, seed).decision == "promote"
        passed["groups"] += judge(metric, *pair, {}, spec, seed, groups=group + 5).decision == "promote"
    assert passed["rows"] >= 9
    assert passed["groups"] <= 6


def test_a_challenger_that_is_better_for_most_groups_is_promoted() -> None:
    target, champion, challenger = pair(1000, won=0.1, lost=0.02, seed=0)
    judged = judge("accuracy", target, champion, challenger, {}, QUICK, 0, groups=np.repeat(np.arange(100), 10))
    assert judged.decision == "promote"
    few = judge("accuracy", target, champion, challenger, {}, QUICK, 0, groups=np.repeat(np.arange(10), 100))
    assert few.decision == "refuse"
    assert "1000 rows of 10 groups (data.split) are too few to decide" in few.reason
    # A slice of few groups says nothing either.
    slices = {"place=north": np.arange(1000) < 150}
    worse = replace(
        challenger, output=np.where(slices["place=north"][:, None], champion.output[::-1], challenger.output)
    )
    by_rows = judge("accuracy", target, champion, worse, slices, QUICK, 0)
    by_groups = judge("accuracy", target, champion, worse, slices, QUICK, 0, groups=np.repeat(np.arange(100), 10))
    assert any("place=north" in guard.name for guard in by_rows.guards)
    assert not any("place=north" in guard.name for guard in by_groups.guards)


def test_rows_count_by_their_weight_as_in_the_studys_scores() -> None:
    """The challenger wins on many rows of no weight and loses on few that matter."""
    rng = np.random.default_rng(0)
    target = rng.integers(2, size=900)
    heavy = np.arange(900) < 300
    champion = answers(heavy | (rng.random(900) < 0.5), target)
    challenger = answers(~heavy | (rng.random(900) < 0.5), target)
    weights = np.where(heavy, 10.0, 0.1)
    pair = (target.astype(float), champion, challenger)
    assert judge("accuracy", *pair, {}, QUICK, 0).decision == "promote"
    judged = judge("accuracy", *pair, {}, QUICK, 0, weights=weights)
    assert judged.decision == "keep"
    wanted = score("accuracy", target, challenger.output, 2, weights)
    assert measured_of(judged).challenger == pytest.approx(wanted)
