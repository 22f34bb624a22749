"""What the live display says, and what is printed where there is no terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from rlhpo_core.execution.progress import LiveProgress
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.trial import History, Proposal, RoundSummary, Trial, TrialStatus

SPEC = StudySpec.model_validate(
    {
        "name": "shown",
        "evaluator": {"kind": "function", "function": "tests.helpers.functions:act"},
        "objective": {"metric": "score", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "budget": {"trials": 4},
    }
)
NOTHING = History(direction="minimize")


def proposal(number: int) -> Proposal:
    return Proposal(trial_id=f"{number:016x}", number=number, round=0, index=number, config={}, actions=())


def trial(number: int, value: float | None, error: str | None = None) -> Trial:
    status = TrialStatus.FAILED if value is None else TrialStatus.COMPLETE
    return Trial(proposal=proposal(number), status=status, value=value, seconds=1.25, error=error)


def test_without_a_terminal_each_trial_is_a_line() -> None:
    output = StringIO()
    with LiveProgress(Console(file=output, width=200), SPEC, NOTHING) as display:
        display.round_started([proposal(0), proposal(1), proposal(2)])
        display.trial_progressed(proposal(0), 1, 0.75)
        display.trial_finished(trial(0, 0.5))
        display.trial_finished(trial(1, 0.75))
        display.trial_finished(trial(2, None, "Traceback …\nValueError: [too] deep"))
        display.round_finished(RoundSummary(round=0, trials=3, best=0.5, entropy=1.0, model_phase="off", model_r2=0.5))
    assert [line.split() for line in output.getvalue().splitlines()] == [
        ["✓", "trial", "1", "1.2", "s", "score", "0.5", "best", "so", "far"],
        ["✓", "trial", "2", "1.2", "s", "score", "0.75"],
        ["✗", "trial", "3", "1.2", "s", "ValueError:", "[too]", "deep"],
        ["round", "1,", "reward", "model", "R²", "0.50"],
    ]


def test_on_a_terminal_only_what_matters_is_printed_above_the_display() -> None:
    output = StringIO()
    console = Console(file=output, width=120, force_terminal=True, color_system=None)
    with LiveProgress(console, SPEC, NOTHING) as display:
        display.trial_progressed(proposal(1), 1, 0.875)
        display._refresh()
        display.live.refresh() if display.live is not None else pytest.fail("no display")
        display.trial_finished(trial(0, 0.5))
        display.trial_finished(trial(1, 0.75))
        display.trial_finished(trial(2, 0.25))
    shown = output.getvalue()
    assert "trial 2: score 0.875 so far" in shown
    assert "shown (mbrl_sdp, seed 0)" in shown
    assert "score 0.25 in trial 3" in shown
    assert "✓ trial   1" in shown
    assert "✓ trial   2" not in shown, "neither an error nor the best"
    assert "✓ trial   3" in shown


def test_a_study_that_goes_on_begins_with_what_it_has() -> None:
    output = StringIO()
    history = History(direction="minimize", trials=(trial(0, 0.5), trial(1, 0.25)))
    display = LiveProgress(Console(file=output, width=120), SPEC, history)
    display.console.print(display._draw())
    assert "score 0.25 in trial 2" in output.getvalue()
    assert "2/4" in output.getvalue()
    display.trial_finished(trial(2, 0.3))
    assert "best so far" not in output.getvalue()


def test_time_left_follows_from_the_pace_of_the_latest_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 1900.0, 3700.0])
    monkeypatch.setattr("rlhpo_core.execution.progress.time.monotonic", lambda: next(clock, 3700.0))
    display = LiveProgress(Console(file=StringIO()), SPEC, NOTHING)
    assert display._time_left() == ""
    display.trial_finished(trial(0, 0.5))
    display.trial_finished(trial(1, 0.5))
    assert display._time_left() == ", about 1 h 0 min"
