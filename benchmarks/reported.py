"""Runs whose trials report as they are trained, and may be stopped: rlhpo by its rules, Optuna by its pruners.

An arm is ``FAMILY+RULE``: the family proposes (rlhpo, or Optuna's TPE or random sampler), the rule stops. Steps are
trees of XGBoost or epochs of a network. Times are seconds of training, the optimiser excluded; CPU seconds of one
thread where the CPU trains, so that other work on the machine matters little.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from benchmarks import markdown, optimisers, traces
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import Infeasible, StopTrial
from rlhpo_core.space.search_space import SearchSpace, builtin_space
from rlhpo_core.trial import Config, Stop

#: rlhpo's rules, as a study names them.
RULES = ("none", "median", "asha", "learned")
#: One in so many goes on from a rung of Optuna's successive halving, as by default from one of rlhpo's.
REDUCTION = 3


class Task(Protocol):
    """Data to train on, divided by the seed."""

    seed: int

    @property
    def name(self) -> str: ...

    @property
    def space(self) -> SearchSpace: ...

    @property
    def grace(self) -> int:
        """The first step at which Optuna's pruners may stop a trial; rlhpo's rules are in their default settings."""

    @property
    def longest(self) -> int:
        """The last step of the longest trial."""

    @property
    def evaluator(self) -> Any:
        """Of one thread."""

    def error_of(self, value: float) -> float:
        """An error, from a value of the evaluator's metric."""

    def clock(self) -> float:
        """Seconds of training so far, from any beginning."""


@dataclass(frozen=True)
class TableTask:
    """XGBoost on a table, in the paper's ten hyperparameters: log loss of classes, root mean squared error of numbers.

    The evaluator reports every ten trees.
    """

    folder: Path
    table: str
    seed: int
    most_rows: int = 1500
    grace: int = 10
    longest: int = 1200

    @property
    def name(self) -> str:
        return f"xgboost-paper/{self.table}"

    @property
    def space(self) -> SearchSpace:
        return builtin_space("xgboost-paper")

    @property
    def evaluator(self) -> Any:
        return _of_table(self)

    def error_of(self, value: float) -> float:
        return value

    def clock(self) -> float:
        return time.process_time()


@cache
def _of_table(task: TableTask) -> Any:
    from rlhpo_core.evaluators.xgboost.evaluator import XGBoostEvaluator
    from rlhpo_core.study.spec import StudySpec

    document = {
        "name": "stopping",
        "seed": task.seed,
        "data": {"path": str(task.folder / f"{task.table}.csv"), "target": "target", "max_rows": task.most_rows},
        "evaluator": {"kind": "xgboost"},
        "space": "xgboost-paper",
    }
    try:
        return XGBoostEvaluator(StudySpec.model_validate({**document, "objective": "log_loss"}), threads=1)
    except UserError:
        return XGBoostEvaluator(StudySpec.model_validate({**document, "objective": "rmse"}), threads=1)


@dataclass(frozen=True)
class ImageTask:
    """A network on images, in the paper's sixteen hyperparameters: the share of images that it gets wrong."""

    path: Path
    images: int | None
    """Drawn by the seed, those that the file sets apart for testing in proportion; ``None`` for all."""
    epochs: int
    seed: int
    device: Literal["cpu", "cuda"] = "cpu"
    grace: int = 1

    @property
    def name(self) -> str:
        size = "all" if self.images is None else self.images
        on = "" if self.device == "cpu" else f" on {self.device}"
        return f"cnn/{self.path.stem.removesuffix('_small')}, {size} images, {self.epochs} epochs{on}"

    @property
    def longest(self) -> int:
        return self.epochs

    @property
    def space(self) -> SearchSpace:
        return builtin_space("cnn")

    @cached_property
    def evaluator(self) -> Any:
        from rlhpo_core.evaluators.cnn.evaluator import CNNEvaluator
        from rlhpo_core.study.spec import StudySpec

        data = {"path": str(self.path), **({} if self.images is None else {"max_rows": self.images})}
        document = {
            "name": "cnn",
            "seed": self.seed,
            "data": data,
            "evaluator": {"kind": "cnn", "epochs": self.epochs},
            "execution": {"device": self.device},
            "objective": "accuracy",
            "space": "cnn",
        }
        return CNNEvaluator(StudySpec.model_validate(document), threads=1)

    def error_of(self, value: float) -> float:
        return 1.0 - value

    def clock(self) -> float:
        return time.process_time() if self.device == "cpu" else time.perf_counter()


