from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhpo_core.cli import main as cli
from rlhpo_core.errors import UserError
from rlhpo_core.report.comparison import compare
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from tests.helpers.html_page import Page
from tests.helpers.reported_studies import history_of, line_space, make_spec


def kept(folder: Path, values: list[float], metric: str = "score") -> StudyFolder:
    spec = make_spec(
        line_space(2), objective={"metric": metric, "direction": "maximize"}, tuner={"trials_per_round": 5}
    )
    study = StudyFolder.create(folder, spec, StudyRecord.new(spec).model_copy(update={"seconds": 90.0}))
    for trial in history_of(spec, [{"value": value} for value in values]).trials:
        study.write_trial(trial)
    return study


def test_studies_are_listed_the_best_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poor, good = kept(tmp_path / "poor", [0.1, 0.5, 0.2]), kept(tmp_path / "good", [0.995, 0.3, 1.0])
    empty = kept(tmp_path / "empty", [])
    compared = compare([(study.path.name, study) for study in (empty, poor, good)])
    assert [row[0] for row in compared.rows] == ["good", "poor", "empty"]
    assert compared.rows[0][3:5] == ("1", "3")
    assert compared.rows[0][-1] == "trial 1", "0.995 is within one per cent of the best of all"
    assert compared.rows[1][-1] == compared.rows[2][-1] == "–"
    page = Page(compared.html)
    assert "script" not in page.tags
    assert "Best configurations" in compared.html

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["report", "good", "poor", "--html", "both.html"])
    assert result.exit_code == 0, result.output
    assert result.output.index("good") < result.output.index("poor")
    assert (tmp_path / "both.html").read_text().startswith("<!DOCTYPE html>")


def test_scores_of_different_kinds_are_not_compared(tmp_path: Path) -> None:
    studies = [kept(tmp_path / "a", [0.1]), kept(tmp_path / "b", [0.1], metric="other")]
    with pytest.raises(UserError, match="only studies of one objective can be compared"):
        compare([(study.path.name, study) for study in studies])
