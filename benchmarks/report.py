"""Traces of many optimisers as tables and plots: normalised regret, ranks, win rates, CPU seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.markdown import table as table_of
from benchmarks.surrogates import SurrogateTask
from benchmarks.traces import Trace, best_so_far

Floats = NDArray[np.float64]

RESAMPLES = 2000
#: Accuracies that lie closer are a tie, and a reference best is reached within this.
TIE = 1e-6


@dataclass(frozen=True)
class Table:
    """The best accuracy of every optimiser, (tasks, seeds, budgets), NaN where there is no run of that length.

    Intervals are 95 % bootstrap intervals over tasks: tasks are what a reader would like to generalise to.
    """

    tasks: tuple[str, ...]
    budgets: tuple[int, ...]
    best: Mapping[str, Floats]
    regret: Mapping[str, Floats]
    cpu: Mapping[str, Mapping[int, Floats]]
    """Optimiser → number of trials → CPU seconds a trial of its runs."""
    reached: NDArray[np.bool_]
    """(tasks,) whether random search alone reaches the reference best in any of its runs."""

    @classmethod
    def of(
        cls,
        traces: Iterable[Trace],
        references: Mapping[str, SurrogateTask],
        tasks: Sequence[str],
        budgets: Sequence[int],
    ) -> Table:
        """Of the traces on these tasks. Optimisers that lack a task altogether are left in; ``complete`` tells them."""
        own = [trace for trace in traces if trace["task"] in set(tasks)]
        rows = {name: index for index, name in enumerate(tasks)}
        seeds = 1 + max((trace["seed"] for trace in own), default=0)
        best: dict[str, Floats] = {}
        cpu: dict[str, dict[int, list[float]]] = {}
        for trace in own:
            name = trace["optimiser"]
            values = best.setdefault(name, np.full((len(tasks), seeds, len(budgets)), np.nan))
            values[rows[trace["task"]], trace["seed"]] = best_so_far(trace, budgets)
            for trials, seconds in trace["cpu_seconds"].items():
                cpu.setdefault(name, {}).setdefault(int(trials), []).append(seconds)
        top = np.array([references[task].best for task in tasks])[:, None, None]
        median = np.array([references[task].median for task in tasks])[:, None, None]
        reached = np.zeros(len(tasks), dtype=np.bool_)
        if "random" in best:
            reached = (best["random"] >= top - TIE).any(axis=(1, 2))
        return cls(
            tasks=tuple(tasks),
            budgets=tuple(budgets),
            best=best,
            regret={name: (top - values) / (top - median) for name, values in best.items()},
            cpu={name: {n: np.array(s) for n, s in sorted(found.items())} for name, found in cpu.items()},
            reached=reached,
        )

    def complete(self) -> list[str]:
        """Optimisers with at least one run on every task, in the order of their last mean regret."""
        whole = [name for name, values in self.best.items() if not np.isnan(values[:, :, 0]).all(axis=1).any()]
        return sorted(whole, key=lambda name: float(np.nanmean(self._of_tasks(name, -1))))

    def _of_tasks(self, name: str, budget: int) -> Floats:
        """Mean regret over seeds (tasks,); the optimiser's longest budget if it has not that many trials."""
        regret = self.regret[name]
        while np.isnan(regret[:, :, budget]).all() and budget > -regret.shape[2]:
            budget -= 1
        return mean_over_seeds(regret[:, :, budget])


def mean_over_seeds(values: Floats) -> Floats:
    """(tasks,) of (tasks, seeds), over the seeds that there are; NaN where there are none."""
    count = np.sum(~np.isnan(values), axis=1)
    return np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan)


def interval(values: Floats, statistic: Callable[..., Any]) -> tuple[float, float, float]:
    """The statistic of (tasks,) and its bootstrap interval; NaN without tasks, or if one has no value."""
    if not len(values) or np.isnan(values).any():
        return (np.nan, np.nan, np.nan)
    low, high = np.quantile(statistic(values[_picks(len(values))], axis=1), [0.025, 0.975])
    return float(statistic(values)), float(low), float(high)


