"""The first hour as a new user has it: the commands of the page and of the README, from a wheel in an empty folder."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import first_hour

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Path, dict[str, str]]]:
    with first_hour.empty_folder() as made:
        yield made


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_from_a_table_to_a_served_prediction(place: tuple[Path, dict[str, str]]) -> None:
    folder, environment = place
    page = first_hour.PAGE.read_text()
    for step, _ in first_hour.carried_out(folder, environment):
        assert f"```\n{step.command}\n```" in page, "write the page anew: python -m tools.first_hour"
        for text in step.says:
            assert text in page
    assert (folder / "charts.html").read_text().startswith("<!DOCTYPE html>")
    assert (folder / "trials.csv").read_text().startswith("trial,round,status")


def test_the_commands_of_the_readme(place: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    _, environment = place
    (block,) = re.findall(r"```\nsource \.venv/bin/activate\n(.*?)```", README, re.DOTALL)
    (tmp_path / "my_table.csv").write_text(first_hour.messy_table())
    commands = [line.split("#")[0].strip() for line in block.splitlines()]
    assert [command.split()[1] for command in commands] == ["init", "tune"]
    # This table's price has gaps, which no target may have.
    run(commands[0].replace("--target price", "--target days"), tmp_path, environment)
    assert "all 4 trials done" in run(f"{commands[1]} --trials 4", tmp_path, environment)


def test_the_pipeline_and_the_examples_come_with_the_wheel(place: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    _, environment = place
    assert "examples/01-first-study.yaml" in run("rlhpo examples", tmp_path, environment)
    run("rlhpo compile examples/05-pipeline.yaml", tmp_path, environment)
    assert "rlhpo-hpo-loop" in (tmp_path / "pipeline.yaml").read_text()
    tuned = run("rlhpo tune examples/01-first-study.yaml --engine kfp --trials 3", tmp_path, environment)
    assert "all 3 trials done" in tuned
