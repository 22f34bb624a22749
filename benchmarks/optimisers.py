"""rlhpo and its peers behind one protocol: ``ask`` for a configuration, ``tell`` what it scored. Values are maximised.

Every optimiser searches the space as it is (ranges, log scales, conditions), one trial at a time, in the settings that
its own documentation recommends for such a space; docs/benchmarks.md says which and why. rlhpo is asked in its rounds:
all proposals of a round are made before the first of them is scored. ``make`` knows them by name.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.shipped_prior import under_names_of
from rlhpo_core.space.parameters import Bool, Categorical, Fixed, Tunable
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.strict_yaml import parse_yaml
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.trial import Config, Value

SETTINGS = Path(__file__).parent / "settings"


class Optimiser(Protocol):
    def ask(self) -> Config:
        """The next configuration. Asked again only after ``tell``."""

    def tell(self, config: Config, value: float | None) -> None:
        """What the configuration that was asked for scored; higher is better. ``None``: the training failed."""


@dataclass(frozen=True)
class Start:
    """What an optimiser is given at the start of a run."""

    space: SearchSpace
    seed: int
    trials: int
    """How many trials there will be in all; SMAC sizes its initial design by it."""
    first: Sequence[Config] = ()
    """Configurations to begin with: a portfolio."""
    prior: Path | None = None
    """What rlhpo learnt from other tasks."""
    earlier: Earlier | None = None
    """A finished run on an earlier version of the task."""


@dataclass(frozen=True)
class Earlier:
    """A finished run: its trials in their order, and the optimiser in the state that they left it in."""

    configs: Sequence[Config]
    values: Sequence[float | None]
    optimiser: Any

    def best(self, count: int) -> list[Config]:
        """The configurations that scored best, each once."""
        scored = [(value, index) for index, value in enumerate(self.values) if value is not None]
        ranked = [index for value, index in sorted(scored, key=lambda pair: -pair[0])]
        found: list[Config] = []
        for index in ranked:
            if self.configs[index] not in found:
                found.append(self.configs[index])
        return found[:count]


def seed_of(task: str, seed: int) -> int:
    """An independent 31-bit seed per (task, seed), so that luck in the first trials is not shared between tasks."""
    return int.from_bytes(hashlib.sha256(f"{task}/{seed}".encode()).digest()[:4], "big") >> 1


def is_active(step: Tunable, config: Mapping[str, Value]) -> bool:
    return all(parent in config and config[parent] in allowed for parent, allowed in step.when.items())


def without_inactive(space: SearchSpace, config: Mapping[str, Value]) -> Config:
    """Of values for every step only those whose conditions hold."""
    kept: Config = {}
    for step in space.steps:
        if is_active(step, kept):
            kept[step.name] = config[step.name]
    return kept


def _refuse_fixed(space: SearchSpace) -> None:
    if any(isinstance(parameter, Fixed) for parameter in space.parameters):
        raise ValueError("the peers are given spaces without fixed hyperparameters; the task can add those itself")


# -- random ----------------------------------------------------------------------------------------------------------


class Random:
    """Uniform on the space's scales."""

    def __init__(self, start: Start) -> None:
        self._space = start.space
        self._rng = np.random.default_rng(start.seed)

    def ask(self) -> Config:
        return self._space.decode(self._rng.uniform(-1, 1, (1, len(self._space.steps))))[0]

    def tell(self, config: Config, value: float | None) -> None:
        pass


class Portfolio:
    """The given configurations in their order, and then at random."""

    def __init__(self, start: Start) -> None:
        self._waiting = list(start.first)
        self._random = Random(start)

    def ask(self) -> Config:
        return self._waiting.pop(0) if self._waiting else self._random.ask()

    def tell(self, config: Config, value: float | None) -> None:
        pass


# -- Optuna ----------------------------------------------------------------------------------------------------------


class Optuna:
    """A study that is asked and told. ``flat``: every step is suggested, and what is inactive is then left out."""

    def __init__(self, start: Start, sampler: Any, *, flat: bool = False) -> None:
        import optuna

        _refuse_fixed(start.space)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._flat = start.space, flat
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._trial: Any = None
        for config in start.first:
            self._study.enqueue_trial(config)

    def ask(self) -> Config:
        self._trial = self._study.ask()
        config: Config = {}
        for step in self._space.steps:
            if self._flat or is_active(step, config):
                config[step.name] = self._suggest(step)
        return without_inactive(self._space, config)

    def _suggest(self, step: Tunable) -> Value:
        if isinstance(step, Categorical | Bool):
            chosen: Value = self._trial.suggest_categorical(step.name, step.values)
        elif step.type == "int":
            chosen = self._trial.suggest_int(step.name, step.low, step.high, log=step.log)
        else:
            chosen = self._trial.suggest_float(step.name, step.low, step.high, log=step.log)
        return chosen

    def tell(self, config: Config, value: float | None) -> None:
        from optuna.trial import TrialState

        self._study.tell(self._trial, value, state=TrialState.FAIL if value is None else None)


