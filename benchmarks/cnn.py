"""Networks on images: rlhpo against random search, TPE and ASHA in the paper's sixteen hyperparameters.

    python -m benchmarks.cnn --data mnist --trials 24 --epochs 8 --images 2500 --seeds 3 --methods rlhpo,random,tpe,asha
    python -m benchmarks.cnn --print

``--data`` is an NPZ file, or the name of one in ``--folder`` (``mnist`` stands for ``mnist_small.npz``). Of it so many
images are drawn by seed, those that the file sets apart for testing in proportion. A run has trials × epochs epochs to
spend, on one thread. ASHA (Optuna's, asynchronous successive halving with one worker, random configurations) stops
trials and so begins more of them; the others train each trial to its end. TPE and ASHA are left out where Optuna is
missing.

Every trial is a line in a file of its method, data and seed, written when it has ended. A run that was interrupted is
gone through again: what a line has already is not trained again, as long as the method asks for the same configuration,
which it does on the same machine. The run's last line has the holdout's score of its best configuration.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import markdown, optimisers, traces
from rlhpo_core.evaluators.protocol import Infeasible, StopTrial
from rlhpo_core.space.search_space import SearchSpace, builtin_space
from rlhpo_core.trial import Config

METHODS = ("rlhpo", "random", "tpe", "asha")
_OF_OPTUNA = ("tpe", "asha")
RESULTS = markdown.RESULTS / "cnn"
FOLDER = Path(__file__).parents[2] / "shared" / "data"
#: Of ASHA: epochs of the first rung, and by how much the next one is longer.
_FIRST_RUNG, _FACTOR = 1, 3

Line = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Images to tune a network on, divided by the seed."""

    path: Path
    images: int
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.path.stem.removesuffix('_small')}-{self.images}-{self.epochs}"

    @cached_property
    def space(self) -> SearchSpace:
        return builtin_space("cnn")

    @cached_property
    def evaluator(self) -> Any:
        from rlhpo_core.evaluators.cnn.evaluator import CNNEvaluator
        from rlhpo_core.study.spec import StudySpec

        spec = StudySpec.model_validate(
            {
                "name": "cnn",
                "seed": self.seed,
                "data": {"path": str(self.path), "max_rows": self.images},
                "evaluator": {"kind": "cnn", "epochs": self.epochs},
                "objective": "accuracy",
                "space": "cnn",
            }
        )
        return CNNEvaluator(spec, threads=1)


class Method(Protocol):
    def ask(self) -> Config:
        """The next configuration."""

    def stops(self, epoch: int, value: float) -> bool:
        """Whether the trial under way is to end after this epoch."""

    def tell(self, config: Config, value: float | None) -> None:
        """The best accuracy of the trial; ``None`` if it failed."""


class ToTheEnd:
    """An optimiser that looks at trials when they have ended."""

    def __init__(self, name: str, start: optimisers.Start) -> None:
        self._optimiser = optimisers.make(name, start)

    def ask(self) -> Config:
        return self._optimiser.ask()

    def stops(self, epoch: int, value: float) -> bool:
        return False

    def tell(self, config: Config, value: float | None) -> None:
        self._optimiser.tell(config, value)


class Asha(optimisers.Optuna):
    """Optuna's pruner by successive halving; each rung lets a third of those that came to it go on."""

    def __init__(self, start: optimisers.Start) -> None:
        import optuna

        super().__init__(start, optuna.samplers.RandomSampler(seed=start.seed))
        self._study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=_FIRST_RUNG, reduction_factor=_FACTOR)

    def stops(self, epoch: int, value: float) -> bool:
        self._trial.report(value, epoch)
        return bool(self._trial.should_prune())


def method(name: str, start: optimisers.Start) -> Method:
    return Asha(start) if name == "asha" else ToTheEnd(name, start)


# -- one run ---------------------------------------------------------------------------------------------------------


