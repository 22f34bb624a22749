"""Best value found per trial, against peers, on the 101 tasks of YAHPO Gym's surrogates.

    python -m benchmarks.sample_efficiency --yahpo DIR --optimisers rlhpo,tpe --tasks every5 --seeds 1
    python -m benchmarks.sample_efficiency --print --tasks every5 --optimisers rlhpo,tpe

Each optimiser searches the space as it is, one trial at a time (rlhpo in its rounds); random draws derive from a hash
of (task, seed). What is in the results folder is not run again; delete an optimiser's file to run it anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import markdown, optimisers, report, traces
from benchmarks.surrogates import SurrogateTask, load_tasks

BUDGETS = (5, 10, 25, 50, 100, 200)
RESULTS = markdown.RESULTS / "sample_efficiency"
#: What is compared on every fifth task, what on all of them, and which settings of ours with each other.
ALL_PEERS = ("rlhpo", "smac", "gp", "ax", "tpe", "cmaes", "random")
CHEAP_PEERS = ("rlhpo", "tpe", "cmaes", "random")
PARTS = tuple(
    "rlhpo" + suffix
    for suffix in (
        *("", "-with-ppo", "-without-effects", "-without-carrying", "-without-default", "-sequential"),
        *("-rounds-of-five", "-without-screening", "-without-model", "-mlp", "-paper"),
    )
)


def chosen(tasks: list[SurrogateTask], selection: str) -> list[SurrogateTask]:
    """``all``, every n-th (``every5``: 21 of the suite's 101), or the first N.

    Raises: ValueError for anything else.
    """
    if selection == "all":
        return tasks
    if selection.startswith("every") and selection.removeprefix("every").isdecimal():
        return tasks[:: int(selection.removeprefix("every"))]
    if selection.isdecimal():
        return tasks[: int(selection)]
    raise ValueError(f"--tasks {selection}: write all, every5 or a number")


def arguments(description: str, results: Path) -> argparse.ArgumentParser:
    """What the scripts on surrogates have in common."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yahpo", type=Path, metavar="DIR", help="YAHPO Gym's surrogates, a folder a scenario")
    parser.add_argument(
        "--results", type=Path, nargs="+", default=[results], help="folders to read; the first is written, too"
    )
    parser.add_argument("--optimisers", help=f"some of {', '.join(optimisers.names())}")
    parser.add_argument("--tasks", default="all", help="all (if not given), every5 (every fifth) or how many")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1, help="runs at once, one thread each")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing, so without --yahpo")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; exits if it asks for runs without saying of what."""
    given = parser.parse_args()
    if not given.only_print and (given.yahpo is None or not given.optimisers):
        parser.error("--yahpo DIR and --optimisers say what to run; --print runs nothing")
    return given


def view(
    runs: Sequence[traces.Trace], names: Sequence[str], tasks: Sequence[SurrogateTask], budgets: Sequence[int]
) -> tuple[report.Table, str]:
    """The table of these optimisers on these tasks, and which runs it is made of."""
    kept = [run for name in names for run in runs if run["optimiser"] == name]
    of = [task.name for task in tasks]
    return report.Table.of(kept, {task.name: task for task in tasks}, of, budgets), report.coverage(kept, of)


def _view(names: Sequence[str], selection: str) -> tuple[report.Table, str]:
    return view(traces.load([RESULTS]), names, chosen(load_tasks("suite"), selection), BUDGETS)


INTRO = """
The best accuracy found after so many trials, on tasks of YAHPO Gym's surrogates, without a prior. 0 is the best that
is known of a task, 1 the median of random configurations. [benchmarks.md](../benchmarks.md) says what the optimisers,
the tasks and the measures are, and what to take from the tables.
"""
COMMAND = """
python -m benchmarks.sample_efficiency --yahpo DIR --optimisers rlhpo,random,tpe,cmaes --tasks all --seeds 3
python -m benchmarks.sample_efficiency --yahpo DIR --optimisers smac --tasks every5 --seeds 1
python -m benchmarks.sample_efficiency --yahpo DIR --optimisers gp --tasks every5 --seeds 1 --trials 100
python -m benchmarks.sample_efficiency --yahpo DIR --optimisers ax --tasks every5 --seeds 1 --trials 25
"""
PARTS_INTRO = """
Settings that are each one step away from the default (`benchmarks/settings`), on every fifth task. Win rates are over
the seeds that both have. [algorithm.md](../algorithm.md#what-each-part-adds) says what to take from the tables.
"""
PARTS_COMMAND = f"""
python -m benchmarks.sample_efficiency --yahpo DIR --optimisers rlhpo --tasks all --seeds 3
python -m benchmarks.sample_efficiency --yahpo DIR --tasks every5 --seeds 1 --trials 100 \\
    --optimisers {",".join(PARTS[1:])}
"""


def pages() -> dict[str, str]:
    """The files of docs/measurements about sample efficiency, and about what each part adds to it."""
    many, many_runs = _view(ALL_PEERS, "every5")
    cheap, cheap_runs = _view(CHEAP_PEERS, "all")
    parts, parts_runs = _view(PARTS, "every5")
    peers = [
        "## Every fifth task",
        report.at_a_glance(many, (10, 25, 50, 100, 200)),
        "![Normalised regret by trials](../images/sample_efficiency_every5.png)",
        many_runs,
        *report.tables(many),
        "## All tasks",
        "![Normalised regret by trials](../images/sample_efficiency_all.png)",
        cheap_runs,
        *report.tables(cheap),
    ]
    ablation = [
        report.at_a_glance(parts, (10, 25, 50, 100)),
        "![Normalised regret after 25 and 100 trials](../images/ablation.png)",
        parts_runs,
        *report.tables(parts, ["rlhpo"]),
    ]
    source = ("sample_efficiency", [RESULTS])
    return {
        "sample_efficiency.md": markdown.page("Sample efficiency", INTRO, *source, COMMAND, peers),
        "ablation.md": markdown.page("What each part adds", PARTS_INTRO, *source, PARTS_COMMAND, ablation),
    }


def pictures(folder: Path) -> None:
    """The pictures of these files."""
    report.plot(_view(ALL_PEERS, "every5")[0], folder / "sample_efficiency_every5.png")
    report.plot(_view(CHEAP_PEERS, "all")[0], folder / "sample_efficiency_all.png")
    report.plot_at(_view(PARTS, "every5")[0], (25, 100), folder / "ablation.png")


def main() -> None:
    given = parsed(arguments(__doc__ or "", RESULTS))
    failed = 0
    if not given.only_print:
        jobs = [
            traces.Job(name, task, seed, given.trials)
            for seed in range(given.seeds)
            for name in given.optimisers.split(",")
            for task in chosen(load_tasks("suite", folder=given.yahpo), given.tasks)
        ]
        failed = traces.run_all(jobs, given.results[0], given.workers)
    runs = traces.load(given.results)
    names = given.optimisers.split(",") if given.optimisers else sorted({run["optimiser"] for run in runs})
    table, coverage = view(runs, names, chosen(load_tasks("suite"), given.tasks), BUDGETS)
    print("\n\n".join([coverage, *report.tables(table)]))
    sys.exit(failed > 0)


if __name__ == "__main__":
    traces.single_threaded()
    main()
