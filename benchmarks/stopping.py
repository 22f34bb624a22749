"""Trials that stop early: the training time after which a study is as good as it ends without stopping.

    python -m benchmarks.stopping --data DIR --tables abalone,churn --trials 50 --seeds 3
    python -m benchmarks.stopping --print

XGBoost on tables; rlhpo with each of its rules, and Optuna's TPE with its MedianPruner, SuccessiveHalvingPruner and
HyperbandPruner, if Optuna is installed. First each of the two is run without stopping. The arms that stop then get the
same training time, on the same table with the same seed, and may make up to --more times as many trials with it. Times
are CPU seconds of one thread, optimiser excluded, so that other work on the machine matters little. The objective is
the log loss of classes, and the root mean squared error of numbers. Both report every ten trees.

Runs are kept as lines of JSON, one file an arm; those that are there are not made again.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import markdown, traces
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import StopTrial
from rlhpo_core.space.search_space import SearchSpace, builtin_space
from rlhpo_core.trial import Config, Stop

RESULTS = markdown.RESULTS / "stopping"
SPACE, MOST_ROWS = "xgboost-paper", 1500
#: What each family is compared with: itself, without stopping.
BASELINES = {"rlhpo": "rlhpo+none", "tpe": "tpe+none"}
RULES: dict[str, Any] = {
    "none": "none",
    "median": {"rule": "median", "grace": 50},
    "asha": {"rule": "asha", "grace": 50},
    "learned": {"rule": "learned", "grace": 50},
}
ARMS = (*(f"rlhpo+{rule}" for rule in RULES), "tpe+none", "tpe+median", "tpe+halving", "tpe+hyperband")


@dataclass(frozen=True)
class Task:
    """A table to tune XGBoost on, divided by the seed."""

    folder: Path
    table: str
    seed: int
    most_rows: int = MOST_ROWS

    @property
    def name(self) -> str:
        return f"{SPACE}/{self.table}"

    @property
    def space(self) -> SearchSpace:
        return builtin_space(SPACE)


@cache
def evaluator(task: Task) -> Any:
    """Of one thread; rewards are its values with the sign turned, since both metrics are errors."""
    from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
    from rlhpo_core.study.spec import StudySpec

    document = {
        "name": "stopping",
        "seed": task.seed,
        "data": {"path": str(task.folder / f"{task.table}.csv"), "target": "target", "max_rows": task.most_rows},
        "evaluator": {"kind": "xgboost"},
        "space": SPACE,
    }
    try:
        return XGBoostEvaluator(StudySpec.model_validate({**document, "objective": "log_loss"}), threads=1)
    except UserError:
        return XGBoostEvaluator(StudySpec.model_validate({**document, "objective": "rmse"}), threads=1)


# -- the arms --------------------------------------------------------------------------------------------------------

#: Error, ``None`` if it was stopped; curve; CPU seconds.
Trained = tuple[float | None, list[tuple[int, float]], float]
#: Trains a configuration, given what says at each report whether to stop.
Train = Callable[[Config, Callable[[int, float], bool]], Trained]


class Arm(Protocol):
    def trials(self, train: Train) -> None:
        """Make trials for ever; ``train`` raises Spent when it is over."""
        ...


class Spent(Exception):  # noqa: N818  (a signal, not an error)
    """The trials, or the time, are used up."""


class Rlhpo:
    """The tuner in its default settings, by rounds; a rule sees the rounds before."""

    def __init__(self, task: Task, rule: str) -> None:
        from pydantic import TypeAdapter

        from rlhpo_core.study.stopping_settings import StoppingSpec
        from rlhpo_core.study.tuner_settings import TunerSettings
        from rlhpo_core.tuner import algorithm

        self._rule = TypeAdapter(StoppingSpec).validate_python(RULES[rule])
        seed = traces.optimisers.seed_of(task.name, task.seed)
        self._state = algorithm.initial_state("benchmark", seed, task.space, "minimize", TunerSettings())

    def trials(self, train: Train) -> None:
        from rlhpo_core.stopping.watch import courses_of, watch_over
        from rlhpo_core.trial import Trial, TrialStatus
        from rlhpo_core.tuner import algorithm

        done: list[Trial] = []
        while True:
            earlier, fresh = courses_of(done, "minimize"), []
            for proposal in algorithm.propose(self._state):
                watch = watch_over(self._rule, "minimize", proposal, earlier)
                reports: list[tuple[int, float]] = []
                stops: list[Stop] = []

                def stop(step: int, value: float, watch=watch, reports=reports, stops=stops) -> bool:  # type: ignore[no-untyped-def]
                    reports.append((step, value))
                    found = None if watch is None else watch.stop(reports)
                    stops.extend([found] if found is not None else [])
                    return found is not None

                value, curve, seconds = train(proposal.config, stop)
                ended = {"value": value} if not stops else {"stop": stops[0]}
                status = TrialStatus.PRUNED if stops else TrialStatus.COMPLETE
                fresh.append(Trial(proposal=proposal, status=status, curve=tuple(curve), seconds=seconds, **ended))
            done += fresh
            observed = algorithm.observe(self._state, fresh)
            self._state = algorithm.update_policy(algorithm.fit_reward_model(observed))


class Tpe:
    """Optuna's TPE, multivariate, with one of its pruners; one trial after another."""

    def __init__(self, task: Task, pruner: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruners = {
            "none": lambda: optuna.pruners.NopPruner(),
            "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=50),
            "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=50, reduction_factor=3),
            "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=50, max_resource=1200, reduction_factor=3),
        }
        seed = traces.optimisers.seed_of(task.name, task.seed)
        sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed)
        self._study = optuna.create_study(direction="minimize", sampler=sampler, pruner=pruners[pruner]())
        self._space = task.space

    def trials(self, train: Train) -> None:
        from optuna.trial import TrialState

        while True:
            trial = self._study.ask()
            config: Config = {}
            for step in self._space.steps:
                suggest = trial.suggest_int if step.type == "int" else trial.suggest_float
                config[step.name] = suggest(step.name, step.low, step.high, log=step.log)  # type: ignore[union-attr]

            def stop(step: int, value: float, trial=trial) -> bool:  # type: ignore[no-untyped-def]
                trial.report(value, step)
                return bool(trial.should_prune())

            value, _, _ = train(config, stop)
            self._study.tell(trial, value, state=TrialState.PRUNED if value is None else TrialState.COMPLETE)