# -- the arms --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    error: float | None
    """``None`` if it was stopped, or failed."""
    failed: bool
    curve: list[tuple[int, float]]
    """(step, error)."""
    seconds: float


#: Trains a configuration, given what says at each report (step, error) whether to stop.
Train = Callable[[Config, Callable[[int, float], bool]], Outcome]


class Arm(Protocol):
    def trials(self, train: Train) -> None:
        """Make trials for ever; ``train`` raises Spent when it is over."""


class Spent(Exception):  # noqa: N818  (a signal, not an error)
    """The trials, or the time, are used up."""


class Rlhpo:
    """The tuner in its default settings, by rounds; a rule sees the rounds before."""

    def __init__(self, task: Task, rule: str) -> None:
        from pydantic import TypeAdapter

        from rlhpo_core.study.stopping_settings import StoppingSpec
        from rlhpo_core.study.tuner_settings import TunerSettings
        from rlhpo_core.tuner.state import initial_state

        self._rule = TypeAdapter(StoppingSpec).validate_python(rule)
        seed = optimisers.seed_of(task.name, task.seed)
        self._last_step = task.evaluator.last_step
        self._state = initial_state("benchmark", seed, task.space, "minimize", TunerSettings())

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

                last_step = self._last_step(dict(proposal.config))

                def stop(  # type: ignore[no-untyped-def]
                    step: int, error: float, watch=watch, reports=reports, stops=stops, last_step=last_step
                ) -> bool:
                    reports.append((step, error))
                    found = None if watch is None else watch.stop(reports, last_step)
                    stops.extend([found] if found is not None else [])
                    return found is not None

                outcome = train(proposal.config, stop)
                status = TrialStatus.FAILED if outcome.failed else TrialStatus.COMPLETE
                ended: dict[str, Any] = {"value": outcome.error, "status": status}
                if stops:
                    ended = {"stop": stops[0], "status": TrialStatus.PRUNED}
                fresh.append(
                    Trial(proposal=proposal, curve=tuple(outcome.curve), seconds=outcome.seconds, **ended)
                )  # fmt: skip
            done += fresh
            observed = algorithm.observe(self._state, fresh)
            self._state = algorithm.update_policy(algorithm.fit_reward_model(observed))


class Optuna(optimisers.Optuna):
    """Optuna's TPE (multivariate, grouped), or its random sampler, with a pruner; one trial after another."""

    def __init__(self, task: Task, sampler: str, pruner: str) -> None:
        import optuna

        start = optimisers.Start(task.space, optimisers.seed_of(task.name, task.seed), 0)
        samplers = {
            "tpe": lambda: optuna.samplers.TPESampler(multivariate=True, group=True, seed=start.seed),
            "random": lambda: optuna.samplers.RandomSampler(seed=start.seed),
        }
        pruners: dict[str, Callable[[], Any]] = {
            "none": lambda: optuna.pruners.NopPruner(),
            "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=task.grace),
            "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(
                min_resource=task.grace, reduction_factor=REDUCTION
            ),
            "hyperband": lambda: optuna.pruners.HyperbandPruner(
                min_resource=task.grace, max_resource=task.longest, reduction_factor=REDUCTION
            ),
        }
        super().__init__(start, samplers[sampler]())
        self._study = optuna.create_study(
            direction="minimize", sampler=self._study.sampler, pruner=pruners[pruner]()
        )  # fmt: skip

    def trials(self, train: Train) -> None:
        from optuna.trial import TrialState

        while True:
            config = self.ask()

            def stop(step: int, error: float, trial: Any = self._trial) -> bool:
                trial.report(error, step)
                return bool(trial.should_prune())

            outcome = train(config, stop)
            other = TrialState.FAIL if outcome.failed else TrialState.PRUNED
            self._study.tell(self._trial, outcome.error, state=other if outcome.error is None else None)


def make(arm: str, task: Task) -> Arm:
    """An arm by its name."""
    family, _, rule = arm.partition("+")
    return Rlhpo(task, rule) if family == "rlhpo" else Optuna(task, family, rule)


def family_of(arm: str) -> str:
    """Who proposes."""
    return arm.partition("+")[0]