@cache
def _picks(count: int) -> NDArray[np.int64]:
    """(RESAMPLES, count) indices, the same for every table."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def regrets(table: Table, name: str, statistic: Callable[..., Any]) -> list[tuple[float, float, float]]:
    """Normalised regret over tasks, and its interval, at each budget."""
    return [interval(mean_over_seeds(table.regret[name][:, :, budget]), statistic) for budget in _range(table)]


def ranks(table: Table, names: Sequence[str], budget: int) -> dict[str, Floats]:
    """Mean rank per task (tasks,) among the named, 1 the best, ties shared; over the seeds that all of them have."""
    values = np.stack([table.best[name][:, :, budget] for name in names])
    common = ~np.isnan(values).any(axis=0)
    found = rankdata(-np.round(values / TIE), axis=0)
    found[:, ~common] = np.nan
    return {name: mean_over_seeds(found[index]) for index, name in enumerate(names)}


def wins(table: Table, name: str, other: str, budget: int, other_budget: int | None = None) -> Floats:
    """Share of seeds won per task (tasks,), a tie ½, over the seeds that both have; NaN where there is none.

    ``other_budget``: the other is given another number of trials.
    """
    other_budget = budget if other_budget is None else other_budget
    difference = table.best[name][:, :, budget] - table.best[other][:, :, other_budget]
    won = np.where(np.abs(difference) <= TIE, 0.5, (difference > 0).astype(float))
    return mean_over_seeds(np.where(np.isnan(difference), np.nan, won))


# -- tables ----------------------------------------------------------------------------------------------------------


def coverage(traces: Iterable[Trace], tasks: Sequence[str]) -> str:
    """Which runs the tables are made of: seeds, runs, tasks, trials and version of each optimiser."""
    of: dict[str, list[Trace]] = {}
    for trace in traces:
        if trace["task"] in set(tasks):
            of.setdefault(trace["optimiser"], []).append(trace)
    rows = []
    for name, runs in of.items():
        seeds = sorted({trace["seed"] for trace in runs})
        each = ", ".join(f"{seed}: {sum(trace['seed'] == seed for trace in runs)}" for seed in seeds)
        lengths = " or ".join(str(trials) for trials in sorted({trace["trials"] for trace in runs}))
        versions = ", ".join(sorted({trace["version"] for trace in runs if trace["version"]})) or "–"
        rows.append([name, each, lengths, versions])
    return table_of(["optimiser", "tasks run with each seed", "trials", "version"], rows)


def tables(table: Table, ours: Sequence[str] | None = None) -> list[str]:
    """All tables; win rates of ``ours`` (the optimisers named ``rlhpo…`` if not given) against all others."""
    names = table.complete()
    parts = []
    for name in sorted(set(table.best) - set(names)):
        there = int(np.sum(~np.isnan(table.best[name][:, :, 0]).all(axis=1)))
        parts.append(f"{name}: left out, with runs on {there} of {len(table.tasks)} tasks")
    if not names:
        return [*parts, "nothing is complete yet"]
    for title, statistic in (("mean", np.mean), ("median", np.median)):
        rows = [[name, *(_cell(cell) for cell in regrets(table, name, statistic))] for name in names]
        parts.append(table_of([f"{title} normalised regret after", *table.budgets], rows))
    ranked = [ranks(table, names, budget) for budget in _range(table)]
    rows = [[name, *(_cell(interval(rank[name], np.mean), 2) for rank in ranked)] for name in names]
    parts.append(table_of(["mean rank after", *table.budgets], rows))
    for own in ours if ours is not None else [name for name in names if name.startswith("rlhpo")]:
        parts.extend(win_rates(table, own, [name for name in names if name != own]))
    parts.append(cpu_seconds(table, names))
    return parts


def at_a_glance(table: Table, budgets: Sequence[int]) -> str:
    """Mean normalised regret without intervals, and CPU seconds a trial at the largest budget that has them."""
    rows = []
    for name in table.complete():
        means = [
            interval(mean_over_seeds(table.regret[name][:, :, table.budgets.index(b)]), np.mean)[0] for b in budgets
        ]
        seconds = list(table.cpu.get(name, {}).items())
        cost = f"{np.median(seconds[-1][1]):.3f} at {seconds[-1][0]}" if seconds else "–"
        rows.append([name, *("–" if np.isnan(mean) else f"{mean:.3f}" for mean in means), cost])
    return table_of(["mean normalised regret after", *budgets, "CPU seconds a trial"], rows)


def head_start(table: Table, few: int, many: int) -> str:
    """How often those that begin with knowledge win with few trials against those that begin without, with many.

    Empty if one of the budgets is not in the table or nobody begins without.
    """
    names = table.complete()
    informed = [name for name in names if "+" in name or name == "portfolio"]
    cold = [name for name in names if name not in informed]
    if few not in table.budgets or many not in table.budgets or not cold:
        return ""
    short, long = table.budgets.index(few), table.budgets.index(many)
    rows = [
        [name, *(_cell(interval(wins(table, name, other, short, long), np.mean), 1, 100) for other in cold)]
        for name in informed
    ]
    return table_of([f"win rate in %, ties ½, after {few} trials against {many} of", *cold], rows)


def win_rates(table: Table, own: str, others: Sequence[str]) -> list[str]:
    """On all tasks, and, if random search reaches the reference best on some, without these."""
    hard = ~table.reached
    kept = {f"win rate of {own} in %, ties ½, after": np.ones(len(hard), dtype=np.bool_)}
    if not hard.all():
        kept[f"the same without the {int(np.sum(~hard))} tasks whose best random search reaches"] = hard
    parts = []
    for title, where in kept.items():
        won = {other: [wins(table, own, other, budget)[where] for budget in _range(table)] for other in others}
        rows = [
            [other, *(_cell(interval(share, np.mean), 1, 100) for share in shares)] for other, shares in won.items()
        ]
        parts.append(table_of([title, *table.budgets], rows))
    return parts


def cpu_seconds(table: Table, names: Sequence[str]) -> str:
    """The optimisers' own time, a median over runs."""
    at = sorted({trials for name in names for trials in table.cpu.get(name, {})})
    rows = [
        [name, *(f"{np.median(table.cpu[name][n]):.3f}" if n in table.cpu.get(name, {}) else "–" for n in at)]
        for name in names
    ]
    return table_of(["median CPU seconds a trial at", *at], rows)


