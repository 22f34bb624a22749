"""Retuning: a task is tuned on half of its training data, and then again on all of it, cold or from where it was.

    python benchmarks/retune.py --yahpo DIR --optimisers random,tpe,tpe+best,rlhpo,rlhpo+warm --trials 100
    python benchmarks/retune.py --yahpo DIR --print

NAME makes the second study alone. NAME+best first tries the ten best configurations of the first study anew, which is
what people do by hand. NAME+warm goes on from the first study itself (rlhpo only). Both studies have --trials trials;
those of the second are counted.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import report, traces
from benchmarks.sample_efficiency import arguments, chosen
from benchmarks.surrogates import SurrogateTask, load_tasks

BUDGETS = (1, 5, 10, 25, 50, 100)
RESULTS = Path(__file__).parent / "results" / "retune"
EARLIER_TRAINSIZE = 0.5


def job(name: str, task: SurrogateTask, seed: int, trials: int) -> traces.Job:
    base, _, way = name.partition("+")
    if way not in ("", "best", "warm"):
        raise ValueError(f"{name}: write {base}, {base}+best or {base}+warm")
    earlier = traces.Job(base, task.at_trainsize(EARLIER_TRAINSIZE), seed, trials) if way else None
    return traces.Job(name, task, seed, trials, earlier=earlier)


def main() -> None:
    parser = arguments(__doc__ or "", RESULTS)
    parser.set_defaults(trials=BUDGETS[-1], optimisers="random,tpe,tpe+best,rlhpo,rlhpo+warm")
    given = parser.parse_args()
    suite = load_tasks(given.yahpo, "suite", "rbv2_xgboost")
    tasks = chosen(suite, given.tasks or "all")
    failed = 0
    if not given.only_print:
        jobs = [
            job(name, task, seed, given.trials)
            for seed in range(given.seeds)
            for name in given.optimisers.split(",")
            for task in tasks
        ]
        failed = traces.run_all(jobs, given.results[0], given.workers)
    table = report.Table.of(
        traces.load(given.results), {task.name: task for task in suite}, [task.name for task in tasks], BUDGETS
    )
    report.print_all(table)
    report.plot(table, given.images / "retune.png")
    sys.exit(failed > 0)


if __name__ == "__main__":
    traces.single_threaded()
    main()
