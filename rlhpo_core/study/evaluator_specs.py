"""What a study file says of its evaluator, one class per kind; ``evaluators.kinds`` has what carries it out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rlhpo_core.frozen import Frozen
from rlhpo_core.trial import Scalar, Value

DataKind = Literal["table", "images"]


class _EvaluatorBase(Frozen, ABC):
    """What is known of a kind of evaluator without building one."""

    reads: ClassVar[DataKind | None] = None
    """What the study's ``data`` must be, which it then must have, with a built-in metric as its objective; ``None`` if
    it needs none."""
    has_model: ClassVar[bool] = True
    """Whether there is a model at its end, which could be registered."""
    template: ClassVar[str] = ""
    """What ``rlhpo init`` writes for data of this kind: ``evaluator`` and ``space`` in YAML, with comments."""
    step_name: ClassVar[str] = "step"
    """What the steps of a learning curve count, for the axis of a figure."""

    @abstractmethod
    def describe(self) -> str:
        """What is tuned, as a reader of a report knows it."""


class XGBoostSpec(_EvaluatorBase):
    """Train XGBoost on a table."""

    reads: ClassVar[DataKind | None] = "table"
    step_name: ClassVar[str] = "boosting round"
    template: ClassVar[str] = """\
evaluator:
  kind: xgboost
  # folds: 5               # cross-validation instead of one validation part
  # early_stopping_rounds: 50

# Ten hyperparameters of XGBoost in the ranges of Wu, Chen, Liu (2020), table 1. Narrow, widen or take out what you
# like; `log: true` searches by orders of magnitude.
space:
  max_depth: {type: int, low: 1, high: 25}
  learning_rate: {type: float, low: 0.001, high: 0.1}
  n_estimators: {type: int, low: 50, high: 1200}
  gamma: {type: float, low: 0.05, high: 0.9}
  min_child_weight: {type: int, low: 1, high: 9}
  subsample: {type: float, low: 0.5, high: 1.0}
  colsample_bytree: {type: float, low: 0.5, high: 1.0}
  colsample_bylevel: {type: float, low: 0.5, high: 1.0}
  reg_alpha: {type: float, low: 0.1, high: 0.9}
  reg_lambda: {type: float, low: 0.01, high: 0.1}
"""

    kind: Literal["xgboost"]
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """k-fold cross-validation over train + validation instead of one split."""
    early_stopping_rounds: Annotated[int, Field(ge=1)] | None = None
    """Stop adding trees when the validation score has not improved for this many; off if not set."""
    report_every: Annotated[int, Field(ge=1)] | None = None
    """Report the validation score every this many trees (the learning curve; also where a trial may stop). If not set,
    every ten trees at first, then more seldom: 28 times in 400 trees, 43 times in 1,200."""
    params: dict[str, Scalar] = Field(default_factory=dict)
    """Further XGBoost parameters, the same in every trial."""

    def describe(self) -> str:
        """The library's name."""
        return "XGBoost"


class CNNSpec(_EvaluatorBase):
    """Train a convolutional network: two convolutions, each with a pooling, and two fully connected layers."""

    reads: ClassVar[DataKind | None] = "images"
    step_name: ClassVar[str] = "epoch"
    template: ClassVar[str] = """\
evaluator:
  kind: cnn
  epochs: 10               # passes over the training images; a trial's score is that of its best epoch

# Sixteen hyperparameters of a convolutional network in the ranges of Wu, Chen, Liu (2020), table 1. Narrow, widen or
# take out what you like; `log: true` searches by orders of magnitude.
space:
  batch_size: {type: int, low: 24, high: 128}
  learning_rate: {type: float, low: 0.001, high: 0.05}
  conv1_stride: {type: int, low: 1, high: 5}
  conv1_kernel: {type: int, low: 2, high: 5}
  conv1_channels: {type: int, low: 24, high: 128}
  pool1_kernel: {type: int, low: 2, high: 5}
  pool1_stride: {type: int, low: 1, high: 5}
  pool1_type: {type: categorical, choices: [max, average]}
  conv2_stride: {type: int, low: 1, high: 5}
  conv2_kernel: {type: int, low: 2, high: 5}
  conv2_channels: {type: int, low: 24, high: 128}
  pool2_kernel: {type: int, low: 2, high: 5}
  pool2_stride: {type: int, low: 1, high: 5}
  pool2_type: {type: categorical, choices: [max, average]}
  fc1_nodes: {type: int, low: 128, high: 1100}
  fc2_nodes: {type: int, low: 128, high: 1100}
"""

    kind: Literal["cnn"]
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Passes over the training images; the score of a trial is that of its best epoch."""
    padding: Literal["half", "none"] = "half"
    """``half``: convolutions and poolings see half their kernel's width beyond the border, so that no image gets too
    small for them. With ``none`` many strides and kernels are infeasible."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Stochastic gradient descent with momentum, or Adam."""
    checkpoint_mb: Annotated[int, Field(ge=0)] = 512
    """A trial whose checkpoint would take more megabytes has none, and begins anew after it was killed; 0: none has."""
    params: dict[str, Scalar] = Field(default_factory=dict)
    """Further hyperparameters, the same in every trial."""

    def describe(self) -> str:
        """What is trained."""
        return "a convolutional network"


class FunctionSpec(_EvaluatorBase):
    """Call ``module:function`` with a configuration; the module must be installed and allowed."""

    has_model: ClassVar[bool] = False

    kind: Literal["function"]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the function as keyword arguments besides the configuration."""
    defaults: dict[str, Value] = Field(default_factory=dict)
    """What is usually taken for some of the hyperparameters: a study that knows nothing tries that first."""

    def describe(self) -> str:
        """The function, as ``module:function``."""
        return self.function


#: Any kind, told apart by ``kind``.
EvaluatorSpec = Annotated[XGBoostSpec | CNNSpec | FunctionSpec, Field(discriminator="kind")]
#: All kinds.
SPEC_CLASSES: tuple[type[XGBoostSpec | CNNSpec | FunctionSpec], ...] = (XGBoostSpec, CNNSpec, FunctionSpec)


def template_for(data: DataKind) -> str:
    """What ``rlhpo init`` writes of the evaluator: that of the first kind that reads such data."""
    return next(spec.template for spec in SPEC_CLASSES if spec.reads == data)
