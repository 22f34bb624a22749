"""The example of a team that uses a single component in a pipeline of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlhpo_core.kubeflow.compiled_pipeline import read_package
from tests.helpers.command_line import ROOT, environment
from tests.helpers.kfp_checks import pipeline_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
EXAMPLE = ROOT / "examples" / "07-one-component.py"


def python(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_it_runs_on_this_machine(tmp_path: Path) -> None:
    output = python(EXAMPLE, cwd=tmp_path)
    (table,) = tmp_path.glob("runs/by-hand/*/compare/table")
    rows = re.findall(r"'max_depth': (\d+).* \| complete \| (0\.\d+)", table.read_text())
    assert [depth for depth, _ in rows] == ["2", "6", "10"]
    assert f"best: {max(float(value) for _, value in rows)}" in output


def test_it_compiles_for_a_cluster(tmp_path: Path) -> None:
    python(EXAMPLE, "pipeline.yaml", cwd=tmp_path)
    package = read_package(tmp_path / "pipeline.yaml")
    pipeline_of([package["pipeline_spec"]])
    images = {one["container"]["image"] for one in package["pipeline_spec"]["deploymentSpec"]["executors"].values()}
    assert images == {"rlhpo:0.1.0"}
