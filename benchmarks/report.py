"""Traces of many optimisers as tables and plots: normalised regret, ranks, win rates, CPU seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

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
    versions: Mapping[str, str]
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
            versions={trace["optimiser"]: trace["version"] for trace in own},
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
    picks = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(statistic(values[picks], axis=1), [0.025, 0.975])
    return float(statistic(values)), float(low), float(high)


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


def _cell(found: tuple[float, float, float], digits: int = 3, factor: float = 1) -> str:
    value, low, high = (factor * number for number in found)
    return "–" if np.isnan(value) else f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _print_rows(head: str, budgets: Sequence[Any], rows: Iterable[tuple[str, list[str]]]) -> None:
    print(f"\n| {head} | " + " | ".join(str(budget) for budget in budgets) + " |")
    print("|---|" + "---|" * len(budgets))
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_all(table: Table, ours: Sequence[str] | None = None) -> None:
    """All tables; win rates of ``ours`` (the optimisers named ``rlhpo…`` if not given) against all others."""
    names = table.complete()
    for name in sorted(set(table.best) - set(names)):
        there = int(np.sum(~np.isnan(table.best[name][:, :, 0]).all(axis=1)))
        print(f"{name}: left out, with runs on {there} of {len(table.tasks)} tasks\n")
    if not names:
        print("nothing is complete yet")
        return
    shapes = [f"{name} {int(np.sum(~np.isnan(table.best[name][:, :, 0])))} runs" for name in names]
    versions = sorted({version for version in table.versions.values() if version})
    print(f"{len(table.tasks)} tasks; {', '.join(shapes)}. {', '.join(versions)}")
    for title, statistic in (("mean", np.mean), ("median", np.median)):
        found = {name: regrets(table, name, statistic) for name in names}
        rows = ((name, [_cell(cell) for cell in cells]) for name, cells in found.items())
        _print_rows(f"{title} normalised regret after", table.budgets, rows)
    ranked = [ranks(table, names, b) for b in _range(table)]
    _print_rows(
        "mean rank after", table.budgets, ((n, [_cell(interval(r[n], np.mean), 2) for r in ranked]) for n in names)
    )
    for own in ours if ours is not None else [name for name in names if name.startswith("rlhpo")]:
        _print_wins(table, own, [name for name in names if name != own])
    _print_cpu(table, names)


def print_head_start(table: Table, few: int, many: int) -> None:
    """How often those that begin with knowledge win with few trials against those that begin without, with many."""
    names = table.complete()
    informed = [name for name in names if "+" in name or name == "portfolio"]
    cold = [name for name in names if name not in informed]
    if few not in table.budgets or many not in table.budgets or not cold:
        return
    short, long = table.budgets.index(few), table.budgets.index(many)
    rows = (
        (name, [_cell(interval(wins(table, name, other, short, long), np.mean), 1, 100) for other in cold])
        for name in informed
    )
    _print_rows(f"win rate in %, ties ½, after {few} trials against {many} of", cold, rows)


def _range(table: Table) -> range:
    return range(len(table.budgets))


def _print_wins(table: Table, own: str, others: Sequence[str]) -> None:
    hard = ~table.reached
    for title, kept in (
        (f"win rate of {own} in %, ties ½, after", np.ones(len(hard), dtype=np.bool_)),
        (f"the same without the {int(np.sum(~hard))} tasks whose best random search reaches", hard),
    ):
        _print_rows(
            title,
            table.budgets,
            (
                (other, [_cell(interval(wins(table, own, other, b)[kept], np.mean), 1, 100) for b in _range(table)])
                for other in others
            ),
        )


def _print_cpu(table: Table, names: Sequence[str]) -> None:
    at = sorted({trials for name in names for trials in table.cpu.get(name, {})})
    _print_rows(
        "median CPU seconds a trial at",
        at,
        (
            (
                name,
                [f"{np.median(table.cpu[name][n]):.3f}" if n in table.cpu.get(name, {}) else "–" for n in at],
            )
            for name in names
        ),
    )


# -- plots -----------------------------------------------------------------------------------------------------------


def plot(table: Table, file: Path) -> None:
    """Mean and median normalised regret by trials."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = table.complete()
    if not names:
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
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
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
