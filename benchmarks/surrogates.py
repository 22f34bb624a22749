"""Tuning tasks that cost a millisecond a trial: the surrogates of YAHPO Gym (Pfisterer et al. 2022).

A scenario's network was fitted to millions of real training runs and answers what accuracy a configuration would reach
on one of the scenario's data sets. A folder outside of this repository holds per scenario its space, its integer codes
and its network. suite.json, beside this file, has the tasks that results are reported on (``suite``), each with its
references, and those that may be learnt from beforehand (``source``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import Config, Value

Floats = NDArray[np.float64]
Part = Literal["suite", "source"]

SUITE = Path(__file__).parent / "suite.json"
_INACTIVE = "#na#"


@dataclass(frozen=True)
class Scenario:
    """What the surrogates' files do not say: input columns, the output that is the accuracy, what is fixed."""

    instance: str
    categorical: tuple[str, ...]
    continuous: tuple[str, ...]
    output: int
    scale: float
    fixed: tuple[tuple[str, float], ...]


SCENARIOS = {
    "rbv2_xgboost": Scenario(
        instance="task_id",
        categorical=("task_id", "booster", "num.impute.selected.cpo"),
        continuous=(
            *("nrounds", "eta", "gamma", "lambda", "alpha", "subsample", "max_depth", "min_child_weight"),
            *("colsample_bytree", "colsample_bylevel", "rate_drop", "skip_drop", "trainsize", "repl"),
        ),
        output=0,
        scale=1.0,
        fixed=(("trainsize", 1.0), ("repl", 10.0)),
    ),
    "lcbench": Scenario(
        instance="OpenML_task_id",
        categorical=("OpenML_task_id",),
        continuous=(
            *("epoch", "batch_size", "learning_rate", "momentum", "weight_decay", "num_layers"),
            *("max_units", "max_dropout"),
        ),
        output=1,
        scale=0.01,
        fixed=(("epoch", 52.0),),
    ),
}


@dataclass(frozen=True)
class SurrogateTask:
    """A data set to tune on. Accuracy is to be maximised; ``best`` and ``median`` are references to judge it by.

    Source tasks come without references; ``measured`` takes them from random configurations.
    """

    folder: Path
    scenario: str
    instance: str
    best: float = math.nan
    """The highest accuracy known."""
    median: float = math.nan
    """Of random configurations."""
    trainsize: float | None = None
    """Share of the training data (rbv2_xgboost only); all of it if not set."""

    @property
    def name(self) -> str:
        suffix = "" if self.trainsize is None else f"@{self.trainsize:g}"
        return f"{self.scenario}/{self.instance}{suffix}"

    @cached_property
    def space(self) -> SearchSpace:
        return _space(self.folder, self.scenario)

    def at_trainsize(self, share: float) -> SurrogateTask:
        """The same data set with fewer rows; ``best`` and ``median`` stay those of the full one.

        Raises: ValueError for a scenario without this fidelity, or a share outside of [0.03, 1].
        """
        if "trainsize" not in dict(SCENARIOS[self.scenario].fixed) or not 0.03 <= share <= 1:
            raise ValueError(f"{self.scenario} cannot be asked for {share} of the training data")
        return replace(self, trainsize=share)

    def measured(self, configs: Sequence[Mapping[str, Value]]) -> SurrogateTask:
        """The same task, judged by the best and the median of these configurations."""
        values = self.evaluate_many(configs)
        return replace(self, best=float(values.max()), median=float(np.median(values)))

    def evaluate(self, config: Mapping[str, Value]) -> float:
        """Accuracy in [0, 1]."""
        return float(self.evaluate_many([config])[0])

    def evaluate_many(self, configs: Sequence[Mapping[str, Value]]) -> Floats:
        """Accuracies (N,) in [0, 1]. What a configuration leaves out is inactive."""
        scenario = SCENARIOS[self.scenario]
        return np.asarray(self.outputs(configs)[:, scenario.output] * scenario.scale)

    def outputs(self, configs: Sequence[Mapping[str, Value]]) -> Floats:
        """All that the surrogate says, (N, outputs)."""
        scenario, codes = SCENARIOS[self.scenario], _codes(self.folder, self.scenario)
        fixed = dict(scenario.fixed)
        if self.trainsize is not None:
            fixed["trainsize"] = self.trainsize
        choices = [{scenario.instance: self.instance} | dict(config) for config in configs]
        x_cat = [[codes[name][str(row.get(name, _INACTIVE))] for name in scenario.categorical] for row in choices]
        x_cont = [[float((fixed | row).get(name, 0.0)) for name in scenario.continuous] for row in choices]
        inputs = {"x_cat": np.array(x_cat, dtype=np.int32), "x_cont": np.array(x_cont, dtype=np.float32)}
        return np.asarray(_session(self.folder, self.scenario).run(None, inputs)[0], dtype=np.float64)

    def random_configs(self, count: int, seed: int) -> list[Config]:
        """Configurations drawn uniformly from the space, on its scales."""
        rng = np.random.default_rng(seed)
        return self.space.decode(rng.uniform(-1, 1, (count, len(self.space.steps))))

    def regret(self, best_so_far: float | Floats) -> Floats:
        """Normalised: 0 at the reference best, 1 at the median of random configurations."""
        return np.asarray((self.best - np.asarray(best_so_far)) / (self.best - self.median))


