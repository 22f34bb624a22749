from __future__ import annotations

from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from rlhpo_core.report.timeline import timeline
from rlhpo_core.trial import History
from tests.helpers.reported_studies import history_of, line_space, make_spec


def history(*times: tuple[float, float]) -> History:
    """Trials by their start and their length, both in seconds."""
    outcomes = [{"value": 1.0, "started_at": 1e9 + start, "seconds": seconds} for start, seconds in times]
    return history_of(make_spec(line_space(1)), outcomes)


def bars(figure: Figure | None) -> list[tuple[float, float, float]]:
    """Lane, start and length of each bar."""
    assert figure is not None
    (container,) = figure.axes[0].containers
    assert isinstance(container, BarContainer)
    return [(bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in container]


def test_trials_that_ran_at_the_same_time_are_in_different_lanes() -> None:
    figure = timeline(history((0, 10), (2, 4), (7, 3), (10, 10)))
    assert bars(figure) == [(0, 0, 10), (1, 2, 4), (1, 7, 3), (0, 10, 10)]
    assert figure is not None
    assert figure.axes[0].get_title("left") == "4 trials in 20 seconds"
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.4 trials at a time on average"]


def test_a_long_pause_is_left_out_and_mentioned() -> None:
    figure = timeline(history((0, 10), (100_000, 10)))
    assert bars(figure) == [(0, 0, 10), (0, 10, 10)]
    assert figure is not None
    assert "1 long pause left out" in figure.axes[0].texts[0].get_text()


def test_hours_are_shown_as_hours() -> None:
    figure = timeline(history((0, 18_000), (18_000, 18_000)))
    assert figure is not None
    assert figure.axes[0].get_title("left") == "2 trials in 10 hours"


def test_trials_of_which_nobody_knows_when_they_ran_have_no_timeline() -> None:
    assert timeline(History(direction="maximize")) is None
    assert timeline(history_of(make_spec(line_space(1)), [{"value": 1.0}])) is None
