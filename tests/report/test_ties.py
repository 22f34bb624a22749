"""Of trials with equal scores the same one is the best everywhere: the earliest."""

from __future__ import annotations

import re

from matplotlib.collections import LineCollection

from rlhpo_core.report import charts, landscape
from rlhpo_core.report.page import study_note
from rlhpo_core.report.parallel_coordinates import parallel_coordinates
from tests.helpers.reported_studies import history_of, line_space, make_spec


def test_the_earliest_of_equals_is_the_best_everywhere() -> None:
    spec = make_spec(line_space(2))
    history = history_of(spec, [{"value": value} for value in (0.1, 0.9, 0.3, 0.9, 0.9, 0.2, 0.4, 0.5)])
    best = history.best()
    assert best is not None
    assert best.proposal.number == 1
    assert "in trial 2" in study_note(spec, history, ())
    assert landscape._ranks(history, list(history.complete()))[1] == 1
    # The thick line, drawn last, is the best trial's.
    figure = parallel_coordinates(spec, history, None)
    assert figure is not None
    lines = [collection for collection in figure.axes[0].collections if isinstance(collection, LineCollection)]
    thick = lines[-1].get_paths()
    assert len(thick) == 1
    expected = [(spec.space.encode([best.config])[0][i] + 1) / 2 for i in range(2)]
    assert [round(float(y), 6) for _, y in thick[0].vertices[:2]] == [round(float(y), 6) for y in expected]
    drawn = charts.charts(spec, history, (), None)["slices.png"]
    widths = re.search(r'"width":\[([^\]]*)\]', drawn)
    assert widths is not None
    assert widths[1].split(",").count("2.5") == 1
    assert widths[1].split(",")[1] == "2.5"
