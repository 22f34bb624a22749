"""Best value found per trial, against peers, on the 101 tasks of YAHPO Gym's surrogates.

    python benchmarks/sample_efficiency.py --yahpo DIR --optimisers rlhpo,tpe --tasks every5 --seeds 1
    python benchmarks/sample_efficiency.py --yahpo DIR --print

Each optimiser searches the space as it is, one trial at a time (rlhpo in its rounds); random draws derive from a hash
of (task, seed). What is in the results folder is not run again; delete an optimiser's file to run it anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import optimisers, report, traces
from benchmarks.surrogates import SurrogateTask, load_tasks

BUDGETS = (5, 10, 25, 50, 100, 200)
RESULTS = Path(__file__).parent / "results" / "sample_efficiency"
IMAGES = Path(__file__).parents[1] / "docs" / "images"


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
    parser.add_argument("--yahpo", type=Path, required=True, help="folder with suite.json and a folder a scenario")
    parser.add_argument(
        "--results", type=Path, nargs="+", default=[results], help="folders to read; the first is written, too"
    )
    parser.add_argument("--optimisers", help=f"some of {', '.join(optimisers.names())}")
    parser.add_argument("--tasks", help="all (if not given), every5 (every fifth) or how many")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1, help="runs at once, one thread each")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder for the plots")
    return parser


def main() -> None:
    parser = arguments(__doc__ or "", RESULTS)
    given = parser.parse_args()
    suite = load_tasks(given.yahpo, "suite")
    failed = 0
    if not given.only_print:
        if not given.optimisers:
            parser.error(f"--optimisers: some of {', '.join(optimisers.names())}")
        jobs = [
            traces.Job(name, task, seed, given.trials)
            for seed in range(given.seeds)
            for name in given.optimisers.split(",")
            for task in chosen(suite, given.tasks or "all")
        ]
        failed = traces.run_all(jobs, given.results[0], given.workers)
    found = traces.load(given.results)
    if given.optimisers:
        found = [trace for trace in found if trace["optimiser"] in given.optimisers.split(",")]
    named = {task.name: task for task in suite}
    for selection in [given.tasks] if given.tasks else ["all", "every5"]:
        names = [task.name for task in chosen(suite, selection)]
        table = report.Table.of(found, named, names, BUDGETS)
        print(f"\n## tasks: {selection}\n")
        report.print_all(table)
        report.plot(table, given.images / f"sample_efficiency_{selection}.png")
    sys.exit(failed > 0)


if __name__ == "__main__":
    traces.single_threaded()
    main()
