"""The search space, and its conversions: configuration ⇄ one action per step ⇄ features for the reward model.

A *step* is a hyperparameter that the agent chooses; parents come before the hyperparameters that depend on them.
An *action* is a number in [-1, 1], NaN where the step is inactive. *Features* are what the reward model sees: numbers
scaled to [0, 1], categories one-hot, and for every conditional hyperparameter a column that says whether it is active.

Conversions are exact on the space's own grid (``parameters`` says which it is). Actions decode to that grid; ``snap``
brings any configuration to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_serializer, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from rlhpo_core.arrays import Bools, Floats
from rlhpo_core.errors import UserError, describe, in_words, suggestion
from rlhpo_core.space.parameters import (
    Bool,
    Categorical,
    Fixed,
    Float,
    Int,
    Parameter,
    Tunable,
    describe_domain,
    possible,
    same,
)
from rlhpo_core.strict_yaml import parse_yaml
from rlhpo_core.trial import Config, Value

_PARAMETER: TypeAdapter[Tunable | Fixed] = TypeAdapter(Parameter)


#: The kinds of hyperparameters by the ``type`` that stands in a file.
_KINDS = {kind.model_fields["type"].default: kind for kind in (Float, Int, Categorical, Bool, Fixed)}
#: What stands in files for the kinds, in other tools.
_OTHER_NAMES = {
    "integer": "int", "uniform": "float", "loguniform": "float", "double": "float", "choice": "categorical",
    "category": "categorical", "boolean": "bool", "constant": "fixed", "randint": "int", "real": "float",
}  # fmt: skip


def _without_kind(definition: Mapping[Any, Any]) -> str | None:
    """What is wrong with the kind of a hyperparameter; ``None`` if nothing is."""
    kinds = ", ".join(_KINDS)
    if "type" not in definition:
        return f"does not say which kind it is; write type: and one of {kinds}"
    given = definition["type"]
    if isinstance(given, str) and given in _KINDS:
        return None
    other = _OTHER_NAMES.get(str(given).lower())
    hint = f"; did you mean {other!r}?" if other else suggestion(str(given), _KINDS, listing=False)
    return f"type {given!r} is none of {kinds}{hint}"


def _problem(message: str, *loc: str) -> InitErrorDetails:
    # The message goes in as context: braces in it must not be read as a template.
    return InitErrorDetails(type=PydanticCustomError("space", "{message}", {"message": message}), loc=loc, input=None)


def _fail(problems: list[InitErrorDetails]) -> None:
    if problems:
        raise ValidationError.from_exception_data("SearchSpace", problems)


class SearchSpace(BaseModel):
    """Hyperparameters and their conditions. Written as a mapping from name to definition.

    Raises: ValidationError, with the path of each wrong field (``max_depth.low``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    parameters: tuple[Parameter, ...]

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if set(data) == {"parameters"} and isinstance(data["parameters"], list | tuple):
            return data
        if not data:
            raise ValueError("a search space needs at least one hyperparameter")
        parameters, problems = [], []
        for name, definition in data.items():
            if not isinstance(definition, Mapping):
                problems.append(_problem("write for example {type: float, low: 0.1, high: 1.0}", str(name)))
                continue
            if (unclear := _without_kind(definition)) is not None:
                problems.append(_problem(unclear, str(name)))
                continue
            try:
                parameters.append(_PARAMETER.validate_python({**definition, "name": str(name)}))
            except ValidationError as error:
                kind = _KINDS[definition["type"]]
                details = error.errors(include_url=False)
                for detail in details:
                    loc = [str(part) for part in detail["loc"] if part != definition["type"]]
                    if detail["type"] == "too_short" and len(details) > 1:
                        continue  # What is wrong with the choices themselves is said.
                    fields = [field for field in kind.model_fields if field != "name"]
                    problems.append(_problem(in_words(detail, fields), str(name), *loc))
        _fail(problems)
        return {"parameters": tuple(parameters)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        named: dict[str, Tunable | Fixed] = {}
        problems = []
        for parameter in self.parameters:
            if parameter.name in named:
                problems.append(_problem("the name is given twice", parameter.name))
            named[parameter.name] = parameter
        for parameter in self.parameters:
            for parent, allowed in parameter.when.items():
                loc = (parameter.name, "when", parent)
                if parent not in named:
                    problems.append(_problem("no hyperparameter has this name", *loc))
                elif isinstance(named[parent], Float):
                    problems.append(_problem("a float cannot be a parent; its single values have probability 0", *loc))
                elif len(possible(named[parent], allowed)) < len(allowed) or not allowed:
                    can = describe_domain(named[parent])
                    problems.append(_problem(f"{list(allowed)} must be values that {parent} can have ({can})", *loc))
        _fail(problems)
        _fail(_cycles(named))
        _fail(_contradictions(named))
        if not self.steps:
            raise ValueError("nothing to tune: every hyperparameter is fixed")
        return self

    @model_serializer
    def _to_mapping(self) -> dict[str, Any]:
        return {
            parameter.name: {"type": parameter.type}
            | parameter.model_dump(mode="json", exclude={"name", "type"}, exclude_defaults=True)
            for parameter in self.parameters
        }

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    # -- structure ---------------------------------------------------------------------------------------------------

    @cached_property
    def _sorted(self) -> tuple[Tunable | Fixed, ...]:
        """All parameters in the given order, each moved behind its parents."""
        placed: dict[str, Tunable | Fixed] = {}
        waiting = list(self.parameters)
        while waiting:
            ready = next(parameter for parameter in waiting if all(parent in placed for parent in parameter.when))
            placed[ready.name] = ready
            waiting.remove(ready)
        return tuple(placed.values())

    @cached_property
    def steps(self) -> tuple[Tunable, ...]:
        """What the agent chooses, in the order in which it does."""
        return tuple(parameter for parameter in self._sorted if not isinstance(parameter, Fixed))

    @cached_property
    def feature_groups(self) -> dict[str, slice]:
        """The feature columns of each step, its activity column (if it is conditional) last."""
        groups, start = {}, 0
        for step in self.steps:
            width = (len(step.values) if isinstance(step, Categorical | Bool) else 1) + bool(step.when)
            groups[step.name] = slice(start, start + width)
            start += width
        return groups

    @property
    def feature_count(self) -> int:
        """d, the number of feature columns."""
        return int(self.feature_groups[self.steps[-1].name].stop)

    def reordered(self, names: Sequence[str]) -> SearchSpace:
        """The same space with its hyperparameters in another order.

        Raises: ValueError if the names are not exactly those of the space.
        """
        named = {parameter.name: parameter for parameter in self.parameters}
        if sorted(names) != sorted(named):
            raise ValueError(f"an order must name each of {sorted(named)} once")
        return SearchSpace(parameters=tuple(named[name] for name in names))

    # -- conversions -------------------------------------------------------------------------------------------------

    def active_step(self, step: int, actions: Floats) -> Bools:
        """Whether a step is active, given the actions (B, ≥ step) of the steps before it. Shape (B,)."""
        return self._holds(self.steps[step], self._codes_before(step, actions), len(actions))

    def active(self, actions: Floats) -> Bools:
        """Which steps are active, (B, n), for actions (B, n)."""
        return ~np.isnan(self._codes(actions))

    def decode(self, actions: Floats) -> list[Config]:
        """Configurations of actions (B, n); what is inactive is left out, whatever its action says."""
        return self._configs(self._codes(actions))

    def encode(self, configs: Sequence[Config]) -> Floats:
        """Actions (B, n) of configurations, NaN where inactive.

        Raises: ValueError, naming the hyperparameter that is missing, unknown, inactive or out of its range.
        """
        codes = self._codes_of_configs(configs)
        return np.stack([s.actions(codes[:, i]) for i, s in enumerate(self.steps)], axis=1)

    def features(self, configs: Sequence[Config]) -> Floats:
        """Features (B, d) of configurations; raises like ``encode``."""
        return self.features_of_codes(self._codes_of_configs(configs))

    def features_of_actions(self, actions: Floats) -> Floats:
        """``features(decode(actions))`` without the way through Python objects."""
        return self.features_of_codes(self._codes(actions))

    def from_features(self, features: Floats) -> list[Config]:
        """Configurations of features (B, d), on the grid."""
        return self._configs(self.codes_of_features(features))

    def codes_of_features(self, features: Floats) -> Floats:
        """Codes (B, n) of features (B, d): the number itself, or the index of the choice; NaN where inactive."""
        columns = []
        for step in self.steps:
            group = features[:, self.feature_groups[step.name]]
            codes = step.codes_of_features(group)
            columns.append(np.where(group[:, -1] > 0.5, codes, np.nan) if step.when else codes)
        return np.stack(columns, axis=1)

    def masked(self, codes: Floats) -> Floats:
        """Codes (B, n) with NaN wherever this space's conditions make a step inactive."""
        columns: dict[str, Floats] = {}
        for index, step in enumerate(self.steps):
            columns[step.name] = np.where(self._holds(step, columns, len(codes)), codes[:, index], np.nan)
        return np.stack(list(columns.values()), axis=1)

    def features_of_codes(self, codes: Floats) -> Floats:
        """Features (B, d) of codes (B, n)."""
        columns = []
        for index, step in enumerate(self.steps):
            if not step.when:
                columns.append(step.features(codes[:, index]))
                continue
            active = ~np.isnan(codes[:, index])
            inside = np.where(active, codes[:, index], 1.0)
            columns += [np.where(active[:, None], step.features(inside), 0.0), active[:, None].astype(np.float64)]
        return np.concatenate(columns, axis=1)

    def nearest(self, wanted: Mapping[str, Value]) -> Config:
        """The configuration that is closest to the values that are wanted, whatever else is among them.

        A number outside of its range is moved to the range's end. What is not wanted, or no choice, becomes the middle
        of the range or of the choices.
        """
        codes: dict[str, Floats] = {}
        for step in self.steps:
            code = step.nearest(wanted.get(step.name)) if self._holds(step, codes, 1)[0] else np.nan
            codes[step.name] = np.array([code])
        return self._configs(np.stack(list(codes.values()), axis=1))[0]

    def snap(self, config: Config) -> Config:
        """The nearest configuration on the space's grid; raises like ``encode``."""
        return self.decode(self.encode([config]))[0]

    # -- inside: a code is a float per step: the number itself, or the index of the choice; NaN where inactive ---------

    @cached_property
    def _fixed(self) -> dict[str, Fixed]:
        return {parameter.name: parameter for parameter in self.parameters if isinstance(parameter, Fixed)}

    @cached_property
    def _conditions(self) -> dict[str, list[tuple[str, Floats]]]:
        """Per parameter its tunable parents with the allowed codes; fixed parents are followed to their own parents."""
        tunable = {step.name: step for step in self.steps}
        conditions: dict[str, list[tuple[str, Floats]]] = {}
        for parameter in self._sorted:
            parents: list[tuple[str, Floats]] = []
            for parent, allowed in parameter.when.items():
                if parent in tunable:
                    parents.append((parent, np.array([tunable[parent].code(value) for value in allowed])))
                else:
                    parents.extend(conditions[parent])
            conditions[parameter.name] = parents
        return conditions

    def _holds(self, parameter: Tunable | Fixed, codes: Mapping[str, Floats], count: int) -> Bools:
        holds = np.ones(count, dtype=np.bool_)
        for parent, allowed in self._conditions[parameter.name]:
            # An inactive parent has code NaN, which equals nothing.
            holds &= (codes[parent][:, None] == allowed).any(axis=1)
        return holds

    def _codes(self, actions: Floats) -> Floats:
        return np.stack(list(self._codes_before(len(self.steps), actions).values()), axis=1)

    def _codes_before(self, end: int, actions: Floats) -> dict[str, Floats]:
        """Codes of the steps before ``end``, each (B,)."""
        codes: dict[str, Floats] = {}
        for index, step in enumerate(self.steps[:end]):
            action = actions[:, index]
            if not self._conditions[step.name]:
                codes[step.name] = step.codes(np.where(np.isnan(action), 0.0, action))
                continue
            # An action of an inactive step may be NaN or anything else: it is not looked at.
            active = self._holds(step, codes, len(actions))
            codes[step.name] = np.where(active, step.codes(np.where(active & ~np.isnan(action), action, 0.0)), np.nan)
        return codes

    def _codes_of_configs(self, configs: Sequence[Config]) -> Floats:
        codes = np.full((len(configs), len(self.steps)), np.nan)
        for row, config in enumerate(configs):
            unknown = set(config) - {parameter.name for parameter in self.parameters}
            if unknown:
                raise ValueError(f"{sorted(unknown)[0]}: no hyperparameter has this name")
            seen: dict[str, Floats] = {}
            for index, step in enumerate(self.steps):
                active = bool(self._holds(step, seen, 1)[0])
                if active != (step.name in config):
                    raise ValueError(f"{step.name}: {'is missing' if active else 'is given but inactive'}")
                codes[row, index] = step.code(config[step.name]) if active else np.nan
                seen[step.name] = codes[row, index : index + 1]
        return codes

    def _configs(self, codes: Floats) -> list[Config]:
        columns = {step.name: codes[:, index] for index, step in enumerate(self.steps)}
        holds = {name: self._holds(fixed, columns, len(codes)) for name, fixed in self._fixed.items()}
        configs: list[Config] = []
        for row in range(len(codes)):
            config: Config = {}
            for parameter in self.parameters:
                if isinstance(parameter, Fixed):
                    if holds[parameter.name][row]:
                        config[parameter.name] = parameter.value
                elif not np.isnan(columns[parameter.name][row]):
                    config[parameter.name] = parameter.value(columns[parameter.name][row])
            configs.append(config)
        return configs


def _cycles(named: Mapping[str, Tunable | Fixed]) -> list[InitErrorDetails]:
    """A problem for the first parameter that depends on itself."""

    def find(name: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in path:
            return (*path[path.index(name) :], name)
        return next((cycle for parent in named[name].when if (cycle := find(parent, (*path, name)))), None)

    for name in named:
        cycle = find(name, ())
        if cycle:
            return [_problem(f"conditions go in a circle: {' → '.join(cycle)}", cycle[0], "when")]
    return []


def _contradictions(named: Mapping[str, Tunable | Fixed]) -> list[InitErrorDetails]:
    """A problem for every parameter that can never be active, because its ancestors' conditions exclude each other."""

    def needs(name: str) -> dict[str, list[Value]]:
        needed: dict[str, list[Value]] = {}
        for parent, allowed in named[name].when.items():
            for ancestor, values in [(parent, list(allowed)), *needs(parent).items()]:
                held = needed.get(ancestor, values)
                needed[ancestor] = [value for value in held if any(same(value, other) for other in values)]
        return needed

    problems = []
    for name in named:
        for ancestor, values in needs(name).items():
            if not values:
                message = f"can never hold: no value of {ancestor} satisfies all conditions"
                problems.append(_problem(message, name, "when"))
                break
    return problems


def load_space(text: str) -> SearchSpace:
    """A search space from YAML or JSON. Raises: UserError, naming each wrong field."""
    try:
        return SearchSpace.model_validate(parse_yaml(text))
    except ValidationError as error:
        raise UserError(describe(error)) from error


def builtin_names() -> list[str]:
    """The spaces that come with rlhpo."""
    return sorted(file.name.removesuffix(".yaml") for file in _builtin().iterdir() if file.name.endswith(".yaml"))


def builtin_space(name: str) -> SearchSpace:
    """A space that comes with rlhpo. Raises: ValueError, listing those there are."""
    if name not in builtin_names():
        raise ValueError(f"no built-in space is called {name!r}{suggestion(name, builtin_names())}")
    return load_space((_builtin() / f"{name}.yaml").read_text(encoding="utf-8"))


def _builtin() -> Traversable:
    return resources.files(__package__) / "builtin"