def run(name: str, task: Task, trials: int, folder: Path) -> None:
    """Go through a run; what its file has is not trained again."""
    file = folder / f"{name}-{task.name}-{task.seed}.jsonl"
    lines = read(file)
    known = {line["trial"]: line for line in lines if "trial" in line}
    if any("holdout" in line and line["trials"] == trials for line in lines):
        return
    start = optimisers.Start(task.space, optimisers.seed_of(task.name, task.seed), trials)
    chosen, spent, number, best = method(name, start), 0, 0, (-1.0, Config())
    while spent < trials * task.epochs:
        config = chosen.ask()
        line = known.get(number)
        if line is None or line["config"] != config:
            line = {"trial": number, "config": config, **_trained(task, config, chosen)}
            append(file, line)
            note = line["error"] or f"{max(line['curve']):.4f} after {len(line['curve'])} epochs"
            print(f"{file.stem}: trial {number + 1}, {note}, {line['seconds']:.1f} s", file=sys.stderr, flush=True)
        else:
            for epoch, value in enumerate(line["curve"], start=1):
                chosen.stops(epoch, value)
        value = max(line["curve"]) if line["error"] is None else None
        chosen.tell(config, value)
        if value is not None and value > best[0]:
            best = (value, config)
        spent += max(1, len(line["curve"]))
        number += 1
    holdout = task.evaluator.refit(best[1]).metrics["accuracy"] if best[0] >= 0 else None
    append(file, {"method": name, "task": task.name, "seed": task.seed, "trials": trials, "holdout": holdout})


def _trained(task: Task, config: Config, chosen: Method) -> Line:
    curve: list[float] = []

    def report(epoch: int, value: float) -> None:
        curve.append(value)
        if chosen.stops(epoch, value):
            raise StopTrial

    began, error = time.monotonic(), None
    try:
        task.evaluator.evaluate(config, report)
    except StopTrial:
        pass
    except (ArithmeticError, Infeasible, MemoryError) as fault:
        error = str(fault)
    return {"curve": curve, "seconds": round(time.monotonic() - began, 2), "error": error}


def read(file: Path) -> list[Line]:
    """The lines of a file; one that was cut short by a kill is passed over."""
    if not file.exists():
        return []
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def append(file: Path, line: Line) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = not file.exists() or file.stat().st_size == 0 or file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as opened:
        opened.write(("" if whole else "\n") + json.dumps(line, separators=(",", ":")) + "\n")


# -- what came of it -------------------------------------------------------------------------------------------------


def best_by_epoch(lines: Sequence[Line]) -> list[float]:
    """The best accuracy so far after each epoch that was spent; NaN before the first."""
    best, course = float("nan"), []
    # A trial that is there twice was asked for otherwise the second time.
    trials = {line["trial"]: line for line in lines if "trial" in line}
    for _, line in sorted(trials.items()):
        values = line["curve"] or [float("nan")]
        for value in values:
            best = float(np.fmax(best, value)) if line["error"] is None else best
            course.append(best)
    return course


def table(folder: Path) -> str:
    """Mean errors of each method on each task, over the seeds that have ended."""
    runs: dict[tuple[str, str], list[tuple[list[float], Line]]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        lines = read(file)
        for end in [line for line in lines if line.get("holdout") is not None][-1:]:
            runs.setdefault((end["task"], end["method"]), []).append((best_by_epoch(lines), end))
    rows = []
    for (task, name), found in sorted(runs.items()):
        total = min(len(course) for course, _ in found)
        errors = [
            1 - np.mean([course[max(0, int(share * total) - 1)] for course, _ in found]) for share in (0.25, 0.5, 1)
        ]
        holdout = 1 - np.mean([end["holdout"] for _, end in found])
        rows.append([task, name, len(found), total, *(f"{error:.4f}" for error in errors), f"{holdout:.4f}"])
    return markdown.table(
        ["data-images-epochs", "method", "seeds", "epochs", "error at a quarter", "half", "all", "holdout error"], rows
    )


def chosen_methods(names: str) -> list[str]:
    """Those that can be run here. Raises: SystemExit at an unknown one."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in METHODS]:
        raise SystemExit(f"--methods: {', '.join(unknown)} is none of {', '.join(METHODS)}")
    there = importlib.util.find_spec("optuna") is not None
    if missing := [name for name in wanted if name in _OF_OPTUNA and not there]:
        print(f"left out, since Optuna is not installed: {', '.join(missing)}", file=sys.stderr)
    return [name for name in wanted if there or name not in _OF_OPTUNA]


def main(arguments: Mapping[str, Any]) -> None:
    if arguments["print"]:
        print(table(arguments["results"]))
        return
    named = Path(arguments["data"])
    path = named if named.suffix else arguments["folder"] / f"{named}_small.npz"
    for seed in range(arguments["seeds"]):
        for name in chosen_methods(arguments["methods"]):
            task = Task(path, arguments["images"], arguments["epochs"], seed)
            run(name, task, arguments["trials"], arguments["results"])
    print(table(arguments["results"]))


if __name__ == "__main__":
    traces.single_threaded()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--print", action="store_true", help="run nothing; print the table of the kept results")
    main(vars(parser.parse_args()))
