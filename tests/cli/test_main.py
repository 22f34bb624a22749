"""The command line's own part; whole studies are in tests/e2e."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhpo_core.cli import main as cli
from rlhpo_core.errors import UserError
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import load_study

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
        cli.status(Path("runs"))


def test_a_study_just_created_is_shown_as_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_study(EXAMPLES / "car.yaml")
    StudyFolder.create(tmp_path / "car", spec, StudyRecord.new(spec))
    cli.status(tmp_path)
    assert "interrupted" in capsys.readouterr().out
    cli.status(tmp_path / "car")
    assert "0 of 40" in capsys.readouterr().out
