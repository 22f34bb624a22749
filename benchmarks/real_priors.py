"""Priors from the bank of real trainings: how good they are on tables that they have not seen, and what is shipped.

    python -m benchmarks.real_priors                 print how they do on tables left out
    python -m benchmarks.real_priors --out DIR       train them, for rlhpo_core/priors/builtin

Tables are in five groups. What is learnt without a group is judged on it: by the lowest regret among the first 1, 2, 5
and 10 configurations, 0 for the best that was tried on a table and 1 for the median of the quasi-random ones, at most
2. All of these were trained with: nothing is predicted. Beside it stand the library's defaults, and five configurations
by hand, the defaults first. Intervals are of the paired difference of means, 95 %, tables drawn anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import markdown, real_evaluations
from benchmarks.algorithms import ALGORITHMS, Floats
from benchmarks.real_evaluations import EARLIER
from benchmarks.real_pools import Pool, pools_of
from rlhpo_core.priors.portfolio import WORST, choose_measured
from rlhpo_core.priors.training import FinishedStudy, PriorSettings, train
from rlhpo_core.tuner.prior import Prior

BUDGETS = (1, 2, 5, 10)
RESAMPLINGS = 10_000
PORTFOLIO = 5
#: Metrics that are served by the prior of another, since the two order the configurations of a table alike.
LEARNT_BY = {"rmse": "r2"}
#: Of the shipped priors: small files, and no policy, which costs the most of one.
SETTINGS = PriorSettings(width=32, features=8, steps=500, policy_updates=0, portfolio=0)
SOURCE = (
    "Real trainings with up to 400 rows of public tables, most of them of the UCI repository and OpenML "
    "(benchmarks/results/real_evaluations)"
)

# -- portfolios --------------------------------------------------------------------------------------------------------


def portfolio_of(pool: Pool, without: int, size: int, ignoring_time: bool = False) -> list[int]:
    """Indices of a portfolio, learnt from the tables outside of a group.

    The defaults come first if what would be first instead is worse than the library's on tables left out.

    Args:
        pool: What it is chosen from.
        without: The group; -1 for none.
        size: Of the portfolio.
        ignoring_time: Whether it does not matter how long trainings take.
    """
    losses = []
    for inner in set(pool.folds.tolist()) - {without}:
        if first := _greedy(pool, {without, inner}, without, 1, ignoring_time):
            rows = pool.folds == inner
            losses.append(pool.regrets[rows, first[0]] - pool.library_regrets[rows])
    behind = not losses or np.concatenate(losses).mean() > 0
    return _greedy(pool, {without}, without, size, ignoring_time, pool.by_hand[0] if behind else None)


def _greedy(
    pool: Pool, left_out: set[int], without: int, size: int, ignoring_time: bool, first: int | None = None
) -> list[int]:
    """Nothing if no table is left to learn from."""
    eligible = pool.eligible(without)
    regrets = pool.regrets[~np.isin(pool.folds, list(left_out))][:, eligible]
    if not len(regrets):
        return []
    cost = None if ignoring_time else pool.costs[eligible]
    place = None if first is None else int(np.flatnonzero(eligible == first)[0])
    return [int(eligible[index]) for index in choose_measured(regrets, size, cost, place)]


@dataclass(frozen=True)
class Judged:
    """Regrets of tables by what is tried on them, (T, budgets): NaN beyond what there is to try."""

    regrets: Mapping[str, Floats]

    def means(self, name: str) -> Floats:
        return np.asarray(self.regrets[name].mean(axis=0))

    def difference(self, one: str, other: str, at: int) -> Floats:
        """Of each table, ``one`` less ``other`` after a number of trials."""
        return np.asarray(self.regrets[one][:, BUDGETS.index(at)] - self.regrets[other][:, BUDGETS.index(at)])


def interval(differences: Floats) -> tuple[float, float, float]:
    """Mean, and 95 % by a bootstrap over tables."""
    draws = np.random.default_rng(0).integers(len(differences), size=(RESAMPLINGS, len(differences)))
    low, high = np.quantile(differences[draws].mean(axis=1), [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def judge(judged: Pool, learnt: Pool) -> Judged:
    """On each table, by what the other groups of tables have taught.

    Args:
        judged: By whose metric regret is measured.
        learnt: By whose metric it was learnt, of the same algorithm and task.
    """
    orders = {"by hand": [judged.by_hand] * len(judged.tables)}
    if len(earlier := judged.of_kind(EARLIER)):
        orders["earlier prior"] = [earlier.tolist()] * len(judged.tables)
    by_fold = {fold: portfolio_of(learnt, fold, max(BUDGETS)) for fold in set(judged.folds.tolist())}
    orders["portfolio"] = [by_fold[fold] for fold in judged.folds.tolist()]
    found = {"library": np.repeat(judged.library_regrets[:, None], len(BUDGETS), axis=1)}
    for name, order in orders.items():
        found[name] = np.array(
            [
                [regrets[indices[:budget]].min(initial=WORST) for budget in BUDGETS]
                for regrets, indices in zip(judged.regrets, order, strict=True)
            ]
        )
    return Judged(found)


# -- priors ------------------------------------------------------------------------------------------------------------


def prior_name(algorithm: str, metric: str) -> str:
    """As it is shipped."""
    return f"{algorithm.removesuffix('-wide')}-{metric.replace('_', '-')}"


def shipped_portfolio(pool: Pool, ignoring_time: bool) -> list[int]:
    """From all tables. If what was learnt without a group was behind the defaults there at first, they come first."""
    behind = judge(pool, pool).difference("portfolio", "library", 1).mean() > 0
    if behind:
        return _greedy(pool, set(), -1, PORTFOLIO, ignoring_time, pool.by_hand[0])
    return portfolio_of(pool, -1, PORTFOLIO, ignoring_time)


def trained(pool: Pool, settings: PriorSettings = SETTINGS) -> Prior:
    """A prior of one algorithm and metric from all tables."""
    studies = []
    for table, rewards, seconds in zip(pool.tables, pool.rewards, pool.seconds, strict=True):
        known = np.flatnonzero(np.isfinite(rewards))
        configs = [pool.configs[index] for index in known]
        studies.append(FinishedStudy(table, configs, rewards[known], seconds=seconds[known]))
    name = prior_name(pool.algorithm.space_name, pool.metric)
    prior = train(name, pool.algorithm.space, studies, pool.metric, SOURCE, settings)
    by_time, ignoring_time = (
        tuple(pool.configs[index] for index in shipped_portfolio(pool, ignoring)) for ignoring in (False, True)
    )
    return replace(prior, portfolio=by_time, portfolio_ignoring_time=ignoring_time)


# -- tables and the page -----------------------------------------------------------------------------------------------

INTRO = """
Portfolios that are learnt from real trainings of eleven algorithms, on tables that had no part in it. Each algorithm
has the same configurations on all tables, up to 400 training rows and up to 600 that score. Tables are in five groups;
what is learnt without a group is judged on it. The figures are the lowest regret among the first configurations: 0 is
the best that was tried on a table, 1 the median of its quasi-random configurations, and what is above 2 counts as 2.
Nothing is predicted: all were trained with. `by hand` are five configurations that somebody wrote down beforehand, the
library's defaults first; they are among those that a portfolio is chosen from. `earlier` is the portfolio of the prior
that was trained on YAHPO Gym's surrogates. In brackets are 95 % intervals of the paired difference, tables drawn anew;
means over algorithms are taken within a table first. Where the first was behind the defaults, the prior that is built
in begins with these.
"""
COMMAND = """
python -m benchmarks.real_evaluations --tables DIR --only TABLE,TABLE
python -m benchmarks.real_evaluations --pack
"""
Found = Mapping[tuple[str, str], Mapping[str, Pool]]


def pages() -> dict[str, str]:
    """The file of docs/measurements about the built-in priors."""
    found = pools_of(real_evaluations.load(real_evaluations.RESULTS))
    page = markdown.page(
        "Built-in priors", INTRO, "real_priors", [real_evaluations.RESULTS], COMMAND, tables(found, judge_all(found))
    )
    return {"built-in-priors.md": page}


def judge_all(found: Found) -> dict[tuple[str, str], Judged]:
    """By algorithm and metric."""
    return {
        (name, metric): judge(pool, pools.get(LEARNT_BY.get(metric, metric), pool))
        for (name, _), pools in found.items()
        for metric, pool in pools.items()
    }


def tables(found: Found, judged: Mapping[tuple[str, str], Judged]) -> list[str]:
    """What is printed: over all algorithms, for each, and XGBoost's earlier prior."""
    head = ["metric", "defaults", "by hand 1", "2", "5", "prior 1", "2", "5", "10"]
    versus = ["prior 1 − defaults", "prior 2 − by hand 2", "prior 5 − by hand 5"]
    over_all = []
    for metric in dict.fromkeys(metric for _, metric in judged):
        of_tables: dict[str, list[Floats]] = {}
        for (name, _), pools in found.items():
            if metric in pools:
                one = judged[name, metric]
                rows = np.concatenate([_cells(one), _differences(one)], axis=1)
                for table, row in zip(pools[metric].tables, rows, strict=True):
                    of_tables.setdefault(table, []).append(row)
        means = np.array([np.mean(rows, axis=0) for rows in of_tables.values()])
        over_all.append([metric, len(means), *_texts(means, len(head) - 1)])
    each, earlier = [], []
    for (name, metric), one in judged.items():
        each.append(
            [
                name,
                metric,
                len(one.regrets["library"]),
                *_texts(np.concatenate([_cells(one), _differences(one)], axis=1), len(head) - 1),
            ]
        )
        if "earlier prior" in one.regrets:
            cells = [f"{one.means('earlier prior')[BUDGETS.index(budget)]:.3f}" for budget in (1, 5)]
            pairs = [
                ("portfolio", "earlier prior", 1),
                ("portfolio", "earlier prior", 5),
                ("earlier prior", "library", 1),
            ]
            earlier.append([metric, *cells, *(_interval(interval(one.difference(*pair))) for pair in pairs)])
    return [
        "## Over all algorithms",
        markdown.table([head[0], "tables", *head[1:], *versus], over_all),
        "## Each algorithm",
        markdown.table(["space", head[0], "tables", *head[1:], *versus], each),
        "## XGBoost: the prior from surrogates",
        markdown.table(
            ["metric", "earlier 1", "5", "prior 1 − earlier 1", "prior 5 − earlier 5", "earlier 1 − defaults"], earlier
        ),
    ]


