"""The kinds of hyperparameters, each with its conversions: code ⇄ action ⇄ value, and code ⇄ features.

A *code* is how a value is computed with: the number itself, or the index of the choice. An *action* is what the agent
puts out: a number in [-1, 1]. *Features* are what the reward model sees: numbers scaled to [0, 1], choices one-hot.

Conversions are exact on a grid: integers, choices, and floats rounded to a millionth of their range (or to seven
significant digits on a log scale). Actions and features decode to that grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from rlhpo_core.arrays import Floats
from rlhpo_core.frozen import Frozen
from rlhpo_core.trial import FiniteFloat, Value

_SIGNIFICANT_DIGITS = 7
_LINEAR_DIGITS = 6
#: Limits within which the grid survives the rounding of doubles. The width is relative to the range's larger end.
_LARGEST, _SMALLEST, _LEAST_WIDTH = 1e12, 1e-100, 1e-9
#: How far steps may miss a value, as a share of a step: 0.1 is no number of doubles.
_STEP_SLACK = 1e-6


class _Parameter(Frozen):
    name: Annotated[str, Field(min_length=1)]
    when: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    """Active only if every parent named here is active and has one of the values."""

    @field_validator("when", mode="before")
    @classmethod
    def _wrap_single_values(cls, when: Any) -> Any:
        if not isinstance(when, dict):
            return when
        return {parent: allowed if isinstance(allowed, list | tuple) else [allowed] for parent, allowed in when.items()}


class _Range(_Parameter):
    low: FiniteFloat
    high: FiniteFloat
    log: bool = False
    step: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """Only low, low + step, low + 2 · step, … up to high; all of the range if not set."""

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"empty range: low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale needs low above 0, not {self.low}")
        if max(abs(self.low), abs(self.high)) > _LARGEST:
            raise ValueError(f"numbers beyond {_LARGEST:g} are not supported; write the hyperparameter in another unit")
        if self.step is not None:
            self._check_step(self.step)
        return self

    def _check_step(self, step: float) -> None:
        if self.log:
            raise ValueError(
                "step and log: true do not go together; leave one of them out, or list the values as choices"
            )
        count = (self.high - self.low) / step
        if abs(count - round(count)) > _STEP_SLACK * max(1.0, count) or round(count) < 1:
            reach = self.low + max(1, math.floor(count + _STEP_SLACK)) * step
            raise ValueError(
                f"steps of {step:g} from low ({self.low:g}) do not meet high ({self.high:g}); write for example "
                f"high: {type(self.high)(f'{reach:.12g}')}"
            )

    def _on_grid(self, values: Floats) -> Floats:
        """Of values (B,), the nearest of low, low + step, …"""
        assert self.step is not None
        return self.low + np.rint((values - self.low) / self.step) * self.step

    def _check_on_grid(self, value: float) -> None:
        """Raises: ValueError if the value lies between two steps."""
        if self.step is not None and abs(value - float(self._on_grid(np.array([value]))[0])) > _STEP_SLACK * self.step:
            raise ValueError(f"{self.name}: {value!r} is not reached from {self.low:g} in steps of {self.step:g}")

    def _interpolate(self, actions: Floats) -> Floats:
        """Values (B,) at the positions of actions (B,)."""
        share = (actions + 1) / 2
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return np.asarray(np.exp(low + share * (high - low)), dtype=np.float64)
        return self.low + share * (self.high - self.low)

    def _share(self, values: Floats) -> Floats:
        """Positions (B,) of values (B,) in the range, 0 at low and 1 at high."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return np.asarray((np.log(values) - low) / (high - low), dtype=np.float64)
        return (values - self.low) / (self.high - self.low)

    def codes(self, actions: Floats) -> Floats:
        """Codes (B,) of actions (B,): the values on the grid that lie nearest."""
        return np.clip(self._rounded(self._interpolate(actions)), self.low, self.high)

    def _rounded(self, values: Floats) -> Floats:
        return np.rint(values)

    def nearest(self, value: Value | None) -> float:
        """The code of the value on the grid that is closest to a number; the middle's if it is not a number."""
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return float(self.codes(np.zeros(1))[0])
        within = min(max(float(value), self.low), self.high)
        return float(np.clip(self._rounded(np.array([within])), self.low, self.high)[0])

    def actions(self, codes: Floats) -> Floats:
        """Actions (B,), in [-1, 1], of codes (B,)."""
        return 2 * self._share(codes) - 1

    def features(self, codes: Floats) -> Floats:
        """Features (B, 1), in [0, 1], of codes (B,)."""
        return self._share(codes)[:, None]

    def codes_of_features(self, features: Floats) -> Floats:
        """Codes (B,) of features (B, ≥ 1), of which the first column counts."""
        return self.codes(2 * features[:, 0] - 1)


