"""Retuning: a task is tuned on half of its training data, and then again on all of it, cold or from where it was.

    python -m benchmarks.retune --yahpo DIR --optimisers random,tpe,tpe+best,rlhpo,rlhpo+warm --trials 100
    python -m benchmarks.retune --print --tasks every5

NAME makes the second study alone. NAME+best first tries the ten best configurations of the first study anew, which is
what people do by hand. NAME+warm goes on from the first study itself (rlhpo only). Both studies have --trials trials;
those of the second are counted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import markdown, report, traces
from benchmarks.sample_efficiency import arguments, chosen, parsed, view
from benchmarks.surrogates import SurrogateTask, load_tasks

BUDGETS = (1, 5, 10, 25, 50, 100)
RESULTS = markdown.RESULTS / "retune"
EARLIER_TRAINSIZE = 0.5
COMPARED = ("rlhpo", "rlhpo+warm", "tpe", "tpe+best", "random")
INTRO = """
The second of two studies of a task: 100 trials with half of the training data came before, 100 with all of it are
counted. `rlhpo+warm` goes on from the first study (`warm_start:`), `tpe+best` first tries the ten best of the first
study anew, the others begin from nothing. Every fifth of the XGBoost tasks (14), on surrogates.
[retuning.md](../retuning.md#warm-start) says what to take from the tables.
"""
COMMAND = """
python -m benchmarks.retune --yahpo DIR --optimisers tpe,tpe+best,rlhpo,rlhpo+warm --tasks every5 --seeds 1 --trials 100
python -m benchmarks.retune --yahpo DIR --optimisers random --tasks all --seeds 1 --trials 100
"""


def job(name: str, task: SurrogateTask, seed: int, trials: int) -> traces.Job:
    """A run, with the run before it that it goes on from. Raises: ValueError for a name that is not known."""
    base, _, way = name.partition("+")
    if way not in ("", "best", "warm"):
        raise ValueError(f"{name}: write {base}, {base}+best or {base}+warm")
    earlier = traces.Job(base, task.at_trainsize(EARLIER_TRAINSIZE), seed, trials) if way else None
    return traces.Job(name, task, seed, trials, earlier=earlier)


def _view(results: Sequence[Path], selection: str) -> tuple[report.Table, str]:
    tasks = chosen(load_tasks("suite", "rbv2_xgboost"), selection)
    return view(traces.load(results), COMPARED, tasks, BUDGETS)


def pages() -> dict[str, str]:
    """The file of docs/measurements about retuning on surrogates."""
    table, coverage = _view([RESULTS], "every5")
    content = [
        report.at_a_glance(table, BUDGETS),
        "![Normalised regret by trials when retuning](../images/retune.png)",
        coverage,
        *report.tables(table, ["rlhpo+warm"]),
    ]
    return {"retune.md": markdown.page("Retuning on surrogates", INTRO, "retune", [RESULTS], COMMAND, content)}


def pictures(folder: Path) -> None:
    """The picture of this file."""
    report.plot(_view([RESULTS], "every5")[0], folder / "retune.png")


def main() -> None:
    parser = arguments(__doc__ or "", RESULTS)
    parser.set_defaults(trials=BUDGETS[-1], optimisers=",".join(COMPARED))
    given = parsed(parser)
    failed = 0
    if not given.only_print:
        jobs = [
            job(name, task, seed, given.trials)
            for seed in range(given.seeds)
            for name in given.optimisers.split(",")
            for task in chosen(load_tasks("suite", "rbv2_xgboost", given.yahpo), given.tasks)
        ]
        failed = traces.run_all(jobs, given.results[0], given.workers)
    table, coverage = _view(given.results, given.tasks)
    print("\n\n".join([coverage, *report.tables(table)]))
    sys.exit(failed > 0)


if __name__ == "__main__":
    traces.single_threaded()
    main()
