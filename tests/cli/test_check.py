"""``rlhpo check`` and ``rlhpo schema``: all that is wrong at once, and nothing run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rlhpo_core.cli import main as cli
from rlhpo_core.cli.check import SCHEMA, check_study
from rlhpo_core.storage.study_files import StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import load_study
from tests.helpers.command_line import environment
from tests.helpers.courses import trial

EXAMPLES = Path(__file__).parents[2] / "examples"


def study(folder: Path, **fields: Any) -> Path:
    rows = [f"{i % 7},{'yes' if i % 7 > 3 else 'no'}" for i in range(80)]
    (folder / "table.csv").write_text("\n".join(["size,sold", *rows]))
    path = folder / "study.yaml"
    sound = {
        "name": "study",
        "data": {"path": "table.csv", "target": "sold"},
        "evaluator": {"kind": "xgboost"},
        "objective": "accuracy",
        "space": {"max_depth": {"type": "int", "low": 1, "high": 6}},
    }
    path.write_text(yaml.safe_dump({**sound, **fields}))
    return path


def test_a_sound_study_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = study(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = CliRunner().invoke(cli.app, ["check", str(path)])
    assert result.exit_code == 0, result.output
    assert "table.csv can be read: 80 rows, classification of 'sold'" in result.output
    assert "nothing is wrong" in result.output
    assert sorted(file.name for file in tmp_path.iterdir()) == ["study.yaml", "table.csv"]


def test_one_fault_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = study(
        tmp_path,
        name="a b",
        budgt={"trials": 3},
        evaluator={"kind": "xgboost", "fold": 3},
        objective="acuracy",
        space={"max_dept": {"type": "int", "low": 1, "high": 6}, "gamma": {"type": "float", "low": 2, "high": 1}},
        registry={"model": "a/b"},
        tracking={"uri": "htp://mlflow"},
        data={"path": "table.csv", "target": "slod"},
    )
    wrong = "\n".join(check_study(path, offline=True).wrong)
    for said in (
        "name: 'a b'",
        "did you mean 'budget'",
        "evaluator.fold: there is no such field",
        "did you mean 'accuracy'",
        "space.gamma: empty range",
        "registry.model",
        "did you mean 'http://mlflow'",
        "did you mean 'sold'",
    ):
        assert said in wrong
    assert not (tmp_path / "runs").exists()


def test_what_does_not_fit_the_data_is_found_beside_what_cannot_be_read(tmp_path: Path) -> None:
    path = study(tmp_path, name="a b", space={"max_dept": {"type": "int", "low": 1, "high": 6}})
    wrong = check_study(path, offline=True).wrong
    assert len(wrong) == 2
    assert "space.max_dept: XGBoost's evaluator does not know this hyperparameter" in wrong[1]


def test_a_space_is_looked_at_though_the_data_cannot_be_read(tmp_path: Path) -> None:
    absent = {"path": "absent.csv", "target": "sold"}
    path = study(tmp_path, data=absent, space={"max_dept": {"type": "int", "low": 1, "high": 6}})
    wrong = check_study(path, offline=True).wrong
    assert len(wrong) == 2
    assert "absent.csv" in wrong[0]
    assert "did you mean max_depth?" in wrong[1]


def test_a_function_is_imported_and_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    fields = {"data": None, "objective": {"metric": "score", "direction": "maximize"}}
    path = study(tmp_path, **fields, evaluator={"kind": "function", "function": "tests.helpers.functions:act"})
    assert check_study(path, offline=True).wrong == []
    path = study(tmp_path, **fields, evaluator={"kind": "function", "function": "tests.helpers.functions:absent"})
    assert "has no 'absent'" in check_study(path, offline=True).wrong[0]


def test_the_schema_is_printed_and_lies_beside_what_init_writes(tmp_path: Path) -> None:
    printed = CliRunner().invoke(cli.app, ["schema"]).output
    assert json.loads(printed)["title"] == "A study of rlhpo"
    study(tmp_path)
    arguments = ["init", "--data", str(tmp_path / "table.csv"), "--target", "sold", "--out", str(tmp_path / "new.yaml")]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    first = (tmp_path / "new.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA}"
    assert json.loads((tmp_path / SCHEMA).read_text()) == json.loads(printed)


IMPORTED = """\
import sys, rlhpo_core.cli.main as m
sys.argv = ['rlhpo', *{arguments!r}]
try: m.main()
except SystemExit: pass
"""


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], ("numpy", "pydantic", "torch", "mlflow", "kfp")),
        (["status"], ("torch", "mlflow", "kfp", "pandas")),
        (["tune", "absent.yaml"], ("torch", "mlflow", "kfp", "pandas")),
        (["tune", "study.yaml"], ("torch", "mlflow", "kfp")),
    ],
    ids=" ".join,
)
def test_what_is_slow_to_import_is_not_waited_for(
    arguments: list[str], absent: tuple[str, ...], tmp_path: Path
) -> None:
    study(tmp_path, data={"path": "table.csv", "target": "slod"})
    code = IMPORTED.format(arguments=arguments) + "print(*(name for name in sys.modules if '.' not in name))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert set(run.stdout.splitlines()[-1].split()) & set(absent) == set()


def test_status_of_a_study_waits_for_nothing_slow(tmp_path: Path) -> None:
    spec = load_study(EXAMPLES / "01-first-study.yaml")
    kept = StudyFolder.create(tmp_path / "runs" / "car", spec, StudyRecord.new(spec))
    kept.write_trial(trial(0, value=0.5, seconds=90.0))
    for arguments in (["status"], ["status", "runs/car"]):
        code = IMPORTED.format(arguments=arguments) + "print(*(name for name in sys.modules if '.' not in name))"
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
        )
        assert "0.5" in run.stdout
        assert set(run.stdout.splitlines()[-1].split()) & {"torch", "mlflow", "kfp", "pandas"} == set()


def test_nothing_is_folded_in_a_pipe(tmp_path: Path) -> None:
    long = "x" * 120
    path = study(tmp_path, data={"path": f"{long}.csv", "target": "sold"})
    narrow = {name: value for name, value in environment().items() if name != "COLUMNS"}
    for arguments in (["tune", str(path)], ["check", str(path)], ["tune", str(path), f"--{long}"]):
        code = f"from rlhpo_core.cli.main import main; import sys; sys.argv = ['rlhpo', *{arguments!r}]; main()"
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=narrow, capture_output=True, text=True)
        assert run.returncode in (1, 2)
        assert long in run.stdout + run.stderr
