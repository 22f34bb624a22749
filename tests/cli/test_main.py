"""The command line's own part; whole studies are in tests/e2e."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from rlhpo_core.cli import main as cli
from rlhpo_core.errors import UserError
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import load_study
from rlhpo_core.trial import TrialStatus
from tests.helpers.courses import trial

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("command", ["tune", "resume", "status", "report", "init"])
def test_help_teaches(command: str) -> None:
    output = CliRunner().invoke(cli.app, [command, "--help"], terminal_width=100).output
    assert "Usage:" in output
    assert len(output.splitlines()) > 10


def test_without_a_command_help_is_shown() -> None:
    output = CliRunner().invoke(cli.app, []).output
    assert "rlhpo init" in output


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).output.strip() == cli.__version__


def test_errors_that_a_user_can_mend_come_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rlhpo", "tune", "absent.yaml"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "error: cannot read the study file absent.yaml" in capsys.readouterr().err


def test_status_of_a_folder_without_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no studies in runs"):
        cli.status("runs")


def test_a_damaged_study_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_study(EXAMPLES / "01-first-study.yaml")
    for name in ("a", "b", "c"):
        StudyFolder.create(tmp_path / name, spec, StudyRecord.new(spec))
    (tmp_path / "b" / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"b/study.json is missing or damaged"):
        cli.status(str(tmp_path))
    shown = capsys.readouterr().out
    assert "damaged" in shown
    assert shown.count("interrupted") == 2


def test_a_study_just_created_is_shown_as_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_study(EXAMPLES / "01-first-study.yaml")
    StudyFolder.create(tmp_path / "car", spec, StudyRecord.new(spec))
    cli.status(str(tmp_path))
    assert "interrupted" in capsys.readouterr().out
    cli.status(str(tmp_path / "car"))
    assert "0 of 40" in capsys.readouterr().out


def test_status_tells_what_stopped_trials_have_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_study(EXAMPLES / "01-first-study.yaml")
    folder = StudyFolder.create(tmp_path / "car", spec, StudyRecord.new(spec))
    folder.write_trial(trial(0, value=0.5, seconds=90.0))
    folder.write_trial(trial(1, TrialStatus.PRUNED, seconds=10.0))
    cli.status(str(tmp_path / "car"))
    assert "1 trial stopped early; saved about 1 min 20 s, had it taken" in capsys.readouterr().out
    cli.status(str(tmp_path))
    assert "stopped" in capsys.readouterr().out


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no such file": ({"data": {"path": "absent.csv", "target": "target"}}, "there is no file"),
    "empty table": ({"data": {"path": "empty.csv", "target": "target"}}, "empty.csv is empty"),
    "missing target": ({"data": {"path": "good.csv", "target": "tagret"}}, "did you mean 'target'?"),
    "one class": ({"data": {"path": "one.csv", "target": "target"}}, "one class only"),
    "target with gaps": ({"data": {"path": "gaps.csv", "target": "target"}}, "is missing in 1 of 40 rows"),
    "column of a wrong type": ({"data": {"path": "stray.csv", "target": "target"}}, "row 4 has 'broken'"),
    "unknown metric": ({"objective": "acuracy"}, "unknown metric 'acuracy'"),
    "metric of another task": ({"objective": "rmse"}, "rmse does not fit classification"),
    "unknown hyperparameter": ({"space": {"depth": {"type": "int", "low": 1, "high": 9}}}, "space.depth: XGBoost"),
    "empty range": ({"space": {"gamma": {"type": "float", "low": 2, "high": 1}}}, "space.gamma: empty range"),
    "unknown field": ({"budget": {"trails": 10}}, "budget.trails"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_words(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = pd.DataFrame({"x": [row / 7 for row in range(40)], "target": ["a", "b"] * 20})
    good.to_csv(tmp_path / "good.csv", index=False)
    (tmp_path / "empty.csv").write_text("")
    good.assign(target="a").to_csv(tmp_path / "one.csv", index=False)
    good.assign(target=[None, *good["target"][1:]]).to_csv(tmp_path / "gaps.csv", index=False)
    good.assign(x=[*good["x"][:3].astype(str), "broken", *good["x"][4:].astype(str)]).to_csv(
        tmp_path / "stray.csv", index=False
    )
    fields, message = BAD[case]
    study = {
        "name": "bad",
        "data": {"path": "good.csv", "target": "target"},
        "evaluator": {"kind": "xgboost"},
        "objective": "accuracy",
        "space": "xgboost-paper",
        **fields,
    }
    (tmp_path / "bad.yaml").write_text(json.dumps(study))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        CliRunner().invoke(cli.app, ["tune", "bad.yaml"], catch_exceptions=False)
    assert not (tmp_path / "runs").exists()
