"""A listener of the runner that writes a study to MLflow as it happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from rlhpo_core.errors import UserError
from rlhpo_core.tracking.tracker import StudyTracker, WithCurve
from rlhpo_core.trial import History, Proposal, RoundSummary, Trial

#: Seconds between attempts to reach a server that is away.
PROBE_EVERY = 15.0
#: Seconds in which the study's own curves are written once within a round, however many trials end: that takes about as
#: long as to write a trial.
POINTS_EVERY = 5.0


class TrackingListener:
    """Keeps MLflow up to date while a study runs, and lets the study go on while MLflow is down.

    A lost connection is reported once. From then on it is tried again every 15 seconds at most and at the end of each
    round, and all that was missed is written when it is back.

    Args:
        tracker: of the study, opened
        history: the trials that are finished already
        summaries: of the rounds that are finished already
        warn: shows a message to the user
        with_curve: gives a trial its curve, from the study's files: in memory, all of them may be too much
        probe_every: seconds between attempts to reach a server that is away
    """

    def __init__(
        self,
        tracker: StudyTracker,
        history: History,
        summaries: Sequence[RoundSummary],
        warn: Callable[[str], None],
        with_curve: WithCurve,
        probe_every: float = PROBE_EVERY,
    ) -> None:
        self.tracker = tracker
        self.warn = warn
        self.probe_every = probe_every
        self.with_curve = with_curve
        self.pending = True
        """Whether something is left to write."""
        self._trials = {trial.trial_id: trial.without_curve() for trial in history.trials}
        self._summaries = {summary.round: summary for summary in summaries}
        self._behind = dict(self._trials)
        """Those of which it is not known that they are written."""
        self._points_at = -math.inf
        """When the study's own curves were last written, by the monotonic clock."""
        self._offline_since: float | None = None
        self._probed = -math.inf

    def round_started(self, proposals: Sequence[Proposal]) -> None:
        """Nothing to log yet."""

    def trial_progressed(self, proposal: Proposal, step: int, value: float) -> None:
        """Curves are logged with the trial's end: a trial that is run again leaves no half of one."""

    def trial_finished(self, trial: Trial) -> None:
        """Log the trial, and whatever is still missing; the study's own curves every few seconds."""
        self._trials[trial.trial_id] = self._behind[trial.trial_id] = trial.without_curve()
        self._catch_up(now=False)

    def round_finished(self, summary: RoundSummary) -> None:
        """Log the round, and whatever is still missing, even if the last attempt failed a moment ago."""
        self._summaries[summary.round] = summary
        self._catch_up(now=True)

    def flush(self) -> bool:
        """One more attempt, and a look at what MLflow holds; true if everything has arrived."""
        self._catch_up(now=True)
        missing = ""
        if not self.pending:
            try:
                missing = ", ".join(self.tracker.complete(*self._known(), self.with_curve))
            except UserError as error:
                missing = str(error)
            self.pending = bool(missing)
        if self.pending:
            self.warn(
                f"Not everything is in MLflow{f' ({missing})' if missing else ''}. The study's folder has it all: "
                "`rlhpo resume` will log the rest."
            )
        return not self.pending

    def _known(self) -> tuple[History, list[RoundSummary]]:
        return self._history(self._trials), [self._summaries[round_] for round_ in sorted(self._summaries)]

    def _history(self, trials: Mapping[str, Trial]) -> History:
        return History(direction=self.tracker.spec.objective.direction).extended(list(trials.values()))

    def _catch_up(self, now: bool) -> None:
        self.pending = True
        if self._offline_since is not None and not now and time.monotonic() - self._probed < self.probe_every:
            return
        points = now or time.monotonic() - self._points_at >= POINTS_EVERY
        try:
            known = self._known() if points else (self._history(self._behind), [])
            count = self.tracker.sync(*known, self.with_curve, points)
        except UserError as error:
            self._probed = time.monotonic()
            if self._offline_since is None:
                self._offline_since = self._probed
                self.warn(f"{error}\nTuning goes on; the rest is logged when MLflow is back, or by `rlhpo resume`.")
            return
        self._behind.clear()
        self.pending = not points
        if points:
            self._points_at = time.monotonic()
        if self._offline_since is not None:
            minutes = (time.monotonic() - self._offline_since) / 60
            self._offline_since = None
            self.warn(f"MLflow is back after {minutes:.1f} minutes; {count} trials were logged now.")
