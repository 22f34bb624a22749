"""The bank of real trainings and the priors from it, on two small tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import real_evaluations, real_priors
from benchmarks.algorithms import ALGORITHMS, CLASSIFICATION, METRICS, REGRESSION, available
from benchmarks.real_evaluations import ANYWHERE, BEST, EARLIER, HAND, LIBRARY, MIXED
from benchmarks.real_pools import Pool
from benchmarks.real_priors import portfolio_of
from rlhpo_core.priors.training import PriorSettings
from rlhpo_core.tuner.prior import from_bytes

QUICK = PriorSettings(width=8, features=2, steps=20, policy_updates=0, portfolio=0)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two algorithms on two tables, made by the script; it is stopped in the middle, and goes on."""
    place = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(0)
    for index, name in enumerate(("one", "two")):
        table = pd.DataFrame(rng.normal(size=(120, 3)), columns=["x", "y", "z"])
        table["kind"] = rng.choice(["a", "b", "c"], 120)
        noisy = table.x + (index + 1) * table.y + (table.kind == "a") + rng.normal(size=120)
        table["target"] = np.where(noisy > 0, "yes", "no")
        table.to_csv(place / f"{name}.csv", index=False)
    out = place / "bank"
    command = ["--tables", str(place), "--out", str(out), "--algorithms", "knn,svc"]
    real_evaluations.main([*command, "--minutes", "0.005"])
    begun = len(real_evaluations.load(out))
    real_evaluations.main(command)
    assert 0 < begun < len(real_evaluations.load(out))
    return out


def test_each_table_is_tried_with_the_same_configurations(bank: Path) -> None:
    rows = real_evaluations.load(bank)
    assert {row.table for row in rows} == {"one", "two"}
    for name in ("knn", "svc"):
        own = [row for row in rows if row.algorithm == name]
        one, two = ({str(row.config) for row in own if row.table == table} for table in ("one", "two"))
        assert one == two
        assert {row.kind for row in own} >= {HAND, ANYWHERE, MIXED, BEST}
    assert {row.algorithm for row in rows if row.kind == LIBRARY} == {"svc"}, "the default gamma is no number"
    assert all(set(row.scores) == set(METRICS[CLASSIFICATION]) for row in rows if row.algorithm == "knn" and row.scores)
    assert any(0.6 < row.scores["accuracy"] <= 1 for row in rows if row.scores)

    real_evaluations.main(["--out", str(bank), "--pack"])
    assert real_evaluations.load(bank) == rows, "packed, they are the same"
    text = (bank / "rows.jsonl.xz").read_bytes()
    real_evaluations.main(["--out", str(bank), "--pack"])
    assert (bank / "rows.jsonl.xz").read_bytes() == text


def test_a_prior_is_learnt_from_the_bank_and_judged_on_what_it_has_not_seen(bank: Path) -> None:
    found = real_priors.pools_of(real_evaluations.load(bank))
    assert set(found) == {("knn", CLASSIFICATION), ("svc", CLASSIFICATION)}
    assert set(found["knn", CLASSIFICATION]) == set(METRICS[CLASSIFICATION])
    pool = found["knn", CLASSIFICATION]["log_loss"]
    prior = real_priors.trained(pool, QUICK)
    assert prior.card.name == "knn-log-loss"
    assert prior.card.objective == "log_loss"
    assert len(data := prior.to_bytes()) < 30_000
    assert from_bytes(data).to_bytes() == data
    assert not prior.has_policy
    # What is first is what is best on the mean of both tables, time aside.
    best = pool.configs[int(np.argmin(pool.regrets.mean(axis=0)))]
    assert prior.portfolio_ignoring_time[0] in (best, ALGORITHMS["knn"].default(CLASSIFICATION))
    text = "\n".join(real_priors.tables(found, real_priors.judge_all(found)))
    assert "| knn | accuracy | 2 |" in text
    assert "| svc | auc | 2 |" in text
    assert "| svc | log_loss" not in text, "it has no probabilities"


def pool(rewards: np.ndarray) -> Pool:
    """Ten tables of which each pair is a group, and configurations of which the first is the library's."""
    tables = [name for group in range(5) for name in real_evaluations.NUMBERS[group::5][:2]]
    algorithm = ALGORITHMS["knn"]
    configs = [*algorithm.picks(REGRESSION), *algorithm.space.decode(np.random.default_rng(0).uniform(-1, 1, (20, 3)))]
    count = rewards.shape[1]
    kinds = [frozenset({(HAND, -1)})] + [frozenset({(ANYWHERE, -1)})] * (count - 1)
    return Pool(
        algorithm, REGRESSION, "r2", tables, configs[:count], kinds, rewards, np.ones_like(rewards), rewards[:, 0]
    )  # fmt: skip


def test_the_defaults_come_first_unless_something_is_better_on_tables_left_out() -> None:
    rng = np.random.default_rng(0)
    # The library's are good everywhere; each other one is the best on two tables of one group, and bad elsewhere.
    rewards = np.full((10, 6), 0.0)
    rewards[:, 0] = 0.8
    for group in range(5):
        rewards[2 * group : 2 * group + 2, 1 + group] = 1.0
    portfolio = portfolio_of(pool(rewards), -1, 6)
    assert portfolio[0] == 0
    assert set(portfolio) == set(range(6)), "and what follows makes up for it"

    rewards = rng.normal(0, 0.1, (10, 6))
    rewards[:, 3] += 1
    assert portfolio_of(pool(rewards), -1, 3)[0] == 3

    # On the tables outside of one group the third does best; there, it fails.
    rewards = np.zeros((10, 6))
    rewards[:, 0], rewards[:, 3] = 0.5, 0.55
    rewards[0:2, 3] = -9
    assert portfolio_of(pool(rewards), -1, 3)[0] == 0


def test_an_earlier_prior_is_judged_and_not_learnt_from() -> None:
    rewards = np.random.default_rng(0).normal(0, 0.1, (10, 6))
    rewards[:, 5] += 1
    judged = pool(rewards)
    judged = replace(judged, kinds=[*judged.kinds[:5], frozenset({(EARLIER, -1)})])
    assert 5 not in portfolio_of(judged, -1, 6)


@pytest.mark.parametrize("name", available())
def test_each_algorithm_can_be_trained_with_what_is_picked_by_hand(name: str) -> None:
    algorithm = ALGORITHMS[name]
    for task in algorithm.tasks:
        picks = algorithm.picks(task)
        assert len({str(config) for config in picks}) == 5
        algorithm.space.encode(picks)
        if algorithm.expressed:
            wanted = {**algorithm.defaults, **algorithm.of_task.get(task, {})}
            nearest = algorithm.default(task)
            assert all(nearest[key] == pytest.approx(wanted[key], abs=1e-3) for key in nearest if key in wanted)
