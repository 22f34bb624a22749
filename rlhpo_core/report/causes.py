"""Why trials have failed: what is said of a study without a success, light to import since no picture belongs to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rlhpo_core.trial import History, Trial, TrialStatus


def count_causes(trials: Iterable[Trial]) -> Counter[tuple[TrialStatus, str]]:
    """How many of the trials ended with which status and for which cause, the last line of the error."""
    return Counter((trial.status, trial.cause or "no reason given") for trial in trials)


def failure_report(history: History) -> str:
    """The five commonest causes, a line each, in a study in which no trial succeeded."""
    causes = count_causes(history.trials).most_common(5)
    lines = [f"  {count} × {cause}" for (_, cause), count in causes]
    return f"none of the {len(history)} trials succeeded:\n" + "\n".join(lines)