def run(arm: str, task: Task, trials: int, seconds: float = math.inf) -> traces.Trace:
    """A run that ends after so many trials, or after so many CPU seconds of training.

    The trace has (training seconds, error) wherever the best so far improved.
    """
    judge = evaluator(task)
    spent, stopped, count = 0.0, 0, 0
    found: list[tuple[float, float]] = []

    def train(config: Config, stop: Callable[[int, float], bool]) -> Trained:
        nonlocal spent, stopped, count
        if count >= trials or spent >= seconds:
            raise Spent
        curve: list[tuple[int, float]] = []
        ruling = 0.0

        def report(step: int, value: float) -> None:
            nonlocal ruling
            curve.append((step, value))
            began = time.process_time()
            over = stop(step, value)
            ruling += time.process_time() - began
            if over:
                raise StopTrial

        began, value = time.process_time(), None
        try:
            result = judge.evaluate(dict(config), report)
            value = float(result.value)
            curve.append((result.step, value))
        except StopTrial:
            stopped += 1
        took = time.process_time() - began - ruling
        spent, count = spent + took, count + 1
        # What ends beyond the limit is no part of what was reached within it.
        if value is not None and spent <= seconds and (not found or value < found[-1][1]):
            found.append((round(spent, 4), value))
        return value, curve, took

    family, _, rule = arm.partition("+")
    began = time.process_time()
    makes: Mapping[str, Callable[[Task, str], Arm]] = {"rlhpo": Rlhpo, "tpe": Tpe}
    with contextlib.suppress(Spent):
        makes[family](task, rule).trials(train)
    whole = time.process_time() - began
    return {
        "optimiser": arm, "task": task.name, "seed": task.seed, "trials": trials, "trained": count, "stopped": stopped,
        "improvements": found, "seconds": round(spent, 3), "cpu_total": round(whole, 3),
        "version": traces.version(family),
    }  # fmt: skip


# -- what came of it -------------------------------------------------------------------------------------------------


def time_to(trace: traces.Trace, error: float) -> float:
    """Training seconds after which a run has come to an error; infinite if it has not."""
    return next((seconds for seconds, value in trace["improvements"] if value <= error), math.inf)


