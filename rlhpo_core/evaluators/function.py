"""The user's own training routine, named in the study file as ``module:function``.

    def train(config, report, **options):
        for epoch in range(config["epochs"]):
            ...
            report(epoch, accuracy)
        return accuracy                      # or {"accuracy": accuracy, "seconds_per_row": …}

Study files are data, and importing a module runs its code: the operator, not the file, says which modules may be named.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, ClassVar

from rlhpo_core.data.schema import TableSchema
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import NO_CHECKPOINT, Checkpoint, Evaluation, Evaluator, Refit, Reporter
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.evaluator_specs import FunctionSpec
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Config, Value

#: Environment variable with the modules that may be imported, separated by commas.
ALLOWED_MODULES = "RLHPO_ALLOWED_MODULES"


class FunctionEvaluator(Evaluator):
    """Scores a configuration by calling ``function(config, report, **options)``.

    The function returns the objective as a number, or a mapping of metrics that has the objective's among them.
    ``report(step, value)`` takes intermediate values; a ``StopTrial`` it raises has to pass through the function.
    """

    has_model: ClassVar[bool] = False

    def __init__(self, spec: StudySpec, threads: int, schema: TableSchema | None = None) -> None:
        """Import the function; it chooses its threads itself.

        Raises: UserError if the module is not allowed, or if there is no such function that takes these arguments.
        """
        assert isinstance(spec.evaluator, FunctionSpec)
        self._name = spec.evaluator.function
        self._metric = spec.objective.metric
        self._options = spec.evaluator.options
        self._defaults = spec.evaluator.defaults
        self._function = _load(self._name)
        _check_arguments(self._function, spec.evaluator)

    @staticmethod
    def read(spec: StudySpec, schema: TableSchema | None = None) -> None:
        """``None``: only the function knows its data."""
        return None

    @staticmethod
    def defaults(spec: StudySpec) -> Config:
        """What is closest to ``evaluator.defaults``, with the middle of the range where that says nothing."""
        assert isinstance(spec.evaluator, FunctionSpec)
        return spec.space.nearest(spec.evaluator.defaults)

    def check_space(self, space: SearchSpace) -> None:
        """Any space will do: what a configuration means is up to the function.

        Raises: UserError, naming each default whose hyperparameter the space lacks.
        """
        lacking = self._defaults.keys() - {parameter.name for parameter in space.parameters}
        if lacking:
            raise UserError("\n".join(f"evaluator.defaults.{name}: the space lacks it" for name in sorted(lacking)))

    def evaluate(self, config: Config, report: Reporter, checkpoint: Checkpoint = NO_CHECKPOINT) -> Evaluation:
        """Raises: TypeError or ValueError if what the function returns is no score, and whatever it raises itself."""
        # Copies, so that a function which changes its arguments changes nothing for the next trial.
        given = {name: _as_written(value) for name, value in config.items()}
        returned = self._function(given, report, **copy.deepcopy(self._options))
        if not isinstance(returned, Mapping):
            return Evaluation(self._number(returned, "the result"))
        if self._metric not in returned:
            has = ", ".join(sorted(map(str, returned))) or "nothing"
            raise ValueError(f"{self._name} returned {has}, but not {self._metric!r}, the objective of the study")
        metrics = {str(name): self._number(value, f"the metric {name!r}") for name, value in returned.items()}
        return Evaluation(metrics.pop(self._metric), metrics)

    def data(self) -> None:
        """``None``: only the function knows its data."""
        return None

    def refit(self, config: Config) -> Refit | None:
        """``None``: only the function knows what a model is."""
        return None

    def _number(self, value: object, what: str) -> float:
        if isinstance(value, Real) and not isinstance(value, bool):
            return float(value)
        wanted = f"return a number, or a mapping from metrics to numbers with {self._metric!r} in it"
        raise TypeError(f"{self._name}: {what} is of type {type(value).__name__}; {wanted}")


def _as_written(value: Value) -> object:
    """A value as the study file has it: lists are lists again."""
    return [_as_written(item) for item in value] if isinstance(value, tuple) else value


def _load(name: str) -> Callable[..., object]:
    """The function behind ``module:function``. Imports the module if it is allowed."""
    module_name, function_name = name.split(":")
    allowed = [entry.strip() for entry in os.environ.get(ALLOWED_MODULES, "").split(",") if entry.strip()]
    if not any(module_name == entry or module_name.startswith(f"{entry}.") for entry in allowed):
        wanted = ",".join([*allowed, module_name.split(".")[0]])
        raise UserError(
            f"evaluator.function: the module of {name!r} may not be imported. Importing a module runs its code; "
            f"if you trust it, set the environment variable {ALLOWED_MODULES}={wanted}"
        )
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise UserError(
            f"evaluator.function: cannot import {module_name}: {error}. It has to be installed, "
            "with all it needs, in the environment that rlhpo runs in"
        ) from error
    function: object = getattr(module, function_name, None)
    if function is None:
        raise UserError(f"evaluator.function: the module {module_name} ({module.__file__}) has no {function_name!r}")
    if not callable(function):
        raise UserError(f"evaluator.function: {name} is of type {type(function).__name__}, which cannot be called")
    return function


def _check_arguments(function: Callable[..., Any], spec: FunctionSpec) -> None:
    """Raises: UserError if a call would fail for its arguments alone, before a trial is spent on it."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # Written in C, without a signature to look at.
    try:
        signature.bind({}, print, **spec.options)
    except TypeError as error:
        options = "".join(f", {name}=…" for name in spec.options)
        raise UserError(
            f"evaluator.function: {spec.function}{signature} cannot be called as "
            f"{spec.function.split(':')[1]}(config, report{options}): {error}. Mend evaluator.options or the function"
        ) from error
