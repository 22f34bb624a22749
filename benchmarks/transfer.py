"""What earlier tasks are worth: the 67 XGBoost tasks of the suite after learning from the 52 source tasks only.

    python -m benchmarks.transfer --yahpo DIR --optimisers portfolio,tpe+portfolio,gp+portfolio
    python -m benchmarks.transfer --yahpo DIR --optimisers rlhpo+prior --prior FILE
    python -m benchmarks.transfer --print --tasks every5

NAME+portfolio begins with the first configurations of the greedy portfolio and goes on as NAME. NAME+prior (or +LABEL,
with --label LABEL) begins with the prior given. Runs from nothing are those of sample_efficiency.py, read from --cold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import markdown, portfolio, report, traces
from benchmarks.sample_efficiency import RESULTS as COLD
from benchmarks.sample_efficiency import arguments, chosen, parsed, view
from benchmarks.surrogates import load_tasks

BUDGETS = (1, 2, 5, 10, 25, 50, 100, 200)
RESULTS = markdown.RESULTS / "transfer"
SCENARIO = "rbv2_xgboost"
SIZE = 200
PORTFOLIOS = ("tpe+portfolio", "portfolio")
INFORMED = ("rlhpo+prior", "rlhpo-ignoring-time+prior")
#: What is compared on all tasks, what on every fifth, and what the prior that is wrong is compared with.
ON_ALL = (*INFORMED, "rlhpo", *PORTFOLIOS, "tpe", "cmaes", "random")
ON_EVERY_FIFTH = (*INFORMED, "gp+portfolio", *PORTFOLIOS)
WRONG = ("rlhpo+shuffled", "rlhpo", "rlhpo+prior", "portfolio", "tpe")


def _view(names: Sequence[str], selection: str) -> tuple[report.Table, str]:
    tasks = chosen(load_tasks("suite", SCENARIO), selection)
    return view(traces.load([RESULTS, COLD]), names, tasks, BUDGETS)


INTRO = """
The 67 XGBoost tasks of the suite, after learning from the 52 source tasks only. `rlhpo+prior` begins with the five
configurations of the prior's portfolio and goes on with a Gaussian process that leans on the source tasks. The first
five are chosen with an eye to how long they take. `rlhpo-ignoring-time+prior` (`tuner.cost_tolerance: null`) does
not care for time. `portfolio` is chosen greedily from 4,096 random configurations and, for each of the source tasks,
the best of them after one round of perturbation; it does not care for time either. `NAME+portfolio` begins with its
first 10 and goes on as NAME. [benchmarks.md](../benchmarks.md#transfer) says what to take from the tables.
"""
COMMAND = """
python -m benchmarks.shipped_prior --yahpo DIR --out surrogates.safetensors
python -m benchmarks.transfer --yahpo DIR --optimisers rlhpo+prior --prior surrogates.safetensors --seeds 1
python -m benchmarks.transfer --yahpo DIR --optimisers rlhpo-ignoring-time+prior --prior surrogates.safetensors --seeds 1 --trials 50
python -m benchmarks.transfer --yahpo DIR --optimisers portfolio --seeds 3
python -m benchmarks.transfer --yahpo DIR --optimisers tpe+portfolio --seeds 1
python -m benchmarks.transfer --yahpo DIR --optimisers gp+portfolio --tasks every5 --seeds 1 --trials 100
"""  # noqa: E501
WRONG_INTRO = """
`rlhpo+shuffled` begins with a prior that is trained in the same way, but each source task's scores are dealt out to
its configurations anew: a prior that is wrong about everything. Every fifth of the XGBoost tasks (14).
"""
WRONG_COMMAND = """
python -m benchmarks.shipped_prior --yahpo DIR --out shuffled.safetensors --shuffled
python -m benchmarks.transfer --yahpo DIR --optimisers rlhpo+shuffled --prior shuffled.safetensors --label shuffled --tasks every5 --seeds 1 --trials 100
"""  # noqa: E501


def pages() -> dict[str, str]:
    """The files of docs/measurements about transfer, and about a prior that is wrong."""
    whole, whole_runs = _view(ON_ALL, "all")
    fifth, fifth_runs = _view(ON_EVERY_FIFTH, "every5")
    wrong, wrong_runs = _view(WRONG, "every5")
    transfer = [
        "## All 67 tasks",
        report.at_a_glance(whole, BUDGETS),
        "![Normalised regret by trials with transfer](../images/transfer_all.png)",
        whole_runs,
        *report.tables(whole, INFORMED),
        report.head_start(whole, few=5, many=200),
        "## Every fifth task",
        "Fourteen tasks, on which the portfolio followed by Optuna's Gaussian process has run, too.",
        "![Normalised regret by trials with transfer](../images/transfer_every5.png)",
        fifth_runs,
        *report.tables(fifth, INFORMED),
    ]
    shuffled = [report.at_a_glance(wrong, BUDGETS), wrong_runs, *report.tables(wrong, WRONG[:1])]
    source = ("transfer", [RESULTS, COLD])
    return {
        "transfer.md": markdown.page("Transfer", INTRO, *source, COMMAND, transfer),
        "wrong_prior.md": markdown.page("A prior that is wrong", WRONG_INTRO, *source, WRONG_COMMAND, shuffled),
    }


def pictures(folder: Path) -> None:
    """The pictures of these files."""
    report.plot(_view(ON_ALL, "all")[0], folder / "transfer_all.png")
    report.plot(_view(ON_EVERY_FIFTH, "every5")[0], folder / "transfer_every5.png")


def jobs(given: argparse.Namespace) -> list[traces.Job]:
    """The runs that the command line asks for. Builds the portfolio if its file is not there."""
    source = load_tasks("source", SCENARIO, given.yahpo)
    first = tuple(portfolio.load_or_build(given.results[0] / "portfolio.json", source, SIZE))
    wanted = []
    for seed in range(given.seeds):
        for name in given.optimisers.split(","):
            begin = first if name == "portfolio" else first[: traces.BEGIN_WITH] if name.endswith("+portfolio") else ()
            prior = given.prior if name.endswith(f"+{given.label}") else None
            for task in chosen(load_tasks("suite", SCENARIO, given.yahpo), given.tasks):
                wanted.append(traces.Job(name, task, seed, given.trials, begin, prior))
    return wanted


def main() -> None:
    parser = arguments(__doc__ or "", RESULTS)
    parser.add_argument("--cold", type=Path, default=COLD, help="folder with runs from nothing")
    parser.add_argument("--prior", type=Path, help="what the optimisers NAME+LABEL begin with")
    parser.add_argument("--label", default="prior", help="tells priors apart")
    given = parsed(parser)
    failed = 0
    if not given.only_print:
        if f"+{given.label}" in given.optimisers and given.prior is None:
            parser.error(f"{given.optimisers}: with which --prior?")
        failed = traces.run_all(jobs(given), given.results[0], given.workers)
    runs = traces.load([*given.results, given.cold])
    names = given.optimisers.split(",") if given.optimisers else ON_ALL
    table, coverage = view(runs, names, chosen(load_tasks("suite", SCENARIO), given.tasks), BUDGETS)
    print("\n\n".join([coverage, *report.tables(table), report.head_start(table, few=5, many=200)]))
    sys.exit(failed > 0)


if __name__ == "__main__":
    traces.single_threaded()
    main()
