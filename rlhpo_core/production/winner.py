"""The end of a study: its winner, refitted, scored on the holdout and registered."""

from __future__ import annotations

from rlhpo_core.evaluators.protocol import Evaluator, Refit
from rlhpo_core.storage.study_files import StudyFiles, Winner
from rlhpo_core.study.spec import ObjectiveSpec, StudySpec
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Trial, sign


def register_winner(
    files: StudyFiles, spec: StudySpec, evaluator: Evaluator, tracker: StudyTracker, best: Trial
) -> Winner | None:
    """Refit the best trial, score it once on the holdout, and register it if the study names a model.

    May be repeated: what was done before is not done again.

    Args:
        best: The trial whose configuration wins.

    Returns: ``None`` if this kind of evaluator has no model to refit. A winner with a ``warning`` is not registered,
    unless the study says that it may be.

    Raises: UserError if MLflow cannot be reached or refuses, or if the model predicts otherwise when served.
    """
    record = files.record()
    winner = record.winner if record.winner is not None and record.winner.trial_id == best.trial_id else None
    if winner is not None and (winner.registered is not None or not _may_be_registered(winner, spec)):
        return winner
    refit = evaluator.refit(best.config)
    if refit is None:
        return None
    # The holdout's score is written down before MLflow is asked: it is to be taken once.
    winner = winner or Winner(
        trial_id=best.trial_id, holdout=dict(refit.metrics), warning=_warning(refit, spec.objective)
    )
    files.write_record(files.record().model_copy(update={"winner": winner}))
    model = spec.registry.model
    if winner.warning is not None:
        tracker.tag({"rlhpo.warning": winner.warning})
    if model is None or not _may_be_registered(winner, spec):
        tracker.log_metrics({f"holdout.{name}": value for name, value in winner.holdout.items()})
    else:
        from rlhpo_core.production import registration

        version = registration.register(tracker, model, refit, best, spec, files.address)
        winner = winner.model_copy(update={"registered": f"{version.name} version {version.version}"})
        files.write_record(files.record().model_copy(update={"winner": winner}))
    return winner


def _may_be_registered(winner: Winner, spec: StudySpec) -> bool:
    return spec.registry.model is not None and (winner.warning is None or not spec.registry.must_beat_constant)


def _warning(refit: Refit, objective: ObjectiveSpec) -> str | None:
    """What a person has to know of a winner that has learnt nothing; ``None`` if it has learnt something."""
    score, constant = refit.metrics[objective.metric], refit.constant[objective.metric]
    # A constant model may be ahead by what float32 rounds. Of scores the best is 1; errors have the target's unit.
    least = 1e-6 * (1 if objective.direction == "maximize" else abs(constant))
    if sign(objective.direction) * (score - constant) > least:
        return None
    return (
        f"the winner is of no use: its {objective.metric} on the holdout is {score:.6g}, and answering every row "
        f"alike, without a look at any column, gives {constant:.6g}"
    )
