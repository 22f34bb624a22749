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

    def described(self) -> str:
        """How many, and the time with how it was estimated, for a person to read."""
        trials = f"{self.stopped} trial{'s' if self.stopped > 1 else ''} stopped early"
        if self.seconds is None:
            return trials
        each = "had each taken" if self.stopped > 1 else "had it taken"
        usual = f"{self.compared} complete ones on average" if self.compared > 1 else "complete one"
        return f"{trials}; saved about {duration(self.seconds)}, {each} as long as the {usual}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, for a person to read."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
