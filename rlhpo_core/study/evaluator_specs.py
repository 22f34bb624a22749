"""What a study file says of its evaluator, one class per kind; ``evaluators.kinds`` has what carries it out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rlhpo_core.frozen import Frozen
from rlhpo_core.trial import Value


class _EvaluatorBase(Frozen, ABC):
    """What is known of a kind of evaluator without building one."""

    needs_table: ClassVar[bool] = False
    """Whether the study must have a table (``data``) and one of the built-in metrics as its objective."""
    step_name: ClassVar[str] = "step"
    """What the steps of a learning curve count, for the axis of a figure."""

    @abstractmethod
    def describe(self) -> str:
        """What is tuned, as a reader of a report knows it."""


class XGBoostSpec(_EvaluatorBase):
    """Train XGBoost on a table."""

    needs_table: ClassVar[bool] = True
    step_name: ClassVar[str] = "boosting round"

    kind: Literal["xgboost"]
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """k-fold cross-validation over train + validation instead of one split."""
    early_stopping_rounds: Annotated[int, Field(ge=1)] | None = None
    """Stop adding trees when the validation score has not improved for this many; off if not set."""
    report_every: Annotated[int, Field(ge=1)] | None = None
    """Report the validation score every this many trees (the learning curve; also where a trial may stop). If not set,
    every ten trees at first, then more seldom: 28 times in 400 trees, 43 times in 1,200."""
    params: dict[str, Value] = Field(default_factory=dict)
    """Further XGBoost parameters, the same in every trial."""

    def describe(self) -> str:
        """The library's name."""
        return "XGBoost"


class FunctionSpec(_EvaluatorBase):
    """Call ``module:function`` with a configuration; the module must be installed and allowed."""

    kind: Literal["function"]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the function as keyword arguments besides the configuration."""

    def describe(self) -> str:
        """The function, as ``module:function``."""
        return self.function


#: Any kind, told apart by ``kind``.
EvaluatorSpec = Annotated[XGBoostSpec | FunctionSpec, Field(discriminator="kind")]
