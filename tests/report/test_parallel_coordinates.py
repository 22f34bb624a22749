from __future__ import annotations

from rlhpo_core.report import plotting
from rlhpo_core.report.parallel_coordinates import parallel_coordinates
from rlhpo_core.report.sensitivity import analyse
from tests.helpers.reported_studies import history_of, line_space, make_spec


def test_there_is_an_axis_for_each_hyperparameter_but_no_more_than_fit() -> None:
    for count in (3, 40):
        spec = make_spec(line_space(count))
        history = history_of(spec, [{"value": t.config["x2"]} for t in history_of(spec, [{"value": 0.0}] * 40).trials])
        sensitivity = analyse(spec, history)
        figure = parallel_coordinates(spec, history, sensitivity)
        assert figure is not None
        names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert len(names) == min(count, plotting.MAX_AXES) + 1
        assert "x2" in names
        assert names[-1] == "score"
