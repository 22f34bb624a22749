"""The time that stopped trials have saved, as an estimate."""

from __future__ import annotations

from dataclasses import dataclass

from rlhpo_core.trial import History, TrialStatus


@dataclass(frozen=True)
class Saved:
    """How many trials were stopped early, and the training time that this has saved."""

    stopped: int
    seconds: float | None
    """Had each stopped trial taken as long as the complete ones on average; ``None`` if there is none to compare with.

    Trials differ in length, and those that are stopped may be others than those that are not: an estimate.
    """
    compared: int
    """How many complete trials that is the average of."""

    @classmethod
    def of(cls, history: History) -> Saved | None:
        """That of a study's trials; ``None`` if none was stopped."""
        stopped = [trial.seconds for trial in history.trials if trial.status is TrialStatus.PRUNED]
        complete = [trial.seconds for trial in history.complete()]
        if not stopped:
            return None
        usual = sum(complete) / len(complete) if complete else None
        seconds = None if usual is None else max(0.0, sum(usual - took for took in stopped))
        return cls(len(stopped), seconds, len(complete))
