"""Finished studies in one space: by the names of hyperparameters and their ranges, where that is sound.

It is sound if whatever one of the studies has tuned is tuned or fixed in every other: then each trial is a point of one
space. What is fixed in all of them belongs to the task, like its data. The other way, from a prior's space to that of a
study which starts from it, is ``tuner.prior_mapping``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from rlhpo_core.errors import UserError, describe
from rlhpo_core.priors.training import LEAST_TRIALS, FinishedStudy
from rlhpo_core.space.parameters import Bool, Categorical, Fixed, Int, Tunable, describe_domain, same
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import Config, Value

_ADVICE = "leave one of the studies out, or say with --space what the prior is to be about"


@dataclass(frozen=True)
class InSpace:
    """A study with the space in which it was tuned."""

    study: FinishedStudy
    space: SearchSpace


def common_space(studies: Sequence[InSpace]) -> SearchSpace:
    """The smallest space that holds all that the studies have tuned.

    Raises: UserError, naming studies and hyperparameter, if there is none.
    """
    first = studies[0].space
    if all(member.space == first for member in studies):
        return first
    names = [parameter.name for member in studies for parameter in member.space.parameters]
    definitions = {}
    for name in dict.fromkeys(names):
        if (definition := _joined(name, studies)) is not None:
            definitions[name] = definition
    for definition in definitions.values():
        when = {parent: values for parent, values in definition.get("when", {}).items() if parent in definitions}
        definition["when"] = when
    try:
        return SearchSpace.model_validate(definitions)
    except ValidationError as error:
        raise UserError(f"the studies' spaces have no space in common:\n{describe(error)}\n{_ADVICE}") from error


def carried(member: InSpace, target: SearchSpace) -> tuple[FinishedStudy, str]:
    """The study's trials that lie in the target space, and why others were left out (empty if none was).

    Raises: UserError, naming study and hyperparameter, if the space does not map, or if too few trials lie in it.
    """
    study = member.study
    if member.space == target:
        return study, ""
    _check_that_it_maps(member, target)
    configs, outside = _inside(study.configs, target)
    _check_that_enough_lie_inside(member, target, len(configs), outside)
    note = ""
    if outside:
        note = f"{outside.total()} left out, outside of the prior's space: {_by_name(outside)}"
    rows = np.array(list(configs), dtype=int)
    seconds = None if study.seconds is None else study.seconds[rows]
    return replace(study, configs=list(configs.values()), rewards=study.rewards[rows], seconds=seconds), note


def told_once(configs: Sequence[Config], space: SearchSpace, canonical: Callable[[Config], Config]) -> list[Config]:
    """Each configuration as the one that stands for all that train the same model, where the space has that.

    Args:
        canonical: As an ``Evaluator`` has it.
    """

    def told(config: Config) -> Config:
        try:
            return space.snap(canonical(config))
        except ValueError:
            return config

    return [told(config) for config in configs]


# -- one study in a given space ----------------------------------------------------------------------------------------


def _check_that_it_maps(member: InSpace, target: SearchSpace) -> None:
    """Raises: UserError unless the study's hyperparameters are those of the target space, of the same kinds."""
    study = _in_words(member)
    for step in target.steps:
        there = _named(member.space, step.name)
        if there is None:
            raise UserError(
                f"{study} has no {step.name}, which the prior's space tunes "
                f"({describe_domain(step)}): what it was there is not known; leave the study out, or choose a --space "
                f"without {step.name}"
            )
        if not isinstance(there, Fixed) and not _alike(there, step):
            raise UserError(
                f"{study}: {step.name} is {describe_domain(there)} there and "
                f"{describe_domain(step)} in the prior's space, which does not map; leave the study out, or choose "
                "another --space"
            )
    tuned = {step.name for step in target.steps}
    for step in member.space.steps:
        if step.name not in tuned:
            raise UserError(
                f"{study} has tuned {step.name} ({describe_domain(step)}), of which the prior's "
                "space knows nothing: its trials differ for a reason that the prior could not see; leave the study "
                f"out, or choose a --space with {step.name}"
            )


def _inside(configs: Sequence[Config], target: SearchSpace) -> tuple[dict[int, Config], Counter[str]]:
    """Configurations in the target space by their position, and how many lie outside by which hyperparameter."""
    tuned = {step.name for step in target.steps}
    inside: dict[int, Config] = {}
    outside: Counter[str] = Counter()
    for position, config in enumerate(configs):
        narrowed = {name: value for name, value in config.items() if name in tuned}
        try:
            target.features([narrowed])
        except ValueError as error:
            outside[str(error).split(":")[0]] += 1
        else:
            inside[position] = narrowed
    return inside, outside


def _check_that_enough_lie_inside(member: InSpace, target: SearchSpace, kept: int, outside: Counter[str]) -> None:
    """Raises: UserError if trials were left out and fewer than LEAST_TRIALS remain."""
    if kept >= LEAST_TRIALS or not outside:
        return
    name = outside.most_common(1)[0][0]
    there, here = _named(member.space, name), _named(target, name)
    raise UserError(
        f"{_in_words(member)}: {kept} of {len(member.study.rewards)} trials lie in the prior's space, and "
        f"{LEAST_TRIALS} are wanted; left out were {_by_name(outside)} "
        f"({name} is {describe_domain(there) if there else 'absent'} there and "
        f"{describe_domain(here) if here else 'absent'} in the prior's space)"
    )


