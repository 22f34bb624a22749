from __future__ import annotations

import re
from typing import Any

import pytest

from rlhpo_core.evaluators.protocol import Baseline
from rlhpo_core.report.charts import charts, script
from rlhpo_core.report.figures import CAPTIONS, figures
from rlhpo_core.report.page import html_report
from rlhpo_core.report.sensitivity import analyse
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.trial import History, RoundSummary
from tests.helpers.html_page import Page
from tests.helpers.reported_studies import history_of, line_space, make_spec
from tests.helpers.studies import RICH_SPACE


def test_a_study_has_its_charts_in_the_place_of_pictures() -> None:
    spec = make_spec(RICH_SPACE)
    history = history_of(spec, [{"value": float(i % 7), "curve": ((1, 0.5), (2, 0.7))} for i in range(20)])
    summaries = [RoundSummary(round=i, trials=5 * i + 5, best=6.0, model_r2=-3e9, kl=0.2) for i in range(4)]
    sensitivity = analyse(spec, history)
    drawn = charts(spec, history, summaries, sensitivity)
    assert drawn.keys() == CAPTIONS.keys() - {
        "parallel_coordinates.png",
        "landscape.png",
        "predicted_vs_real.png",
        "timeline.png",
    }
    pngs = figures(spec, history, summaries, sensitivity)
    page = html_report(spec, history, summaries, pngs, None, drawn, script())
    assert page.count("plotly.js v") == 1, "the script is there once"
    assert set(re.findall(r'id="chart-([\w-]+)"', page)) == {
        name.removesuffix(".png").replace("_", "-") for name in drawn
    }
    parsed = Page(page)
    assert len([1 for name, _ in parsed.attributes if name == "alt"]) == len(pngs.keys() - drawn.keys())
    assert not any(name in ("src", "href") and value.startswith("http") for name, value in parsed.attributes)
    assert "default-src 'none'" in page
    plain = html_report(spec, history, summaries, pngs)
    assert "script" not in Page(plain).tags
    assert "script-src" not in plain


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(
    "outcomes",
    [
        [],
        [{"value": 0.5}],
        [{"value": 0.0}] * 12,
        [{"status": "failed", "error": "no"}] * 4,
        [{"value": 1e308 * (-1) ** i, "curve": ((1, 1e308), (2, -1e308))} for i in range(12)],
        [{"value": 1e-300 * i} for i in range(20)],
    ],
    ids=["none", "one", "equal", "failed", "huge", "tiny"],
)
@pytest.mark.parametrize("space", [RICH_SPACE, line_space(1)], ids=["rich", "line"])
def test_no_outcome_breaks_a_chart(space: SearchSpace, direction: Any, outcomes: list[dict[str, Any]]) -> None:
    spec = make_spec(space, direction)
    history = history_of(spec, outcomes) if outcomes else History(direction=direction)
    drawn = charts(spec, history, (), analyse(spec, history))
    assert ("progress.png" in drawn) == any("value" in outcome for outcome in outcomes)


def test_stopped_trials_are_marked_where_they_stopped() -> None:
    spec = make_spec(line_space(1))
    stop = {"reason": "at step 2: it is <poor>", "step": 2, "value": 0.25}
    outcomes = [{"value": 0.75, "curve": ((1, 0.5), (3, 0.75))}, {"value": 0.5, "curve": ((1, 0.375),)}]
    history = history_of(spec, [*outcomes, {"status": "pruned", "curve": ((1, 0.125), (2, 0.25)), "stop": stop}])
    drawn = charts(spec, history, (), None)["curves.png"]
    for name in ("best (1)", "complete (1)", "stopped early (1)"):
        assert f'"name":"{name}"' in drawn
    assert '"symbol":"diamond"' in drawn
    assert "at step 2: it is" in drawn
    assert "<poor>" not in drawn


def test_names_are_shown_literally() -> None:
    space = {
        "</script><b>": {"type": "float", "low": 1e-3, "high": 1, "log": True},
        "choice": {"type": "categorical", "choices": ["<i>x</i>", "y" * 200]},
    }
    spec = make_spec(SearchSpace.model_validate(space), objective={"metric": "<u>m", "direction": "maximize"})
    drawn = charts(spec, history_of(spec, [{"value": float(i % 7)} for i in range(20)]), (), None)
    for chart in drawn.values():
        assert chart.count("</script>") == chart.count("<script")
        for tag in ("<b>", "<i>", "<u>"):
            assert tag not in chart
            assert tag.replace("<", "\\u003c").replace(">", "\\u003e") not in chart


def test_what_trials_have_to_beat_is_a_line() -> None:
    spec = make_spec(line_space(1))
    history = history_of(spec, [{"value": 0.1 * i} for i in range(5)])
    baseline = Baseline(metric="score", constant=0.5, answer="always '<b>'", defaults=-60.0, library="XGBoost")
    chart = charts(spec, history, (), None, baseline)["progress.png"]
    assert "&lt;b&gt;" in chart.replace("\\u0026", "&")
    assert "<b>" not in chart
    assert "XGBoost as it comes: -60, off the scale" in chart
    assert "XGBoost as it comes" not in charts(spec, history, (), None)["progress.png"]
