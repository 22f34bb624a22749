"""How a study begins: its first state, from nothing, from a prior, or from an earlier study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.kinds import evaluator_class
from rlhpo_core.evaluators.protocol import Baseline, Evaluator
from rlhpo_core.priors.store import builtin_names, find_prior, load_prior
from rlhpo_core.storage.object_store import FolderStore, open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.cluster_settings import in_bytes
from rlhpo_core.study.spec import CLASSIFICATION_METRICS, METRICS, REGRESSION_METRICS, StudySpec, WarmStartSpec
from rlhpo_core.trial import POD_MEMORY, Inherited
from rlhpo_core.tuner import prior_mapping
from rlhpo_core.tuner.prior import Prior
from rlhpo_core.tuner.state import TunerState, initial_state
from rlhpo_core.tuner.warm_start import warm_state

# MLflow is slow to import, and few priors are registered there.
if TYPE_CHECKING:
    from rlhpo_core.tracking.connection import Connection

#: Metric to that by whose name the built-in priors end that serve it.
_SERVED_BY = {
    **{"accuracy": "accuracy", "balanced_accuracy": "accuracy", "f1": "accuracy"},
    **{"log_loss": "log-loss", "auc": "auc", "average_precision": "auc"},
    **dict.fromkeys(REGRESSION_METRICS, "r2"),
}
#: Its hyperparameters are those of another algorithm, which is more common.
_TOLD_BY_NOTHING = "extra-trees-"


def begin_study(files: StudyFiles, spec: StudySpec) -> TunerState:
    """The state of a study that has begun; of one that has not, its first, which is saved at once.

    From then on the state has all that the study begins with: an alias, or a file, may stand for another prior later,
    and so may ``auto`` after an upgrade.

    Args:
        files: They have the study's identity already.

    Raises: UserError if the study that ``warm_start`` names, or the prior, is not there or does not fit.
    """
    if (begun := files.state_or_none()) is not None:
        return begun
    # Of several processes that begin one study at once, all go on from what the first has written.
    return files.write_state(_first_state(files, spec))


def baseline_of(files: StudyFiles, evaluator: Evaluator, begun: TunerState) -> Baseline | None:
    """What trials have to beat: measured before the first round, and in the study's record from then on.

    Args:
        begun: The study's state; one that has learnt from a round goes on with what it knows.

    Returns: ``None`` if the evaluator knows none.
    """
    record = files.record()
    if record.baseline is not None or begun.round > 0:
        return record.baseline
    measured = evaluator.baseline()
    if measured is not None:
        files.write_record(record.model_copy(update={"baseline": measured}))
    return measured


def _first_state(files: StudyFiles, spec: StudySpec) -> TunerState:
    study_id, prior = files.record().study_id, prior_of(spec, _local_mlflow(files))
    earlier = spec.warm_start
    if earlier is not None and earlier.study is not None:
        return _from_earlier_study(earlier.study, earlier, study_id, spec, prior)
    defaults = evaluator_class(spec.evaluator.kind).defaults(spec)
    start = initial_state(study_id, spec.seed, spec.space, spec.objective.direction, spec.tuner, prior, defaults)
    return start if earlier is None else replace(start, inherited=Inherited(source="", first=earlier.first))


def _from_earlier_study(
    address: str, wanted: WarmStartSpec, study_id: str, spec: StudySpec, prior: Prior | None
) -> TunerState:
    earlier = StudyFiles(open_store(address))
    metric = earlier.spec().objective.metric
    if metric != spec.objective.metric:
        raise UserError(f"warm_start: the study at {address} has the objective {metric}; scores do not mix")
    state = _without_lifted(earlier.state(), round(in_bytes(spec.cluster.trial_memory) / 1e6))
    return warm_state(
        state, study_id, spec.seed, spec.space, spec.objective.direction, spec.tuner,
        wanted.moved, wanted.first, prior,
    )  # fmt: skip


def _without_lifted(state: TunerState, memory: float) -> TunerState:
    """The earlier study without trials that died of a memory limit below the new one, in MB: they may do well now."""
    trials = tuple(trial for trial in state.history.trials if trial.metrics.get(POD_MEMORY, memory) >= memory)
    return replace(state, history=state.history.model_copy(update={"trials": trials}))


def prior_of(spec: StudySpec, local_mlflow: Path) -> Prior | None:
    """The prior that a study starts from, if any.

    Args:
        local_mlflow: The folder in which a local MLflow store would lie, if the prior is a registered one.

    Raises: UserError if it cannot be read.
    """
    if spec.prior == "none" or spec.tuner.mode == "random":
        return None
    if spec.prior != "auto":
        return find_prior(spec.prior, lambda: _connection(spec, local_mlflow))
    if spec.tuner.profile == "paper" or spec.tuner.mode != "mbrl_sdp":
        return None
    return _shipped(spec)


def _shipped(spec: StudySpec) -> Prior | None:
    """The prior that comes with rlhpo for what the study tunes, whatever evaluator trains it, if there is one.

    The names of hyperparameters tell which algorithm it is: the study has those of the prior and tunes no other. Of
    XGBoost's own evaluator it is known, and others may be tuned.
    """
    served = _SERVED_BY.get(spec.objective.metric, "")
    names = [name for name in builtin_names() if name.endswith(f"-{served}")]
    own = [name for name in names if name.startswith(f"{spec.evaluator.kind}-")]
    tuned = {step.name for step in spec.space.steps}
    for name in own or sorted(names, key=lambda name: name.startswith(_TOLD_BY_NOTHING)):
        prior = load_prior(name)
        alike = own or tuned <= {step.name for step in prior.space.steps}
        if alike and prior_mapping.fits(prior, spec.space):
            return prior
    return None


def _connection(spec: StudySpec, local_mlflow: Path) -> Connection:
    from rlhpo_core.tracking.connection import Connection

    return Connection.of(spec.tracking, local_mlflow)


def objective_remark(prior: Prior, spec: StudySpec) -> str | None:
    """What is to be said of a prior that was learnt from studies with another goal; ``None`` if nothing is.

    Only of a prior that the study names: ``auto`` takes none of another kind of task.
    """
    learnt, wanted = prior.card.objective, spec.objective.metric
    if spec.prior == "auto" or learnt not in METRICS or learnt == wanted:
        return None
    other = (learnt in CLASSIFICATION_METRICS) != (wanted in CLASSIFICATION_METRICS) and wanted in METRICS
    task = "regression" if learnt not in CLASSIFICATION_METRICS else "classification"
    of = f", that is {task}," if other else ""
    return (
        f"prior: {prior.card.name} was learnt from studies judged by {learnt}{of} and this one is judged by {wanted}; "
        "what it expects may mislead at first (`prior: none` leaves it out)"
    )


def _local_mlflow(files: StudyFiles) -> Path:
    """The folder above the study's, whose studies share one local store."""
    return files.store.root.resolve().parent if isinstance(files.store, FolderStore) else Path.cwd()
