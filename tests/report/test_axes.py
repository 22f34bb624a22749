"""A chart has the axes of the picture that it stands for."""

from __future__ import annotations

import pytest

from rlhpo_core.report import charts, figures
from tests.helpers.reported_studies import Study


@pytest.mark.parametrize("name", ["_progress", "_predicted"])
def test_axes_of_picture_and_chart_agree(name: str, study: Study) -> None:
    spec, history, _ = study
    picture = getattr(figures, {"_predicted": "_predicted_vs_real"}.get(name, name))(spec, history)
    chart = getattr(charts, name)(spec, history)
    axis = picture.axes[0]
    assert chart.layout.xaxis.range == pytest.approx(axis.get_xlim())
    assert chart.layout.yaxis.range == pytest.approx(axis.get_ylim())
    if name == "_predicted":
        assert chart.layout.xaxis.title.text.startswith("measured")
        assert axis.get_xlabel().startswith("measured")
