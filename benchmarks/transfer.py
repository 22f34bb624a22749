"""What earlier tasks are worth: the 67 XGBoost tasks of the suite after learning from the 52 source tasks only.

    python benchmarks/transfer.py --yahpo DIR --optimisers portfolio,tpe+portfolio,gp+portfolio
    python benchmarks/transfer.py --yahpo DIR --optimisers rlhpo+prior --prior FILE
    python benchmarks/transfer.py --yahpo DIR --print

NAME+portfolio begins with the first configurations of the greedy portfolio and goes on as NAME. NAME+prior (or +LABEL,
with --label LABEL) begins with the prior given. Runs from nothing are those of sample_efficiency.py, read from --cold.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import portfolio, report, traces
from benchmarks.sample_efficiency import RESULTS as COLD
from benchmarks.sample_efficiency import arguments, chosen
from benchmarks.surrogates import load_tasks

BUDGETS = (1, 2, 5, 10, 25, 50, 100, 200)
RESULTS = Path(__file__).parent / "results" / "transfer"
SCENARIO = "rbv2_xgboost"
SIZE = 200


def main() -> None:
    parser = arguments(__doc__ or "", RESULTS)
    parser.add_argument("--cold", type=Path, default=COLD, help="folder with runs from nothing")
    parser.add_argument("--prior", type=Path, help="what the optimisers NAME+LABEL begin with")
    parser.add_argument("--label", default="prior", help="tells priors apart")
    given = parser.parse_args()
    suite = load_tasks(given.yahpo, "suite", SCENARIO)
    failed = 0
    if not given.only_print:
        if not given.optimisers:
            parser.error("--optimisers: for example portfolio,tpe+portfolio,gp+portfolio,rlhpo+prior")
        source = load_tasks(given.yahpo, "source", SCENARIO)
        first = tuple(portfolio.load_or_build(given.results[0] / "portfolio.json", source, SIZE))
        jobs = []
        for seed in range(given.seeds):
            for name in given.optimisers.split(","):
                with_prior = name.endswith(f"+{given.label}")
                if with_prior and given.prior is None:
                    parser.error(f"{name}: with which --prior?")
                begin = (
                    first if name == "portfolio" else first[: traces.BEGIN_WITH] if name.endswith("+portfolio") else ()
                )
                for task in chosen(suite, given.tasks or "all"):
                    prior = given.prior if with_prior else None
                    jobs.append(traces.Job(name, task, seed, given.trials, begin, prior))
        failed = traces.run_all(jobs, given.results[0], given.workers)
    found = traces.load([*given.results, given.cold])
    named = {task.name: task for task in suite}
    for selection in [given.tasks] if given.tasks else ["all", "every5"]:
        names = [task.name for task in chosen(suite, selection)]
        table = report.Table.of(found, named, names, BUDGETS)
        print(f"\n## tasks: {selection}\n")
        report.print_all(table)
        report.print_head_start(table, few=5, many=200)
        report.plot(table, given.images / f"transfer_{selection}.png")
    sys.exit(failed > 0)


if __name__ == "__main__":
    traces.single_threaded()
    main()
