"""Which hyperparameters XGBoost has, and which values they take: wrong ones are refused before anything is trained."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rlhpo_core.errors import UserError
from rlhpo_core.space.parameters import Categorical, Fixed, Float, Int, Parameter
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import Value


@dataclass(frozen=True)
class _Known:
    """A parameter of XGBoost: the values that it takes."""

    low: float = 0.0
    high: float = float("inf")
    whole: bool = False
    choices: tuple[str, ...] = ()


_SHARE = _Known(1e-9, 1)
#: What may be tuned or set. The tree method is always ``hist``, the objective follows from the task.
KNOWN: dict[str, _Known] = {
    "n_estimators": _Known(1, whole=True),
    "max_depth": _Known(0, whole=True),
    "max_leaves": _Known(0, whole=True),
    "max_bin": _Known(2, whole=True),
    "grow_policy": _Known(choices=("depthwise", "lossguide")),
    "learning_rate": _Known(1e-9, 1),
    "gamma": _Known(),
    "min_child_weight": _Known(),
    "max_delta_step": _Known(),
    "subsample": _SHARE,
    "colsample_bytree": _SHARE,
    "colsample_bylevel": _SHARE,
    "colsample_bynode": _SHARE,
    "reg_alpha": _Known(),
    "reg_lambda": _Known(),
    "scale_pos_weight": _Known(),
    "num_parallel_tree": _Known(1, whole=True),
    "max_cat_to_onehot": _Known(1, whole=True),
    "max_cat_threshold": _Known(1, whole=True),
    "booster": _Known(choices=("gbtree", "dart", "gblinear")),
    "sample_type": _Known(choices=("uniform", "weighted")),
    "normalize_type": _Known(choices=("tree", "forest")),
    "rate_drop": _Known(0, 1),
    "skip_drop": _Known(0, 1),
}
#: Of these, what a linear booster has.
LINEAR = ("booster", "learning_rate", "reg_alpha", "reg_lambda")
ALIASES = {
    "eta": "learning_rate",
    "num_boost_round": "n_estimators",
    "alpha": "reg_alpha",
    "lambda": "reg_lambda",
    "min_split_loss": "gamma",
}


def check_space(space: SearchSpace, fixed: Iterable[str]) -> None:
    """Check a search space before anything is trained.

    Args:
        fixed: Names of what ``evaluator.params`` sets.

    Raises: UserError, naming each hyperparameter that XGBoost does not have, that leaves its range, or is set twice.
    """
    seen: dict[str, str] = {}
    problems = []
    for parameter in space.parameters:
        problems += _problems(parameter, "space")
        native = native_name(parameter.name)
        if native in seen:
            problems.append(f"space.{parameter.name}: this is another name of {seen[native]}; keep one of the two")
        seen[native] = parameter.name
    problems += [
        f"space.{seen[native_name(name)]}: evaluator.params sets {name} as well; keep one of the two"
        for name in fixed
        if native_name(name) in seen
    ]
    if problems:
        raise UserError("\n".join(problems))


def check_params(params: Mapping[str, Value]) -> None:
    """Raises: UserError, naming each wrong entry of ``evaluator.params``."""
    problems = [
        problem
        for name, value in params.items()
        for problem in _problems(Fixed(name=name, value=value), "evaluator.params")
    ]
    if problems:
        raise UserError("\n".join(problems))


def native_name(name: str) -> str:
    """The one of XGBoost's names for a hyperparameter that is used here."""
    return ALIASES.get(name, name)


def _problems(parameter: Parameter, place: str) -> list[str]:
    """What XGBoost would not take of a parameter."""
    where = f"{place}.{parameter.name}"
    name = native_name(parameter.name)
    if name not in KNOWN:
        close = difflib.get_close_matches(parameter.name, [*KNOWN, *ALIASES], n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(KNOWN)}"
        return [f"{where}: XGBoost's evaluator does not know this hyperparameter; {hint}"]
    known, problems = KNOWN[name], []
    for value in _extremes(parameter):
        if known.choices:
            if value not in known.choices:
                problems.append(f"{where}: {value!r} is not one of {', '.join(known.choices)}")
        elif isinstance(value, str | bool):
            problems.append(f"{where}: {value!r} is not a number")
        elif not known.low <= value <= known.high:
            bounds = f"{known.low:g} to {known.high:g}"
            problems.append(f"{where}: {value!r} is outside of what XGBoost takes, {bounds}")
        elif known.whole and (isinstance(parameter, Float) or value != int(value)):
            problems.append(f"{where}: XGBoost takes whole numbers here; use type int")
            break
    return problems


def _extremes(parameter: Parameter) -> tuple[Value, ...]:
    """Values that are in range only if all of the parameter's values are."""
    if isinstance(parameter, Float | Int):
        return (parameter.low, parameter.high)
    if isinstance(parameter, Categorical):
        return parameter.choices
    return (parameter.value,) if isinstance(parameter, Fixed) else (False, True)