def _cells(judged: Judged) -> Floats:
    """Of each table, (T, 8): the regrets that are shown."""
    hand, learnt = judged.regrets["by hand"], judged.regrets["portfolio"]
    return np.column_stack([judged.regrets["library"][:, 0], hand[:, :3], learnt])


def _differences(judged: Judged) -> Floats:
    """Of each table, (T, 3)."""
    pairs = (("portfolio", "library", 1), ("portfolio", "by hand", 2), ("portfolio", "by hand", 5))
    return np.column_stack([judged.difference(*pair) for pair in pairs])


def _texts(rows: Floats, cells: int) -> list[str]:
    """Means of the first columns of (T, …), and intervals of the others."""
    means = [f"{value:.3f}" for value in rows[:, :cells].mean(axis=0)]
    return [*means, *(_interval(interval(column)) for column in rows[:, cells:].T)]


def _interval(found: tuple[float, float, float]) -> str:
    mean, low, high = found
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=real_evaluations.RESULTS, metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", help="train, and write the priors there")
    parser.add_argument("--algorithms", help="names of spaces, by commas; all that the bank has if not given")
    given = parser.parse_args(arguments)
    wanted = given.algorithms.split(",") if given.algorithms else list(ALGORITHMS)
    found = {key: pools for key, pools in pools_of(real_evaluations.load(given.bank)).items() if key[0] in wanted}
    if given.out is None:
        print("\n\n".join(tables(found, judge_all(found))))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    for pool in (pool for pools in found.values() for metric, pool in pools.items() if metric not in LEARNT_BY):
        began = time.process_time()
        prior = trained(pool)
        data = prior.to_bytes()
        (given.out / f"{prior.card.name}.safetensors").write_bytes(data)
        spent = time.process_time() - began
        print(f"{prior.card.name}: {len(data) / 1024:.0f} KiB, {spent:.0f} CPU s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
