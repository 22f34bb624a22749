"""Finished studies in one space: by the names of hyperparameters and their ranges, where that is sound.

It is sound if whatever one of the studies has tuned is tuned in every other, too, or fixed in it: then each trial is a
point of one space. What is fixed in all of them belongs to the task, like its data. The other way, from a prior's space
to that of a study which starts from it, is ``transfer``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    if all(one.space == first for one in studies):
        return first
    names = [parameter.name for one in studies for parameter in one.space.parameters]
    definitions = {}
    for name in dict.fromkeys(names):
        found = [(one, parameter) for one in studies if (parameter := _named(one.space, name)) is not None]
        if (definition := _merged(name, found, studies)) is not None:
            definitions[name] = definition
    for definition in definitions.values():
        when = {parent: values for parent, values in definition.get("when", {}).items() if parent in definitions}
        definition["when"] = when
    try:
        return SearchSpace.model_validate(definitions)
    except ValidationError as error:
        raise UserError(f"the studies' spaces have no space in common:\n{describe(error)}\n{_ADVICE}") from error


def carried(one: InSpace, target: SearchSpace) -> tuple[FinishedStudy, str]:
    """The study's trials that lie in the target space, and why others were left out (empty if none was).

    Raises: UserError, naming study and hyperparameter, if the space does not map, or if too few trials lie in it.
    """
    study = one.study
    if one.space == target:
        return study, ""
    named = f"{study.name} (from {study.place})"
    tuned = {step.name: step for step in target.steps}
    for step in target.steps:
        own = _named(one.space, step.name)
        if own is None:
            raise UserError(
                f"{named} has no {step.name}, which the prior's space tunes "
                f"({describe_domain(step)}): what it was there is not known; leave the study out, or choose a --space "
                f"without {step.name}"
            )
        if not isinstance(own, Fixed) and not _alike(own, step):
            raise UserError(
                f"{named}: {step.name} is {describe_domain(own)} there and "
                f"{describe_domain(step)} in the prior's space, which does not map; leave the study out, or choose "
                "another --space"
            )
    for step in one.space.steps:
        if step.name not in tuned:
            raise UserError(
                f"{named} has tuned {step.name} ({describe_domain(step)}), of which the prior's "
                "space knows nothing: its trials differ for a reason that the prior could not see; leave the study "
                f"out, or choose a --space with {step.name}"
            )
    kept: list[int] = []
    configs: list[Config] = []
    outside: Counter[str] = Counter()
    for index, config in enumerate(study.configs):
        narrowed = {name: value for name, value in config.items() if name in tuned}
        try:
            target.features([narrowed])
        except ValueError as error:
            outside[str(error).split(":")[0]] += 1
            continue
        kept.append(index)
        configs.append(narrowed)
    reasons = ", ".join(f"{count} by {name}" for name, count in outside.most_common())
    if len(kept) < LEAST_TRIALS and outside:
        name = outside.most_common(1)[0][0]
        own = _named(one.space, name)
        raise UserError(
            f"{named}: {len(kept)} of {len(study.rewards)} trials lie in the prior's space, and {LEAST_TRIALS} are "
            f"wanted; left out were {reasons} ({name} is {describe_domain(own) if own else 'absent'} there and "
            f"{describe_domain(tuned[name])} in the prior's space)"
        )
    note = f"{len(study.rewards) - len(kept)} left out, outside of the prior's space: {reasons}" if outside else ""
    rows = np.array(kept, dtype=int)
    seconds = None if study.seconds is None else study.seconds[rows]
    return replace(study, configs=configs, rewards=study.rewards[rows], seconds=seconds), note


def _named(space: SearchSpace, name: str) -> Tunable | Fixed | None:
    return next((parameter for parameter in space.parameters if parameter.name == name), None)


def _alike(a: Tunable, b: Tunable) -> bool:
    """Whether values of a may be values of b: choices among choices, numbers among numbers, and whole ones if b is."""
    if isinstance(a, Categorical | Bool) or isinstance(b, Categorical | Bool):
        return isinstance(a, Categorical | Bool) and isinstance(b, Categorical | Bool)
    return isinstance(a, Int) or not isinstance(b, Int)


def _merged(
    name: str, found: Sequence[tuple[InSpace, Tunable | Fixed]], studies: Sequence[InSpace]
) -> dict[str, Any] | None:
    """The definition that holds those of all studies; ``None`` for what belongs to the task."""
    tunable = [(one, own) for one, own in found if not isinstance(own, Fixed)]
    fixed = [(one, own) for one, own in found if isinstance(own, Fixed)]
    if not tunable:
        value = fixed[0][1].value
        shared = len(fixed) == len(studies) and all(same(own.value, value) for _, own in fixed)
        return {"type": "fixed", "value": value, "when": fixed[0][1].when} if shared else None
    holder, model = tunable[0]
    having = {one.study.name for one, _ in found}
    if lacking := [one.study.name for one in studies if one.study.name not in having]:
        raise UserError(f"{holder.study.name} tunes {name}, and {lacking[0]} has no such hyperparameter; {_ADVICE}")
    for one, own in tunable:
        if own.type != model.type:
            raise UserError(
                f"{name} is {describe_domain(model)} in {holder.study.name} and {describe_domain(own)} in "
                f"{one.study.name}, which does not map; {_ADVICE}"
            )
    conditions = [(one, own.when) for one, own in tunable if own.when]
    for one, when in conditions:
        if when != conditions[0][1]:
            raise UserError(
                f"{name} is active under other conditions in {conditions[0][0].study.name} than in {one.study.name}; "
                f"{_ADVICE}"
            )
    merged: dict[str, Any] = {"type": model.type, "when": conditions[0][1] if conditions else {}}
    values = [own.value for _, own in fixed]
    if isinstance(model, Bool | Categorical):
        for value in (value for _, own in tunable if isinstance(own, Categorical) for value in own.choices):
            values.append(value)
        choices = _distinct([*model.values, *values])
        if isinstance(model, Categorical):
            return merged | {"choices": choices}
        misfit = next((value for value in values if not isinstance(value, bool)), None)
    else:
        ranges = [own for _, own in tunable if not isinstance(own, Bool | Categorical)]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        whole = [value for value in numbers if value % 1 == 0]
        taken = whole if isinstance(model, Int) else numbers
        misfit = next((value for value in values if value not in taken), None)
        low, high = min([own.low for own in ranges] + taken), max([own.high for own in ranges] + taken)
        merged |= {"low": low, "high": high, "log": low > 0 and any(own.log for own in ranges)}
    if misfit is not None:
        one = next(one for one, own in fixed if own.value == misfit)
        raise UserError(
            f"{name} is {describe_domain(model)} in {holder.study.name} and fixed at {misfit!r} in {one.study.name}, "
            f"which does not map; {_ADVICE}"
        )
    return merged


def _distinct(values: Sequence[Value]) -> list[Value]:
    found: list[Value] = []
    for value in values:
        if not any(same(value, other) for other in found):
            found.append(value)
    return found