def tpe(start: Start) -> Optimiser:
    """Multivariate, and grouped by condition, as Optuna recommends for conditional spaces."""
    import optuna

    return Optuna(start, optuna.samplers.TPESampler(multivariate=True, group=True, seed=start.seed))


def gp(start: Start) -> Optimiser:
    """Optuna's Gaussian process leaves conditional hyperparameters to chance, so all are suggested, always."""
    import optuna
    import torch

    torch.set_num_threads(1)
    return Optuna(start, optuna.samplers.GPSampler(deterministic_objective=True, seed=start.seed), flat=True)


def cmaes(start: Start) -> Optimiser:
    """It varies numbers only: choices are TPE's, and numbers are suggested whether they are active or not."""
    import optuna

    independent = optuna.samplers.TPESampler(multivariate=False, seed=start.seed)
    sampler = optuna.samplers.CmaEsSampler(independent_sampler=independent, seed=start.seed)
    return Optuna(start, sampler, flat=True)


# -- SMAC ------------------------------------------------------------------------------------------------------------


class SMAC:
    """SMAC3's facade for hyperparameters: random forest, log expected improvement, Sobol points for a quarter of the
    budget."""

    def __init__(self, start: Start) -> None:
        import ConfigSpace
        from smac import HyperparameterOptimizationFacade, Scenario

        _refuse_fixed(start.space)
        self._folder = tempfile.TemporaryDirectory(prefix="smac-")
        self._space = start.space
        scenario = Scenario(
            _configuration_space(ConfigSpace, start.space, start.seed),
            output_directory=Path(self._folder.name),
            deterministic=True,
            n_trials=start.trials,
            seed=start.seed,
        )
        self._facade = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, overwrite=True, logging_level=logging.ERROR
        )
        self._asked: Any = None

    def ask(self) -> Config:
        self._asked = self._facade.ask()
        found = dict(self._asked.config)
        return {step.name: _plain(found[step.name]) for step in self._space.steps if step.name in found}

    def tell(self, config: Config, value: float | None) -> None:
        from smac.runhistory.dataclasses import TrialValue
        from smac.runhistory.enumerations import StatusType

        # An accuracy of 0: its model cannot be fitted to a cost that is infinite, which is the default of crashed ones.
        failed = TrialValue(cost=1.0, status=StatusType.CRASHED)
        self._facade.tell(self._asked, failed if value is None else TrialValue(cost=1 - value))


def _configuration_space(library: Any, space: SearchSpace, seed: int) -> Any:
    made = library.ConfigurationSpace(seed=seed)
    hyperparameters: dict[str, Any] = {}
    for step in space.steps:
        if isinstance(step, Categorical | Bool):
            hyperparameters[step.name] = library.CategoricalHyperparameter(step.name, list(step.values))
        else:
            kind = library.UniformIntegerHyperparameter if step.type == "int" else library.UniformFloatHyperparameter
            hyperparameters[step.name] = kind(step.name, lower=step.low, upper=step.high, log=step.log)
    made.add(*hyperparameters.values())
    for step in space.steps:
        parts = [
            library.InCondition(hyperparameters[step.name], hyperparameters[parent], list(allowed))
            for parent, allowed in step.when.items()
        ]
        if parts:
            made.add(parts[0] if len(parts) == 1 else library.AndConjunction(*parts))
    return made


def _plain(value: Any) -> Value:
    """A value without NumPy's type."""
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[no-any-return]


# -- Ax, on BoTorch --------------------------------------------------------------------------------------------------


