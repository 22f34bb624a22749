"""The live display of a study: best so far, trials left, time left, and what is running."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, Proposal, RoundSummary, Trial, TrialStatus

_MARKS = {
    TrialStatus.COMPLETE: ("✓", "green"),
    TrialStatus.PRUNED: ("◐", "yellow"),
    TrialStatus.FAILED: ("✗", "red"),
    TrialStatus.INFEASIBLE: ("∅", "red"),
}
#: Running trials that are shown at most.
_MOST_RUNNING = 8
#: Time left follows from the pace of this many latest trials.
_PACE_OF = 50


class LiveProgress:
    """A Listener that draws on a terminal, or prints a line per trial where there is none (logs, CI)."""

    def __init__(self, console: Console, spec: StudySpec, history: History) -> None:
        self.console = console
        self.spec = spec
        self.trials = {trial.proposal.number: trial.without_curve() for trial in history.trials}
        self.running: dict[int, float] = {}
        """Trials that have reported, by number, with their latest value."""
        self.phase = Text()
        self.ends = deque([time.monotonic()], maxlen=_PACE_OF)
        self.bar = Progress(
            TextColumn("trials"), BarColumn(bar_width=40), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self.task = self.bar.add_task("trials", total=spec.budget.trials, completed=len(self.trials))
        self.live = Live(self._draw(), console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.running = {}
        self._refresh()
        if self.live is not None:
            self.live.stop()

    def round_started(self, proposals: Sequence[Proposal]) -> None:
        """Forget what was running."""
        self.running = {}
        self._refresh()

    def trial_progressed(self, proposal: Proposal, step: int, value: float) -> None:
        """Show the trial with its latest value."""
        self.running[proposal.number] = value
        self._refresh()

    def trial_finished(self, trial: Trial) -> None:
        """Count the trial; print a line if it is the best so far, if it failed, or if there is no terminal."""
        number = trial.proposal.number
        self.trials[number] = trial.without_curve()
        self.running.pop(number, None)
        self.ends.append(time.monotonic())
        self.bar.update(self.task, completed=len(self.trials))
        best = self._best()
        improved = best is not None and best.proposal.number == number
        if self.live is None or improved or trial.error:
            self.console.print(self._line(trial, improved), soft_wrap=True)
        self._refresh()

    def round_finished(self, summary: RoundSummary) -> None:
        """Show what the round has changed in the tuner."""
        parts = [f"round {summary.round + 1}"]
        if summary.model_r2 is not None:
            parts.append(f"reward model R² {summary.model_r2:.2f}")
        if summary.kl is not None:
            parts.append(f"model phase moved the policy by {summary.kl:.2f} nats in {summary.imagined_updates} updates")
        elif summary.model_phase != "off":
            parts.append(f"model phase {summary.model_phase}")
        self.phase = Text(", ".join(parts), style="dim")
        if self.live is None:
            self.console.print(self.phase, soft_wrap=True)
        self._refresh()

    def warn(self, message: str) -> None:
        """A line above the display."""
        self.console.print(Text(message, style="yellow"), soft_wrap=True)

    def _best(self) -> Trial | None:
        trials = tuple(self.trials[number] for number in sorted(self.trials))
        return History(direction=self.spec.objective.direction, trials=trials).best()

    def _line(self, trial: Trial, improved: bool) -> Text:
        mark, colour = _MARKS[trial.status]
        line = Text.assemble((f"{mark} trial {trial.proposal.number + 1:>3}", colour), f"  {trial.seconds:5.1f} s")
        if trial.value is not None:
            line.append(f"  {self.spec.objective.metric} {trial.value:.5g}")
        if improved:
            line.append("  best so far", "bold cyan")
        if trial.stop is not None:
            line.append(f"  stopped {trial.stop.reason}", "yellow")
        if trial.cause:
            line.append(f"  {trial.cause[:200]}", "red")
        return line

    def _time_left(self) -> str:
        left = self.spec.budget.trials - len(self.trials)
        if len(self.ends) < 2 or left <= 0:
            return ""
        seconds = int((self.ends[-1] - self.ends[0]) / (len(self.ends) - 1) * left)
        if seconds >= 3600:
            return f", about {seconds // 3600} h {seconds % 3600 // 60} min"
        return f", about {seconds // 60} min {seconds % 60} s"

    def _refresh(self) -> None:
        if self.live is not None:
            self.live.update(self._draw())

    def _draw(self) -> Group:
        metric, best = self.spec.objective.metric, self._best()
        best_so_far = "–" if best is None else f"{metric} {best.value:.6g} in trial {best.proposal.number + 1}"
        table = Table.grid(padding=(0, 2))
        table.add_row("study", Text(f"{self.spec.name} ({self.spec.tuner.mode}, seed {self.spec.seed})"))
        table.add_row("best", Text(best_so_far, style="bold cyan"))
        table.add_row("left", f"{max(self.spec.budget.trials - len(self.trials), 0)} trials{self._time_left()}")
        if self.phase:
            table.add_row("tuner", self.phase)
        for number, value in sorted(self.running.items())[:_MOST_RUNNING]:
            table.add_row("running", Text(f"trial {number + 1}: {metric} {value:.5g} so far"))
        return Group(table, self.bar)
