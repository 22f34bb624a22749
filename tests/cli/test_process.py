"""The command line in processes of its own: a study that is killed in between, and how it ends; tests/e2e has more."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from rlhpo_core.cli import session
from rlhpo_core.cli.options import INTERRUPTED
from rlhpo_core.study.spec import load_study
from tests.helpers.command_line import (
    children,
    client,
    environment,
    rlhpo,
    start,
    trial_files,
    trials,
    wait_for,
    write_study,
)
from tests.helpers.comparison import comparable
from tests.helpers.mlflow_store import new_store

pytestmark = pytest.mark.usefixtures("only_these_settings")


@pytest.mark.e2e
def test_a_study_that_is_killed_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    new_store(tmp_path / "runs")
    space = {"act": {"type": "fixed", "value": "nap"}, "x": {"type": "float", "low": 0.0, "high": 1.0}}
    study = write_study(
        tmp_path, "killed", space=space, budget={"trials": 5}, tuner={"trials_per_round": 2}, execution={"workers": 1}
    )
    killed = tmp_path / "runs" / "killed"
    process = start("tune", study, cwd=tmp_path)
    wait_for(lambda: trial_files(killed) >= 1, process)
    process.kill()
    process.communicate()
    assert 1 <= trial_files(killed) < 5
    output = rlhpo("resume", killed, cwd=tmp_path)
    assert "all 5 trials done" in output
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/runs/mlflow.db" in output
    assert len(children(client(tmp_path), killed)) == 5

    whole = session.start(load_study(study), tmp_path / "runs" / "whole", Console(file=StringIO()))
    assert comparable(trials(killed)) == comparable(whole.folder.whole_history().trials)


INTERRUPTED_APP = """
import atexit
import typer
from rlhpo_core.cli import main, options

def interrupted():
    print("all is said", end="")
    raise typer.Exit(options.INTERRUPTED)

def ended():
    raise typer.Exit(3)

atexit.register(lambda: print(", and taken apart", end=""))
main.app = typer.Typer()
main.app.command()(COMMAND)
main.main()
"""


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [("interrupted", INTERRUPTED, "all is said"), ("ended", 3, ", and taken apart")],
)
def test_an_interrupted_command_is_gone_at_once(command: str, code: int, said: str) -> None:
    """To take torch and MLflow apart takes ten seconds and more on a busy machine."""
    program = INTERRUPTED_APP.replace("COMMAND", command)
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, said), done.stderr


def test_a_terminal_without_utf8_is_printed_to_all_the_same() -> None:
    program = (
        "import typer\n"
        "from rlhpo_core.cli import main\n"
        "def said():\n"
        "    main.console.print('✓ R² 0.5 – é')\n"
        "main.app = typer.Typer()\n"
        "main.app.command()(said)\n"
        "main.main()"
    )
    settings = {**environment(), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "+ R2 0.5 - ?\n"), done.stderr