# -- a run -----------------------------------------------------------------------------------------------------------


def run(arm: str, task: Task, trials: int, seconds: float = math.inf) -> traces.Trace:
    """A run that ends after so many trials, or after so many seconds of training.

    The trace has (seconds, error) wherever the best so far improved, and the holdout's error of the last of these.
    """
    judge = task.evaluator
    spent, stopped, failed, count = 0.0, 0, 0, 0
    found: list[tuple[float, float]] = []
    best: Config = {}

    def train(config: Config, stop: Callable[[int, float], bool]) -> Outcome:
        nonlocal spent, stopped, failed, count, best
        if count >= trials or spent >= seconds:
            raise Spent
        curve: list[tuple[int, float]] = []
        ruling = 0.0

        def report(step: int, value: float) -> None:
            nonlocal ruling
            curve.append((step, task.error_of(value)))
            began = task.clock()
            over = stop(*curve[-1])
            ruling += task.clock() - began
            if over:
                raise StopTrial

        began, error, broken = task.clock(), None, False
        try:
            result = judge.evaluate(dict(config), report)
            error = task.error_of(float(result.value))
            if result.step is not None and (not curve or result.step > curve[-1][0]):
                curve.append((result.step, error))
        except StopTrial:
            stopped += 1
        except (ArithmeticError, Infeasible, MemoryError):
            failed, broken = failed + 1, True
        took = task.clock() - began - ruling
        spent, count = spent + took, count + 1
        # What ends beyond the limit is no part of what was reached within it.
        if error is not None and spent <= seconds and (not found or error < found[-1][1]):
            found.append((round(spent, 4), error))
            best = config
        return Outcome(error, broken, curve, took)

    began = time.process_time()
    watch = time.monotonic()
    with contextlib.suppress(Spent):
        make(arm, task).trials(train)
    whole, wall = time.process_time() - began, time.monotonic() - watch
    holdout = judge.refit(best).metrics[judge.metric] if found else None
    return {
        "optimiser": arm, "task": task.name, "seed": task.seed, "trials": trials, "trained": count, "stopped": stopped,
        "failed": failed, "improvements": found, "holdout": None if holdout is None else task.error_of(holdout),
        "seconds": round(spent, 3), "cpu_total": round(whole, 3), "wall": round(wall, 1),
        "version": traces.version("tpe" if family_of(arm) != "rlhpo" else arm),
    }  # fmt: skip


def run_missing(
    task: Task, arms: Sequence[str], baselines: Mapping[str, str], trials: int, more: int, results: Path
) -> list[traces.Trace]:
    """The runs of a task, those that the folder lacks made: baselines first, so many trials each.

    The other arms get the time that their baseline took, and may make ``more`` times as many trials with it.

    Args:
        baselines: Of each arm that has one.
    """
    first = dict.fromkeys([baselines.get(arm, arm) for arm in arms])
    base = {arm: kept(arm, task, trials, math.inf, results) for arm in first}
    others = [arm for arm in arms if arm not in first]
    rest = [kept(arm, task, more * trials, base[baselines[arm]]["seconds"], results) for arm in others]
    return [*base.values(), *rest]


def kept(arm: str, task: Task, trials: int, seconds: float, results: Path) -> traces.Trace:
    """A run from the folder, or, if it is not there, from now on."""
    found = {(trace["optimiser"], trace["task"], trace["seed"]): trace for trace in traces.load([results])}
    there = found.get((arm, task.name, task.seed))
    if there is not None and there["trials"] >= trials:
        return there
    trace = run(arm, task, trials, seconds)
    traces.append(results, trace)
    markdown.note_versions(results)
    line = f"{arm}, {task.name}, seed {task.seed}: {trace['trained']} trials, {trace['stopped']} of them stopped"
    print(f"{line}, {trace['seconds']:.1f} s of training", file=sys.stderr, flush=True)
    return trace


def possible(arms: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those arms that can be run here. Raises: SystemExit at an unknown one."""
    if unknown := [arm for arm in arms if arm not in known]:
        raise SystemExit(f"--arms: {', '.join(unknown)} is none of {', '.join(known)}")
    try:
        import optuna  # noqa: F401
    except ImportError:
        print("without Optuna: install rlhpo[benchmarks] to compare with it", file=sys.stderr)
        return [arm for arm in arms if family_of(arm) == "rlhpo"]
    return list(arms)
