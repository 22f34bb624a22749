"""What of a study file may change once the study has begun, and what may not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhpo_core.study.spec import StudySpec

#: What the trials, the tuner's state and the winner follow from: with another value, two studies would be mixed.
FIXED = ("name", "seed", "data", "evaluator", "objective", "space", "warm_start", "prior", "tuner", "stopping")
#: How long, where and for whom the study runs: may be edited between an interruption and a resume.
FREE = ("budget", "execution", "cluster", "tracking", "registry", "gate", "retune", "alerts")
#: Of the fixed fields: a table may be moved. That it is the same is known by its digest.
_PLACE_OF_TABLE = "path"

_ABSENT = object()


def beginning(spec: StudySpec) -> dict[str, Any]:
    """A copy of the fixed fields, as JSON has them; what was not set is left out."""
    return spec.model_dump(mode="json", include=set(FIXED), exclude_unset=True)


def changed(began: Mapping[str, Any], spec: StudySpec) -> list[str]:
    """The fixed fields in which a study differs from what it began with, such as ``seed (was 0, is 1)``.

    Args:
        began: As ``beginning`` has returned it.
    """
    then, now = _comparable(StudySpec.model_validate(began)), _comparable(spec)
    differing = list(_differences("", then, now))
    # The agent chooses the hyperparameters in the order in which they are listed.
    if not differing and list(then["space"]) != list(now["space"]):
        differing.append("space (the order of its hyperparameters)")
    return differing


def _comparable(spec: StudySpec) -> dict[str, Any]:
    fields = spec.model_dump(mode="json", include=set(FIXED))
    if fields["data"] is not None:
        del fields["data"][_PLACE_OF_TABLE]
    return fields


def _differences(where: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            yield from _differences(f"{where}.{key}".lstrip("."), then.get(key, _ABSENT), now.get(key, _ABSENT))
    elif then != now or isinstance(then, bool) != isinstance(now, bool):
        yield f"{where} (was {_shown(then)}, is {_shown(now)})"


def _shown(value: Any) -> str:
    return "not there" if value is _ABSENT else "not set" if value is None else str(value)
