"""What an evaluator is: something that scores a configuration and can train the winner once more.

``kinds`` lists what there is: a library that trains on a table (``xgboost``), a network that trains on images
(``cnn``), and a function of the user's own. Whoever wants to know what a kind can do asks its class, never its name.
``rlhpo_core.testing.evaluators`` has the tests that each of them passes.
An evaluator is built once in each worker process and called for many trials; it keeps nothing between calls that
changes a score, so a trial run again scores the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from rlhpo_core.data.schema import TableSchema
from rlhpo_core.frozen import Frozen
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import Config, FiniteFloat

if TYPE_CHECKING:
    import pandas as pd

    from rlhpo_core.data.labelled import Labelled


class StopTrial(Exception):  # noqa: N818  (a signal, not an error)
    """Raised by a reporter inside an evaluator: end this trial now; what was reported so far is kept.

    An evaluator lets it pass through, with whatever has to be cleaned up on the way. One that holds it back gains
    nothing: the next report raises it again, and what is returned after it is no score. An evaluator may raise it
    itself, to give up on a configuration.
    """


class Reporter(Protocol):
    """Receives intermediate values of the objective while a trial runs.

    It returns, and the training goes on, or it raises StopTrial. Nothing has to be asked and nothing handed back.
    Report as often as a stop is worth having (ten to a hundred times in a training), on the scale of the final value,
    with steps that ascend and mean the same in every trial (epochs, boosting rounds). Leave out the last step: the
    trial is over then anyway, and ``Evaluation.step`` ends its curve.

    Raises: StopTrial when the trial is to end (the user interrupted, or the study's rule says so).
    """

    def __call__(self, step: int, value: float) -> None: ...


class Infeasible(Exception):  # noqa: N818  (a property of the configuration, not an error)
    """Raised by an evaluator: the configuration describes nothing that could be trained, as its numbers alone tell.

    The message says why. The trial has then cost nothing, and has not failed.
    """


class Checkpoint(Protocol):
    """Where one trial keeps what it goes on from after it was killed. Whoever runs the trial clears it at its end."""

    def read(self) -> bytes | None:
        """What was written last, by whatever process; ``None`` if nothing was, or if it cannot be had."""
        ...

    def write(self, data: bytes) -> None:
        """Replace it in one step. If that is not possible, the trial goes on without."""
        ...

    def clear(self) -> None:
        """Remove it if there is one."""
        ...


class NoCheckpoint(Checkpoint):
    """Keeps nothing: the trial begins anew."""

    def read(self) -> None:
        """``None``."""
        return None

    def write(self, data: bytes) -> None:
        """Nothing happens."""

    def clear(self) -> None:
        """Nothing happens."""


#: For trials whose process nobody will start again.
NO_CHECKPOINT = NoCheckpoint()


@dataclass(frozen=True)
class Evaluation:
    """A finished trial: the objective in its own units, which may be NaN, and whatever else was measured."""

    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int | None = None
    """The step at which the value was reached: the last point of the curve, if it lies beyond what was reported."""


@dataclass(frozen=True)
class DataDescription:
    """Which data trials are scored on."""

    name: str
    source: Path
    digest: str
    """Of the content of all rows, at most 36 characters."""
    rows: Mapping[str, int]
    """Rows per part: ``train``, ``validation``, ``holdout``."""
    columns: Mapping[str, str]
    """Column name to pandas dtype, the target last."""
    schema: TableSchema
    """By which the data was read, with what was new in it."""
    notes: tuple[str, ...] = ()
    """What was recognised and converted at a first reading, for a person to read."""


@dataclass(frozen=True)
class Refit:
    """The winner, trained on train + validation and scored once on the holdout, ready to be logged as a model."""

    files: Mapping[str, bytes]
    """File name to content, in safe formats (UBJ, safetensors, JSON)."""
    serving: Path
    """A self-contained MLflow models-from-code script that loads ``files`` and predicts on raw rows of the data."""
    requirements: tuple[str, ...]
    """What the serving script imports, as pip requirements."""
    input_example: pd.DataFrame
    output_example: pd.DataFrame
    metrics: Mapping[str, float]
    """The usual metrics of the task on the holdout, and the objective."""
    constant: Mapping[str, float]
    """The same of the best answer that looks at no column: a model that is not better is worth nothing."""
    modules: tuple[Path, ...] = ()
    """Self-contained modules that training has used and the serving script loads; the model gets copies of them."""


class Baseline(Frozen):
    """What trials have to beat, on the rows that score them."""

    metric: str
    """The objective."""
    constant: FiniteFloat
    """The best score of an answer that looks at no column."""
    answer: str
    """That answer, for a person to read: ``always 'no'``."""
    defaults: FiniteFloat
    """The score of the library's own defaults."""
    library: str

    @property
    def text(self) -> str:
        """One line for a person."""
        return (
            f"{self.library} as it comes: {self.metric} {self.defaults:.4g} on the validation rows, where "
            f"{self.answer} scores {self.constant:.4g}"
        )


class Evaluator(Protocol):
    """Scores configurations of one study."""

    has_model: ClassVar[bool]
    """Whether ``refit`` trains a model that can be registered, and compared with an earlier one on the same data."""

    @staticmethod
    def read(spec: StudySpec, schema: TableSchema | None = None) -> Labelled | None:
        """The study's data alone, without a check of anything else; ``None`` if only the user's own code knows it.

        Args:
            schema: By which it is read; ``None`` to infer it.

        Raises: UserError if it cannot be used.
        """
        ...

    @staticmethod
    def defaults(spec: StudySpec) -> Config:
        """The configuration of the study's space that is closest to what is taken where nobody tunes.

        Most studies are there to beat it, so one that knows nothing tries it first. ``SearchSpace.nearest`` makes it
        from the values of a library or of a publication, and needs none of them.
        """
        ...

    @staticmethod
    def canonical(config: Config) -> Config:
        """The one configuration that stands for all that train the same model; the given one, unless a kind knows.

        It may lie outside of a study's space. What is learnt from many studies is learnt of these.
        """
        return config

    def __init__(self, spec: StudySpec, threads: int, schema: TableSchema | None = None) -> None:
        """Load the data and check the settings.

        Args:
            threads: At most so many are used by one training run.
            schema: By which the table is read; ``None`` to infer it.

        Raises: UserError if data, settings or function cannot be used.
        """
        ...

    def check_space(self, space: SearchSpace) -> None:
        """Raises: UserError, naming each parameter that this evaluator does not know or that has a wrong kind."""
        ...

    @staticmethod
    def check_unread(spec: StudySpec) -> None:
        """What can be said of a study's space and settings without its data: nothing, unless a kind says otherwise.

        Raises: UserError as ``check_space`` does.
        """

    def data(self) -> DataDescription | None:
        """The data behind the scores; ``None`` if only the user's own code knows it."""
        ...

    def evaluate(self, config: Config, report: Reporter, checkpoint: Checkpoint = NO_CHECKPOINT) -> Evaluation:
        """Train and score one configuration. What else is raised makes the trial fail, with its text.

        Args:
            config: Hyperparameter to value; those that are inactive under their conditions are left out.
            report: Takes intermediate values of the objective; the StopTrial that it may raise has to pass through.
            checkpoint: For what the trial goes on from if its process is killed. A trial that went on reports all its
                values, those of the first process too, and scores as if it had not been killed.

        Raises: StopTrial as ``report`` does; Infeasible, before any work, if there is nothing that could be trained.
        """
        ...

    def last_step(self, config: Config) -> int | None:
        """The step at which a training of this configuration ends at the latest; ``None`` if nothing tells it before.

        A rule that stops trials early expects less of a short training than of a long one.
        """
        return None

    def baseline(self) -> Baseline | None:
        """What trials have to beat; ``None`` if this kind of evaluator knows no defaults. Trains once."""
        return None

    def refit(self, config: Config) -> Refit | None:
        """Train the winner on all but the holdout; ``None`` if this kind of evaluator cannot."""
        ...