class Ax:
    """Ax's client as its tutorial uses it: Sobol points, then a Gaussian process and log noisy expected improvement.

    All steps are always suggested: its conditions must form a tree, so one on two values of a parent cannot be told.
    """

    def __init__(self, start: Start) -> None:
        warnings.filterwarnings("ignore", module=r"ax|botorch|gpytorch|linear_operator")
        from ax.api.client import Client
        from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
        from ax.utils.common.logger import set_ax_logger_levels

        set_ax_logger_levels(logging.ERROR)

        _refuse_fixed(start.space)
        self._space = start.space
        # Names in an Ax experiment may not hold a dot.
        self._names = {step.name: f"p{index}" for index, step in enumerate(start.space.steps)}
        parameters: list[Any] = []
        for step in start.space.steps:
            name = self._names[step.name]
            if isinstance(step, Categorical | Bool):
                values = [str(value) for value in step.values]
                parameters.append(
                    ChoiceParameterConfig(name=name, values=values, parameter_type="str", is_ordered=False)
                )
            else:
                kind: Any = "int" if step.type == "int" else "float"
                scaling: Any = "log" if step.log else "linear"
                bounds = (step.low, step.high)
                parameters.append(RangeParameterConfig(name=name, bounds=bounds, parameter_type=kind, scaling=scaling))
        self._client = Client(random_seed=start.seed)
        self._client.configure_experiment(parameters=parameters)
        self._client.configure_optimization(objective="value")
        self._index = 0

    def ask(self) -> Config:
        ((self._index, found),) = self._client.get_next_trials(max_trials=1).items()
        config: Config = {}
        for step in self._space.steps:
            value = found[self._names[step.name]]
            if isinstance(step, Categorical | Bool):
                value = {str(choice): choice for choice in step.values}[value]
            config[step.name] = _plain(value)
        return without_inactive(self._space, config)

    def tell(self, config: Config, value: float | None) -> None:
        if value is None:
            self._client.mark_trial_failed(trial_index=self._index)
        else:
            self._client.complete_trial(trial_index=self._index, raw_data={"value": value})


# -- rlhpo -----------------------------------------------------------------------------------------------------------


class Rlhpo:
    """The tuner, round by round."""

    def __init__(self, start: Start, settings: TunerSettings) -> None:
        import torch

        from rlhpo_core.tuner import algorithm

        torch.set_num_threads(1)
        self._tuner = algorithm
        self.state = _initial_state(start, settings)
        self._waiting: list[Any] = []
        self._done: list[Any] = []
        self._asked = 0.0

    def ask(self) -> Config:
        if not self._waiting:
            self._waiting = self._tuner.propose(self.state)
        self._asked = time.monotonic()
        return self._waiting[0].config

    def tell(self, config: Config, value: float | None) -> None:
        from rlhpo_core.trial import Trial, TrialStatus

        status = TrialStatus.FAILED if value is None else TrialStatus.COMPLETE
        seconds = time.monotonic() - self._asked
        self._done.append(Trial(proposal=self._waiting.pop(0), status=status, value=value, seconds=seconds))
        if not self._waiting:
            observed = self._tuner.observe(self.state, self._done)
            self.state = self._tuner.update_policy(self._tuner.fit_reward_model(observed))
            self._done = []


def _initial_state(start: Start, settings: TunerSettings) -> Any:
    """Where a study begins: from nothing, a prior, or an earlier study, whose state is ``earlier.optimiser.state``."""
    from rlhpo_core.priors.store import load_prior
    from rlhpo_core.tuner.state import initial_state
    from rlhpo_core.tuner.warm_start import warm_state

    prior = None if start.prior is None else under_names_of(load_prior(str(start.prior)), start.space)
    if start.earlier is None:
        return initial_state("benchmark", start.seed, start.space, "maximize", settings, prior)
    state = start.earlier.optimiser.state
    return warm_state(state, "benchmark", start.seed, start.space, "maximize", settings, prior=prior)


def settings_from(file: Path) -> TunerSettings:
    return TunerSettings.model_validate(parse_yaml(file.read_text(encoding="utf-8")))


# -- by name ---------------------------------------------------------------------------------------------------------

PEERS: dict[str, Callable[[Start], Optimiser]] = {
    "random": Random,
    "tpe": tpe,
    "cmaes": cmaes,
    "gp": gp,
    "smac": SMAC,
    "ax": Ax,
    "portfolio": Portfolio,
}
#: Those that can begin with given configurations.
_TAKE_FIRST = ("portfolio", "tpe", "gp", "cmaes")


def make(name: str, start: Start) -> Optimiser:
    """A peer, ``rlhpo`` in its default settings, or ``rlhpo-NAME`` in those of benchmarks/settings/NAME.yaml.

    What begins with a portfolio, a prior or an earlier run has a name that ends in ``+…``; the start holds it.

    Raises: ValueError, listing the names there are, or if it cannot begin with given configurations.
    """
    base = name.split("+")[0]
    if start.first and base not in _TAKE_FIRST:
        raise ValueError(f"{name}: only {', '.join(_TAKE_FIRST)} can begin with given configurations")
    if base in PEERS:
        return PEERS[base](start)
    if base == "rlhpo":
        return Rlhpo(start, TunerSettings())
    file = SETTINGS / f"{base.removeprefix('rlhpo-')}.yaml"
    if base.startswith("rlhpo-") and file.is_file():
        return Rlhpo(start, settings_from(file))
    raise ValueError(f"no optimiser is called {name!r}; there are {', '.join(names())}")


def names() -> list[str]:
    return [*PEERS, "rlhpo", *sorted(f"rlhpo-{file.stem}" for file in SETTINGS.glob("*.yaml"))]
