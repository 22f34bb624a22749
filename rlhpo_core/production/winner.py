"""The end of a study: its winner, refitted, scored on the holdout and registered, and its report."""

from __future__ import annotations

from rlhpo_core.evaluators.protocol import Evaluator
from rlhpo_core.production import registration
from rlhpo_core.storage.study_files import StudyFiles, Winner
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Trial


def crown(
    files: StudyFiles, spec: StudySpec, evaluator: Evaluator, tracker: StudyTracker, best: Trial
) -> Winner | None:
    """Refit the best trial, score it once on the holdout and register it; what was done before is not done again."""
    record = files.record()
    winner = record.winner if record.winner is not None and record.winner.trial_id == best.trial_id else None
    wanted = spec.registry.model
    if winner is not None and (wanted is None or winner.registered is not None):
        return winner
    refit = evaluator.refit(best.config)
    if refit is None:
        return None
    # The holdout's score is written down before MLflow is asked: it is to be taken once.
    winner = winner or Winner(trial_id=best.trial_id, holdout=dict(refit.metrics))
    files.write_record(files.record().model_copy(update={"winner": winner}))
    if wanted is None:
        tracker.log_metrics({f"holdout.{name}": value for name, value in winner.holdout.items()})
    else:
        registered = registration.register(tracker, wanted, refit, best, spec, files.address)
        winner = winner.model_copy(update={"registered": f"{registered.name} version {registered.version}"})
        files.write_record(files.record().model_copy(update={"winner": winner}))
    return winner