def _cell(found: tuple[float, float, float], digits: int = 3, factor: float = 1) -> str:
    value, low, high = (factor * number for number in found)
    return "–" if np.isnan(value) else f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _range(table: Table) -> range:
    return range(len(table.budgets))


# -- plots -----------------------------------------------------------------------------------------------------------


def plot(table: Table, file: Path) -> None:
    """Mean and median normalised regret by trials."""
    names = table.complete()
    if not names:
        return
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (label, statistic) in zip(axes, (("mean", np.mean), ("median", np.median)), strict=True):
        for index, name in enumerate(names):
            points = np.array(
                [interval(mean_over_seeds(table.regret[name][:, :, b]), statistic) for b in _range(table)]
            )
            points = np.maximum(points, 1e-4)
            style = "-" if name.startswith("rlhpo") else "--"
            axis.plot(table.budgets, points[:, 0], style, color=f"C{index}", marker=".", label=name)
            axis.fill_between(table.budgets, points[:, 1], points[:, 2], color=f"C{index}", alpha=0.12, linewidth=0)
        axis.set(xscale="log", yscale="log", xlabel="trials", ylabel=f"{label} normalised regret")
        axis.set_xticks(table.budgets, [str(budget) for budget in table.budgets])
        axis.minorticks_off()
    axes[0].legend(fontsize=8)
    figure.suptitle(f"{len(table.tasks)} tasks; bands: 95 % bootstrap intervals over tasks", fontsize=10)
    save(figure, file)


def plot_at(table: Table, budgets: Sequence[int], file: Path) -> None:
    """Mean normalised regret of each optimiser after these numbers of trials, the best on top."""
    names = table.complete()
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, budget in zip(figure.subplots(1, len(budgets), sharey=True), budgets, strict=True):
        cells = np.array([regrets(table, name, np.mean)[table.budgets.index(budget)] for name in names])
        mean, low, high = cells.T
        axis.barh(names, mean, xerr=(mean - low, high - mean), color="C0", alpha=0.6, capsize=3)
        axis.set(xlabel=f"mean normalised regret after {budget} trials", xlim=(0, None))
    axis.invert_yaxis()
    figure.suptitle(f"{len(table.tasks)} tasks; lines: 95 % bootstrap intervals over tasks", fontsize=10)
    save(figure, file)


def save(figure: Figure, file: Path) -> None:
    """As a PNG without the version of what drew it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})
