from __future__ import annotations

from rlhpo_core.slices import slices
from rlhpo_core.timeline import timeline
from rlhpo_core.trial import History
from tests.strategies import RICH_SPACE
from tests.test_report import line_space, make_spec, trials_of


def titles(figure: object) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]  # type: ignore[attr-defined]


def test_a_slice_for_each_hyperparameter_with_the_best_ringed() -> None:
    spec = make_spec(RICH_SPACE)
    found = slices(spec, trials_of(spec, [{"value": float(i)} for i in range(12)]), None)
    assert found is not None
    names = [step.name for step in spec.space.steps]
    assert [title for title in titles(found) if title] == names
    assert slices(spec, trials_of(spec, [{"value": 1.0}] * 2), None) is None
    many = make_spec(line_space(30))
    shown = slices(many, trials_of(many, [{"value": float(i)} for i in range(5)]), None)
    assert shown is not None
    assert len([title for title in titles(shown) if title]) == 16


def test_the_timeline_has_a_lane_for_each_trial_at_once_and_leaves_pauses_out() -> None:
    spec = make_spec(line_space(1))
    times = [(0, 10), (0, 12), (11, 5), (13, 5), (9000, 10), (9000, 10)]
    history = trials_of(spec, [{"value": 0.5, "started_at": 1.7e9 + start, "seconds": length} for start, length in times])
    found = timeline(history)
    assert found is not None
    (ax,) = found.axes
    assert ax.get_title(loc="left") == "6 trials in 28 seconds"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "2"]
    assert any("long pauses left out: 1" in text.get_text() for text in ax.texts)
    assert timeline(History(direction="maximize")) is None
