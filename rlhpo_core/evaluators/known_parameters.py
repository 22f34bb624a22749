"""Which hyperparameters a library has, and which values they take: wrong ones are refused before any training."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rlhpo_core.errors import UserError
from rlhpo_core.space.parameters import Categorical, Fixed, Float, Int, Parameter
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import Config, Scalar, Value, shown


@dataclass(frozen=True)
class Known:
    """A hyperparameter: the values that it takes."""

    low: float = 0.0
    high: float = float("inf")
    whole: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vocabulary:
    """All hyperparameters of one library."""

    owner: str
    """Who has them, as an error calls it: ``XGBoost``."""
    known: Mapping[str, Known]
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names for some of them."""
    defaults: Mapping[str, Value] = field(default_factory=dict)
    """What the library takes where nothing else is said."""

    def native(self, name: str) -> str:
        """The one of a hyperparameter's names that is used here."""
        return self.aliases.get(name, name)

    def default_in(self, space: SearchSpace) -> Config:
        """The configuration of a space that is closest to the library's defaults."""
        names = {parameter.name: self.native(parameter.name) for parameter in space.parameters}
        return space.nearest({name: self.defaults[own] for name, own in names.items() if own in self.defaults})

    def check_space(self, space: SearchSpace, fixed: Iterable[str]) -> None:
        """Check a search space before anything is trained.

        Args:
            fixed: Names of what ``evaluator.params`` sets.

        Raises: UserError, naming each hyperparameter that is not known, that leaves its range, or that is set twice.
        """
        seen: dict[str, str] = {}
        problems = []
        for parameter in space.parameters:
            problems += self._problems(parameter, "space")
            native = self.native(parameter.name)
            if native in seen:
                problems.append(f"space.{parameter.name}: this is another name of {seen[native]}; keep one of the two")
            seen[native] = parameter.name
        problems += [
            f"space.{seen[self.native(name)]}: evaluator.params sets {name} as well; keep one of the two"
            for name in fixed
            if self.native(name) in seen
        ]
        if problems:
            raise UserError("\n".join(problems))

    def check_params(self, params: Mapping[str, Scalar]) -> None:
        """Raises: UserError, naming each wrong entry of ``evaluator.params``."""
        problems = [
            problem
            for name, value in params.items()
            for problem in self._problems(Fixed(name=name, value=value), "evaluator.params")
        ]
        if problems:
            raise UserError("\n".join(problems))

    def _problems(self, parameter: Parameter, place: str) -> list[str]:
        """What the library would not take of a parameter."""
        where = f"{place}.{parameter.name}"
        name = self.native(parameter.name)
        if name not in self.known:
            close = difflib.get_close_matches(parameter.name, [*self.known, *self.aliases], n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(self.known)}"
            return [f"{where}: {self.owner}'s evaluator does not know this hyperparameter; {hint}"]
        known, problems = self.known[name], []
        for value in _extremes(parameter):
            if known.choices:
                if value not in known.choices:
                    problems.append(f"{where}: {shown(value)!r} is not one of {', '.join(known.choices)}")
            elif isinstance(value, bool) or not isinstance(value, int | float):
                problems.append(f"{where}: {shown(value)} is not a number, which {self.owner} takes here")
            elif not known.low <= value <= known.high:
                bounds = f"{known.low:g} to {known.high:g}"
                problems.append(f"{where}: {value!r} is outside of what {self.owner} takes, {bounds}")
            elif known.whole and (isinstance(parameter, Float) or value != int(value)):
                problems.append(f"{where}: {self.owner} takes whole numbers here; use type int")
                break
        return problems


def _extremes(parameter: Parameter) -> tuple[Value, ...]:
    """Values that are in range only if all of the parameter's values are."""
    if isinstance(parameter, Float | Int):
        return (parameter.low, parameter.high)
    if isinstance(parameter, Categorical):
        return parameter.choices
    return (parameter.value,) if isinstance(parameter, Fixed) else (False, True)