class Float(_Range):
    """A real number in a range, both ends included; its code is the number."""

    type: Literal["float"] = "float"

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        width, largest = self.high - self.low, max(abs(self.low), abs(self.high))
        if width < _LEAST_WIDTH * largest or width < _SMALLEST or (self.log and self.low < _SMALLEST):
            raise ValueError(f"the range from {self.low} to {self.high} is too narrow; write it in another unit")
        return self

    def _rounded(self, values: Floats) -> Floats:
        if self.step is not None:
            values = self._on_grid(values)
        if not self.log:
            digits = _LINEAR_DIGITS - math.floor(math.log10(self.high - self.low))
            power = 10.0 ** abs(digits)
            return np.asarray(np.rint(values * power) / power if digits >= 0 else np.rint(values / power) * power)
        decimals = _SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(values))
        scale = 10.0 ** np.abs(decimals)
        # Dividing by a power of ten ≥ 1 is correctly rounded, so equal decimals give equal bits.
        rounded = np.where(decimals >= 0, np.rint(values * scale) / scale, np.rint(values / scale) * scale)
        return np.asarray(rounded, dtype=np.float64)

    def value(self, code: float) -> Value:
        """The number itself."""
        return float(code)

    def code(self, value: Value) -> float:
        """The number itself. Raises: ValueError if the value is not a number in the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise ValueError(f"{self.name}: {value!r} is not a number in [{self.low}, {self.high}]")
        self._check_on_grid(value)
        return float(value)


class Int(_Range):
    """A whole number in a range, both ends included; its code is the number."""

    type: Literal["int"] = "int"
    low: int
    high: int
    step: Annotated[int, Field(ge=1)] | None = None

    def _rounded(self, values: Floats) -> Floats:
        return np.rint(values) if self.step is None else self._on_grid(values)

    def value(self, code: float) -> Value:
        """The number as an ``int``."""
        return int(code)

    def code(self, value: Value) -> float:
        """The number as a ``float``. Raises: ValueError if the value is not a whole number in the range."""
        # JSON and KFP may turn 3 into 3.0 on the way.
        if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
            raise ValueError(f"{self.name}: {value!r} is not an integer")
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name}: {value!r} is not in [{self.low}, {self.high}]")
        self._check_on_grid(value)
        return float(value)


class _Choice(_Parameter):
    @property
    def values(self) -> tuple[Value, ...]:
        """The choices, in the order of their codes. Raises: TypeError in a kind that does not define them."""
        raise TypeError(f"{type(self).__name__} has no choices")

    def codes(self, actions: Floats) -> Floats:
        """Codes (B,) of actions (B,): [-1, 1] is cut into equally wide bins, one per choice."""
        count = len(self.values)
        return np.clip(np.floor((actions + 1) / 2 * count), 0, count - 1)

    def nearest(self, value: Value | None) -> float:
        """The code of a choice; that of the one in the middle if the value is none of them."""
        codes = (float(code) for code, choice in enumerate(self.values) if value is not None and same(choice, value))
        return next(codes, float(self.codes(np.zeros(1))[0]))

    def actions(self, codes: Floats) -> Floats:
        """Actions (B,) of codes (B,): the middle of each choice's bin."""
        return 2 * (codes + 0.5) / len(self.values) - 1

    def features(self, codes: Floats) -> Floats:
        """Features (B, number of choices) of codes (B,): one-hot."""
        return np.asarray(codes[:, None] == np.arange(len(self.values)), dtype=np.float64)

    def codes_of_features(self, features: Floats) -> Floats:
        """Codes (B,) of features (B, number of choices): the index of the largest."""
        return np.asarray(np.argmax(features, axis=1), dtype=np.float64)

    def value(self, code: float) -> Value:
        """The choice with this index."""
        return self.values[int(code)]

    def code(self, value: Value) -> float:
        """The index of the choice. Raises: ValueError if the value is not one of the choices."""
        for index, choice in enumerate(self.values):
            if same(choice, value):
                return float(index)
        raise ValueError(f"{self.name}: {value!r} is not one of {list(self.values)}")


class Categorical(_Choice):
    """One of several choices without an order; its code is the choice's index."""

    type: Literal["categorical"] = "categorical"
    choices: Annotated[tuple[Value, ...], Field(min_length=1)]

    @field_validator("choices")
    @classmethod
    def _no_choice_twice(cls, choices: tuple[Value, ...]) -> tuple[Value, ...]:
        for index, choice in enumerate(choices):
            if any(same(choice, other) for other in choices[:index]):
                raise ValueError(f"{choice!r} is given twice")
        return choices

    @property
    def values(self) -> tuple[Value, ...]:
        """The choices, in the order of their codes."""
        return self.choices


class Bool(_Choice):
    """False or true, with the codes 0 and 1."""

    type: Literal["bool"] = "bool"

    @property
    def values(self) -> tuple[Value, ...]:
        """False and true."""
        return (False, True)


class Fixed(_Parameter):
    """A constant: not tuned, and passed to every trial in which its conditions hold."""

    type: Literal["fixed"] = "fixed"
    value: Value


Tunable = Float | Int | Categorical | Bool
Parameter = Annotated[Float | Int | Categorical | Bool | Fixed, Field(discriminator="type")]


def same(a: Value, b: Value) -> bool:
    """Equality that tells True from 1 but not 1 from 1.0; of lists, plain equality."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def possible(parameter: Tunable | Fixed, allowed: Iterable[Value]) -> list[Value]:
    """Those of the allowed values that the parameter can have."""
    if isinstance(parameter, Fixed):
        return [value for value in allowed if same(parameter.value, value)]
    values = []
    for value in allowed:
        try:
            parameter.code(value)
        except ValueError:
            continue
        values.append(value)
    return values


def describe_domain(parameter: Tunable | Fixed) -> str:
    """What the parameter can be, in words for a message."""
    if isinstance(parameter, Fixed):
        return f"fixed at {parameter.value!r}"
    if isinstance(parameter, Categorical | Bool):
        return f"one of {list(parameter.values)}"
    steps = "" if parameter.step is None else f" in steps of {parameter.step:g}"
    return f"{parameter.type} in [{parameter.low}, {parameter.high}]{steps}"