def tables(found: Sequence[traces.Trace]) -> list[str]:
    """A table for each family, against its own run without stopping; and one of all against rlhpo's."""
    runs = {(trace["optimiser"], trace["task"], trace["seed"]): trace for trace in found}
    parts = [
        _table(f"against {baseline}", [arm for arm in ARMS if arm.startswith(f"{family}+")], baseline, runs)
        for family, baseline in BASELINES.items()
    ]
    return [part for part in [*parts, _table("all against rlhpo+none", list(ARMS), "rlhpo+none", runs)] if part]


def _table(
    title: str, arms: Sequence[str], baseline: str, runs: Mapping[tuple[str, str, int], traces.Trace]
) -> str | None:
    rows = []
    for arm in arms:
        pairs = [
            (trace, runs[baseline, task, seed])
            for (name, task, seed), trace in runs.items()
            if name == arm and (baseline, task, seed) in runs
        ]
        pairs = [(trace, base) for trace, base in pairs if base["improvements"] and trace["improvements"]]
        if not pairs:
            continue
        goals = [base["improvements"][-1] for _, base in pairs]
        times = [time_to(trace, error) for (trace, _), (_, error) in zip(pairs, goals, strict=True)]
        shares = np.array([reached / seconds for reached, (seconds, _) in zip(times, goals, strict=True)])
        errors = [trace["improvements"][-1][1] / error for (trace, _), (_, error) in zip(pairs, goals, strict=True)]
        share, stopped = float(np.median(shares)), sum(trace["stopped"] for trace, _ in pairs)
        trained = sum(trace["trained"] for trace, _ in pairs)
        rows.append(
            [
                arm, len(pairs), f"{100 * np.mean(np.isfinite(shares)):.0f} %",
                "not reached" if math.isinf(share) else f"{share:.2f}", f"{np.exp(np.mean(np.log(errors))):.4f}",
                f"{trained / len(pairs):.0f}", f"{100 * stopped / trained:.0f} %",
                f"{np.mean([trace['cpu_total'] - trace['seconds'] for trace, _ in pairs]):.1f}",
            ]
        )  # fmt: skip
    head = [
        title, "runs", "came to its last error", "median time to it, of its", "last error, of its", "trials", "stopped",
        "other CPU seconds",
    ]  # fmt: skip
    return markdown.table(head, rows) if rows else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the tables (NAME.csv, with a column `target`)")
    parser.add_argument("--tables", help="names, separated by commas; all in the folder if not given")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--arms", default=",".join(ARMS), help=f"some of {', '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=50, help="of the runs without stopping")
    parser.add_argument("--more", type=int, default=4, help="times as many trials may those make that stop")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    given = parser.parse_args()
    if not given.only_print:
        if given.data is None:
            parser.error("--data: where are the tables?")
        names = given.tables.split(",") if given.tables else sorted(file.stem for file in given.data.glob("*.csv"))
        wanted = [arm for arm in given.arms.split(",") if arm.startswith("rlhpo+") or _has_optuna()]
        for seed in range(given.seeds):
            for table in names:
                _run_missing(Task(given.data, table, seed), wanted, given.trials, given.more, given.results)
    print("\n\n".join(tables(traces.load([given.results]))))


def _run_missing(task: Task, arms: Sequence[str], trials: int, more: int, results: Path) -> None:
    """The runs on a task that the folder lacks, each family's baseline before the others."""
    for family, baseline in BASELINES.items():
        of_family = [arm for arm in arms if arm.startswith(f"{family}+") and arm != baseline]
        if not of_family and baseline not in arms:
            continue
        base = _kept(baseline, task, trials, math.inf, results)
        for arm in of_family:
            _kept(arm, task, more * trials, base["seconds"], results)


def _kept(arm: str, task: Task, trials: int, seconds: float, results: Path) -> traces.Trace:
    found = {(trace["optimiser"], trace["task"], trace["seed"]): trace for trace in traces.load([results])}
    kept = found.get((arm, task.name, task.seed))
    if kept is not None and kept["trials"] >= trials:
        return kept
    trace = run(arm, task, trials, seconds)
    traces.append(results, trace)
    markdown.note_versions(results)
    line = f"{arm} {task.name} seed {task.seed}: {trace['trained']} trials, {trace['stopped']} stopped"
    print(f"{line}, {trace['seconds']:.1f} CPU s of training", file=sys.stderr, flush=True)
    return trace


def _has_optuna() -> bool:
    try:
        import optuna  # noqa: F401
    except ImportError:
        print("without Optuna: install rlhpo[benchmarks] to compare with its pruners", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    traces.single_threaded()
    main()
