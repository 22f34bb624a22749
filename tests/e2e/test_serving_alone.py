"""A registered winner where nothing is installed but what it says that it needs.

The environment is made by pip from the model's own requirements, once; it lies in ``build/serving`` and is made anew
when the requirements change. MLflow's own dependencies (scikit-learn, pyarrow) come along; rlhpo and torch do not.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.evaluators.protocol import Refit
from tests.helpers import input_forms
from tests.helpers.command_line import ROOT
from tests.helpers.served_models import credit_with_grades, expected_answers, save
from tests.helpers.tables import CONFIG, build

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)


def environment(refit: Refit) -> Path:
    """The interpreter of an environment that holds the model's requirements."""
    wanted = "\n".join(refit.requirements)
    place = ROOT / "build" / "serving" / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    python, complete = place / "bin" / "python", place / "complete"
    if not complete.exists():
        shutil.rmtree(place, ignore_errors=True)
        install = (python, "-m", "pip", "install", "--quiet", *refit.requirements)
        for command in ((sys.executable, "-m", "venv", place), install):
            made = run(*command, cwd=ROOT)
            assert made.returncode == 0, made.stderr[-3000:]
        complete.touch()
    return python


def test_ten_forms_of_rows_are_answered_where_only_its_requirements_are(tmp_path: Path) -> None:
    credit_with_grades().to_csv(tmp_path / "credit.csv", index=False)
    evaluator = build(tmp_path / "credit.csv")
    refit = evaluator.refit(CONFIG)
    save(tmp_path / "model", refit)
    rows = pd.read_csv(tmp_path / "credit.csv").iloc[:40].drop(columns="target")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    expected_answers(evaluator, refit, np.arange(40)).to_csv(tmp_path / "expected.csv", index=False)

    python = environment(refit)
    # Isolated: neither PYTHONPATH nor the working folder leads back to the repository.
    for package in ("rlhpo_core", "torch"):
        assert "ModuleNotFoundError" in run(python, "-I", "-c", f"import {package}", cwd=tmp_path).stderr
    script = Path(input_forms.__file__)
    served = run(python, "-I", script, "model", "rows.csv", "expected.csv", cwd=tmp_path)
    assert served.returncode == 0, served.stderr[-3000:]
    assert "11 forms answered alike" in served.stdout