def load_tasks(part: Part, scenario: str | None = None, folder: Path | None = None) -> list[SurrogateTask]:
    """The tasks of suite.json in its order.

    Args:
        part: Which of its two lists.
        scenario: Only those of this scenario.
        folder: Where the networks are. Without it the tasks can say nothing but their references.

    Raises: FileNotFoundError if the folder lacks a scenario's network.
    """
    rows = [row for row in json.loads(SUITE.read_text(encoding="utf-8"))[part] if scenario in (None, row["scenario"])]
    if folder is not None:
        for name in sorted({row["scenario"] for row in rows}):
            file = folder / name / "model.onnx"
            if not file.is_file():
                raise FileNotFoundError(f"{file}: not there. --yahpo takes the folder with a folder a scenario")
    return [SurrogateTask(folder or Path(), **row) for row in rows]


def space_from_configspace(document: Mapping[str, Any], leave_out: Sequence[str]) -> SearchSpace:
    """The search space of a ConfigSpace JSON file, without some of its hyperparameters."""
    conditions: dict[str, dict[str, list[Value]]] = {}
    for condition in document["conditions"]:
        allowed = condition["values"] if condition["type"] == "IN" else [condition["value"]]
        conditions.setdefault(condition["child"], {})[condition["parent"]] = list(allowed)
    kinds = {"uniform_float": "float", "uniform_int": "int", "categorical": "categorical"}
    space: dict[str, dict[str, Any]] = {}
    for given in document["hyperparameters"]:
        name, kind = given["name"], kinds[given["type"]]
        if name in leave_out:
            continue
        if kind == "categorical":
            space[name] = {"type": kind, "choices": given["choices"]}
        else:
            space[name] = {"type": kind, "low": given["lower"], "high": given["upper"], "log": given["log"]}
        if name in conditions:
            space[name]["when"] = conditions[name]
    return SearchSpace.model_validate(space)


# -- once a process --------------------------------------------------------------------------------------------------


@cache
def _space(folder: Path, scenario: str) -> SearchSpace:
    document = json.loads((folder / scenario / "config_space.json").read_text(encoding="utf-8"))
    known = SCENARIOS[scenario]
    return space_from_configspace(document, [known.instance, *(name for name, _ in known.fixed)])


@cache
def _codes(folder: Path, scenario: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads((folder / scenario / "encoding.json").read_text(encoding="utf-8"))
    return found


@cache
def _session(folder: Path, scenario: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(folder / scenario / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