def _in_words(member: InSpace) -> str:
    return f"{member.study.name} (from {member.study.place})"


def _by_name(outside: Counter[str]) -> str:
    return ", ".join(f"{count} by {name}" for name, count in outside.most_common())


def _named(space: SearchSpace, name: str) -> Tunable | Fixed | None:
    return next((parameter for parameter in space.parameters if parameter.name == name), None)


def _alike(a: Tunable, b: Tunable) -> bool:
    """Whether values of a may be values of b: choices among choices, numbers among numbers, and whole ones if b is."""
    if isinstance(a, Categorical | Bool) or isinstance(b, Categorical | Bool):
        return isinstance(a, Categorical | Bool) and isinstance(b, Categorical | Bool)
    return isinstance(a, Int) or not isinstance(b, Int)


# -- one hyperparameter of all studies ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Definitions:
    """How the studies define one hyperparameter: those that tune it, and those that fix it."""

    name: str
    tunable: Sequence[tuple[str, Tunable]]
    """With the names of the studies."""
    fixed: Sequence[tuple[str, Fixed]]


def _joined(name: str, studies: Sequence[InSpace]) -> dict[str, Any] | None:
    """The definition that holds those of all studies; ``None`` for what belongs to the task."""
    given = [(member.study.name, _named(member.space, name)) for member in studies]
    definitions = _Definitions(
        name,
        [(study, parameter) for study, parameter in given if parameter and not isinstance(parameter, Fixed)],
        [(study, parameter) for study, parameter in given if isinstance(parameter, Fixed)],
    )
    if not definitions.tunable:
        return _constant(definitions, len(studies))
    if lacking := [study for study, parameter in given if parameter is None]:
        holder = definitions.tunable[0][0]
        raise UserError(f"{holder} tunes {name}, and {lacking[0]} has no such hyperparameter; {_ADVICE}")
    _check_types_and_conditions(definitions)
    _, model = definitions.tunable[0]
    conditions = next((parameter.when for _, parameter in definitions.tunable if parameter.when), {})
    joined = _choices(definitions) if isinstance(model, Bool | Categorical) else _range(definitions)
    return {"type": model.type, "when": conditions} | joined


def _constant(definitions: _Definitions, studies: int) -> dict[str, Any] | None:
    """What all the studies fix at the same value; ``None`` if they differ."""
    parameters = [parameter for _, parameter in definitions.fixed]
    first = parameters[0]
    if len(parameters) < studies or not all(same(parameter.value, first.value) for parameter in parameters):
        return None
    return {"type": "fixed", "value": first.value, "when": first.when}


def _check_types_and_conditions(definitions: _Definitions) -> None:
    """Raises: UserError unless the studies that tune the hyperparameter agree on its type and its conditions."""
    holder, model = definitions.tunable[0]
    for study, parameter in definitions.tunable:
        if parameter.type != model.type:
            raise UserError(
                f"{definitions.name} is {describe_domain(model)} in {holder} and {describe_domain(parameter)} in "
                f"{study}, which does not map; {_ADVICE}"
            )
    conditions = [(study, parameter.when) for study, parameter in definitions.tunable if parameter.when]
    for study, when in conditions:
        if when != conditions[0][1]:
            raise UserError(
                f"{definitions.name} is active under other conditions in {conditions[0][0]} than in {study}; {_ADVICE}"
            )


def _choices(definitions: _Definitions) -> dict[str, Any]:
    """The choices of all studies, in the order in which they come."""
    tunable = [parameter for _, parameter in definitions.tunable if isinstance(parameter, Bool | Categorical)]
    if isinstance(tunable[0], Bool):
        _refuse(definitions, lambda value: not isinstance(value, bool))
        return {}
    values = [parameter.value for _, parameter in definitions.fixed]
    return {"choices": _distinct([*tunable[0].values, *values, *(v for p in tunable for v in p.values)])}


def _range(definitions: _Definitions) -> dict[str, Any]:
    """The range that holds those of all studies and the values that others fix; on a log scale if that can be."""
    ranges = [parameter for _, parameter in definitions.tunable if not isinstance(parameter, Bool | Categorical)]
    whole = isinstance(ranges[0], Int)
    _refuse(definitions, lambda value: not _is_number(value, whole))
    values = [parameter.value for _, parameter in definitions.fixed]
    numbers = [value for value in values if isinstance(value, int | float)]
    low = min([parameter.low for parameter in ranges] + numbers)
    high = max([parameter.high for parameter in ranges] + numbers)
    return {"low": low, "high": high, "log": low > 0 and any(parameter.log for parameter in ranges)}


def _refuse(definitions: _Definitions, misfit: Callable[[Value], bool]) -> None:
    """Raises: UserError if a study fixes the hyperparameter at a value that the others cannot tune."""
    holder, model = definitions.tunable[0]
    for study, parameter in definitions.fixed:
        if misfit(parameter.value):
            raise UserError(
                f"{definitions.name} is {describe_domain(model)} in {holder} and fixed at {parameter.value!r} in "
                f"{study}, which does not map; {_ADVICE}"
            )


def _is_number(value: Value, whole: bool) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and (not whole or value % 1 == 0)


def _distinct(values: Sequence[Value]) -> list[Value]:
    """The values without repetitions, in their order."""
    distinct: list[Value] = []
    for value in values:
        if not any(same(value, other) for other in distinct):
            distinct.append(value)
    return distinct
