"""What is said of wrong inputs, each tried: docs/wrong-inputs.md, by python -m tools.wrong_inputs [--check]

A row is an input, as somebody might write it, and the command that meets it. The page has the exit code and what the
command says; ``tests/cli/test_wrong_inputs.py`` sees to it that it says what is to be mended.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from rlhpo_core.cli import main as cli
from tools import generated

PAGE = generated.ROOT / "docs" / "wrong-inputs.md"
#: Of a message in the page.
_LONGEST = 180
_OWN = "def train(config, report, scale=1.0):\n    return 1.0\n\nnumber = 3\n"
_INT = {"type": "int", "low": 2, "high": 6}
_STUDY: dict[str, Any] = {
    "name": "study",
    "data": {"path": "table.csv", "target": "sold"},
    "evaluator": {"kind": "xgboost"},
    "objective": "accuracy",
    "space": {"max_depth": _INT},
    "budget": {"trials": 3},
}
_FUNCTION = {
    "data": None,
    "evaluator": {"kind": "function", "function": "own_code:train"},
    "objective": {"metric": "score", "direction": "maximize"},
}
_TUNE = ("tune", "study.yaml")


@dataclass(frozen=True)
class Row:
    """A wrong input."""

    what: str
    """As a person would put it."""
    says: str
    """Must be in what the command says."""
    study: Mapping[str, Any] = field(default_factory=dict)
    """Sections that differ from those of a sound study; ``None`` leaves one out."""
    text: str | None = None
    """The whole study file, where it is no mapping or no YAML."""
    command: tuple[str, ...] = _TUNE
    code: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


def _space(**fields: Any) -> dict[str, Any]:
    return {"space": {"max_depth": fields}}


def _function(name: str = "own_code:train", **fields: Any) -> dict[str, Any]:
    return {**_FUNCTION, "space": {"x": {"type": "float", "low": 0, "high": 1}}, "evaluator": {
        "kind": "function", "function": name, **fields,
    }}  # fmt: skip


_ALLOWED = {"RLHPO_ALLOWED_MODULES": "own_code,absent_code"}

#: By the part that is wrong.
ROWS: Mapping[str, tuple[Row, ...]] = {
    "The study file": (
        Row("there is no such file", "cannot read the study file", command=("tune", "absent.yaml")),
        Row("the file is empty", "a study file is a mapping", text=""),
        Row("it is in UTF-16", "it is no text in UTF-8", command=("tune", "utf16.yaml")),
        Row("it is a list", "a study file is a mapping", text="- name: study\n"),
        Row("it is no YAML", "not valid YAML", text="name: [study\n"),
        Row("a field is given twice", "line 2: the name 'name' is given twice", text="name: a\nname: b\n"),
        Row("`budgt: {trials: 3}`", "did you mean 'budget'?", {"budgt": {"trials": 3}}),
        Row("`budget: {trails: 3}`", "did you mean 'trials'?", {"budget": {"trails": 3}}),
        Row("`budget: 5`", "write {trials: …}", {"budget": 5}),
        Row("`budget: {trials: many}`", "'many' is not a whole number", {"budget": {"trials": "many"}}),
        Row("`budget: {trials: 0}`", "budget.trials: must be at least 1", {"budget": {"trials": 0}}),
        Row("`name: my study`", "name: 'my study' is not a name", {"name": "my study"}),
        Row("a name of 300 letters", "has 300 characters, and not at most 100 characters", {"name": "x" * 300}),
        Row("`execution: {device: gpu}`", "did you mean 'cuda'?", {"execution": {"device": "gpu"}}),
        Row("`seed: -1`", "seed: must be at least 0", {"seed": -1}),
        Row("`execution: {trial_timeout: 5 minutes}`", "write for example 90s", {
            "execution": {"trial_timeout": "5 minutes"}}),
        Row("`cluster: {trial_memory: 2 gigs}`", "write for example 8G", {"cluster": {"trial_memory": "2 gigs"}}),
        Row("`stopping: meadian`", "did you mean 'median'?", {"stopping": "meadian"}),
        Row("`tuner: papr`", "tuner: 'papr' is no mapping", {"tuner": "papr"}),
        Row("`alerts: {events: [promotd]}`", "did you mean 'promoted'?", {"alerts": {"events": ["promotd"]}}),
        Row("`alerts: {url: slack}`", "alerts.url: 'slack'", {"alerts": {"url": "slack"}}),
        Row("three fields at once", "did you mean 'seed'?", {"sed": 1, "name": 7, "budget": {"trials": "x"}}),
    ),
    "Evaluator and objective": (
        Row("`evaluator: {kind: xgbost}`", "did you mean 'xgboost'?", {"evaluator": {"kind": "xgbost"}}),
        Row("`evaluator: xgboost`", "evaluator: 'xgboost' is no mapping; write {kind: …}", {"evaluator": "xgboost"}),
        Row("`evaluator: {folds: 5}`", "does not say which kind", {"evaluator": {"folds": 5}}),
        Row("`evaluator: {kind: xgboost, fold: 5}`", "evaluator.fold: there is no such field; did you mean 'folds'?", {
            "evaluator": {"kind": "xgboost", "fold": 5}}),
        Row("`evaluator: {kind: xgboost, params: {gamma: [1]}}`", "evaluator.params.gamma: [1] is no single value", {
            "evaluator": {"kind": "xgboost", "params": {"gamma": [1]}}}),
        Row("`objective: acuracy`", "did you mean 'accuracy'?", {"objective": "acuracy"}),
        Row("`objective: rmse` where there are classes", "rmse does not fit classification", {"objective": "rmse"}),
        Row("`objective: {metric: accuracy, direction: minimize}`", "leave the direction out", {
            "objective": {"metric": "accuracy", "direction": "minimize"}}),
        Row("a function whose module is not allowed", "RLHPO_ALLOWED_MODULES=own_code", _function()),
        Row("a function whose module is not installed", "cannot import absent_code", _function("absent_code:train"),
            environment=_ALLOWED),
        Row("a function that is not in its module", "has no 'trian'", _function("own_code:trian"),
            environment=_ALLOWED),
        Row("a number for a function", "cannot be called", _function("own_code:number"), environment=_ALLOWED),
        Row("options that the function does not take", "Mend evaluator.options", _function(options={"sclae": 2}),
            environment=_ALLOWED),
        Row("`function: own_code.train`", "write module:function", _function("own_code.train")),
        Row("`registry: {model: x}` for a function", "registry.model: there is no model to register", {
            **_function(), "registry": {"model": "x"}}, environment=_ALLOWED),
    ),
    "The space": (
        Row("`space: xgboost-papr`", "did you mean 'xgboost-paper'?", {"space": "xgboost-papr"}),
        Row("`type: integer`", "did you mean 'int'?", _space(type="integer", low=1, high=9)),
        Row("no `type`", "write type: and one of", _space(low=1, high=9)),
        Row("`max_depth: [2, 6]`", "write for example {type: float", {"space": {"max_depth": [2, 6]}}),
        Row("`hgh: 9`", "did you mean 'high'?", _space(type="int", low=1, hgh=9)),
        Row("`low: 9, high: 1`", "empty range", _space(type="int", low=9, high=1)),
        Row("`type: int, low: 1.5`", "1.5 is not a whole number", _space(type="int", low=1.5, high=9)),
        Row("`low: 0, log: true`", "a log scale needs low above 0", _space(type="float", low=0, high=9, log=True)),
        Row("`low: 1, high: 10, step: 4`", "write for example high: 9", _space(type="int", low=1, high=10, step=4)),
        Row("`choices: []`", "needs at least one entry", _space(type="categorical", choices=[])),
        Row("`choices: [{a: 1}]`", "a value is text, a number", _space(type="categorical", choices=[{"a": 1}])),
        Row("`choices: [null, 3]` for XGBoost", "null is not a number", _space(type="categorical", choices=[None, 3])),
        Row("`max_dept`", "did you mean max_depth?", {"space": {"max_dept": _INT}}),
        Row("a condition on what is not there", "no hyperparameter has this name", _space(**_INT, when={"gama": 1})),
        Row("every hyperparameter is fixed", "nothing to tune", _space(type="fixed", value=3)),
    ),
    "The data": (
        Row("there is no such table", "absent.csv", {"data": {"path": "absent.csv", "target": "sold"}}),
        Row("the table is empty", "empty.csv", {"data": {"path": "empty.csv", "target": "sold"}}),
        Row("`target: slod`", "did you mean 'sold'?", {"data": {"path": "table.csv", "target": "slod"}}),
        Row("`data: table.csv`", "data: 'table.csv' is no mapping; write {path: …}", {"data": "table.csv"}),
        Row("no data for XGBoost", "data: the xgboost evaluator needs a table", {"data": None}),
        Row("a target of one class", "one class", {"data": {"path": "one.csv", "target": "sold"}}),
        Row("an Excel file", "save it as CSV", {"data": {"path": "sheet.xlsx", "target": "sold"}}),
        Row("`path: gs://bucket/t.csv`", "data.path: data cannot be at gs://", {
            "data": {"path": "gs://bucket/t.csv", "target": "sold"}}),
        Row("rows divided by the target", "data.split: 'sold' is the target", {
            "data": {**_STUDY["data"], "split": {"by": "group", "column": "sold"}}}),
        Row("a weight that is 0", "data.weight: column 'size' is 0 in row 1", {
            "data": {**_STUDY["data"], "weight": "size"}}),
        Row("`validation: 0.6, holdout: 0.5`", "must leave rows to train on", {
            "data": {**_STUDY["data"], "validation": 0.6, "holdout": 0.5}}),
    ),
    "Names and addresses": (
        Row("`registry: {model: team/churn}`", "registry.model: 'team/churn' is no name", {
            "registry": {"model": "team/churn"}}),
        Row("`registry: {store: 's3:/x'}`", "did you mean 's3://x'?", {"registry": {"store": "s3:/x"}}),
        Row("`registry: {store: 'gs://bucket'}`", "registry.store: a store cannot be at gs://", {
            "registry": {"store": "gs://bucket"}}),
        Row("`tracking: {uri: 'htp://mlflow'}`", "did you mean 'http://mlflow'?", {
            "tracking": {"uri": "htp://mlflow"}}),
        Row("`tracking: {uri: 'mlflow:5000'}`", "did you mean 'http://mlflow:5000'?", {
            "tracking": {"uri": "mlflow:5000"}}),
        Row("an address in quotes twice", "quotes or blanks", {"tracking": {"uri": "'http://mlflow'"}}),
        Row("`MLFLOW_TRACKING_URI=htp://mlflow`", "MLFLOW_TRACKING_URI: 'htp://mlflow'",
            command=("check", "study.yaml"), environment={"MLFLOW_TRACKING_URI": "htp://mlflow"}),
        Row("an MLflow that is not there", "cannot be reached", {"tracking": {"uri": "http://127.0.0.1:9"}},
            command=("check", "study.yaml")),
        Row("`prior: best-one`", "best-one", {"prior": "best-one"}, command=("check", "study.yaml")),
        Row("`prior: 's4://bucket/a.safetensors'`", "a prior cannot be at s4://", {
            "prior": "s4://bucket/a.safetensors"}),
        Row("`warm_start: runs/absent`", "holds no study", {"warm_start": "runs/absent"},
            command=("check", "study.yaml")),
    ),
    "Commands and options": (
        Row("`--engine kpf`", "'kpf' is not one of 'inprocess', 'kfp'", command=(*_TUNE, "--engine", "kpf"), code=2),
        Row("`rlhpo schema --out` names a folder", "folder is a folder; name a file in it", command=(
            "schema", "--out", "folder")),
        Row("`rlhpo init --drop` names no column", "no column 'aeg'; did you mean 'age'?", command=(
            "init", "--data", "table.csv", "--target", "sold", "--drop", "aeg", "--out", "new.yaml")),
        Row("`rlhpo init` of a folder of CSV files", "tables/may.csv is no image", command=(
            "init", "--data", "tables", "--target", "sold", "--out", "new.yaml")),
        Row("the command `tone`", "No such command 'tone'", command=("tone",), code=2),
        Row("`rlhpo tune`, without a file", "Missing argument", command=("tune",), code=2),
        Row("`--trails 5`", "No such option", command=(*_TUNE, "--trails", "5"), code=2),
        Row("`--trials many`", "Invalid value for '--trials'", command=(*_TUNE, "--trials", "many"), code=2),
        Row("`--trials 0`", "it must be at least 1", command=(*_TUNE, "--trials", "0"), code=2),
        Row("`--tracking-uri htp://mlflow`", "did you mean 'http://mlflow'?",
            command=("audit", "x", "--tracking-uri", "htp://mlflow")),
        Row("`--out` names a folder that is in use", "is not empty", command=(*_TUNE, "--out", "folder")),
        Row("`rlhpo resume` of what is no study", "holds no study", command=("resume", "folder")),
        Row("`rlhpo status` where there is nothing", "no studies in runs", command=("status",)),
        Row("`rlhpo report` of what is no study", "holds no study", command=("report", "folder")),
        Row("`rlhpo init` without a target", "--target",
            command=("init", "--data", "table.csv", "--out", "new.yaml")),
        Row("`rlhpo init` where there is a study file", "overwrite it with --force",
            command=("init", "--data", "table.csv", "--target", "sold")),
        Row("`rlhpo retune` of a study without a model", "registry.model: a retuning needs the name",
            command=("retune", "study.yaml")),
        Row("`rlhpo compile --set trial_memry=8G`", "--set trial_memry=8G: write NAME=VALUE",
            command=("compile", "study.yaml", "--set", "trial_memry=8G")),
        Row("`rlhpo audit` of a model that nobody knows", "there is no record of 'nobody'",
            command=("audit", "nobody")),
    ),
}  # fmt: skip


def write_inputs(folder: Path, row: Row) -> None:
    """The files that a row's command meets."""
    study = {name: value for name, value in {**_STUDY, **row.study}.items() if value is not None}
    text = yaml.safe_dump(study, sort_keys=False) if row.text is None else row.text
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    rows = [f"{i % 7},{i % 3},{'yes' if i % 7 > 3 else 'no'}" for i in range(80)]
    (folder / "table.csv").write_text("\n".join(["size,age,sold", *rows]) + "\n", encoding="utf-8")
    (folder / "one.csv").write_text("\n".join(["size,sold", *(f"{i},yes" for i in range(80))]), encoding="utf-8")
    (folder / "empty.csv").write_text("", encoding="utf-8")
    (folder / "own_code.py").write_text(_OWN, encoding="utf-8")
    (folder / "sheet.xlsx").write_bytes(b"PK")
    (folder / "utf16.yaml").write_text(text, encoding="utf-16")
    (folder / "tables").mkdir()
    (folder / "tables" / "may.csv").write_text("\n".join(["size,age,sold", *rows]) + "\n", encoding="utf-8")
    (folder / "folder").mkdir()
    (folder / "folder" / "letter.txt").write_text("mine", encoding="utf-8")


def run(row: Row) -> tuple[int, str]:
    """Exit code and output of a row's command, in a folder of its own; its path is left out of the output."""
    with tempfile.TemporaryDirectory() as name, _working_in(Path(name).resolve(), row.environment) as folder:
        write_inputs(folder, row)
        said, code = io.StringIO(), 0
        with (
            mock.patch.object(sys, "argv", ["rlhpo", *row.command]),
            redirect_stdout(said),
            redirect_stderr(said),
        ):
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
        return code, said.getvalue().replace(f"{folder}/", "").replace(str(folder), "")


@contextmanager
def _working_in(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    before, path = Path.cwd(), list(sys.path)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RLHPO_", "AWS_"))}
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        with mock.patch.dict(os.environ, {**kept, **environment, "COLUMNS": "1000"}, clear=True):
            yield folder
    finally:
        os.chdir(before)
        sys.path[:] = path
        sys.modules.pop("own_code", None)


def message(row: Row, output: str) -> str:
    """Of what a command has said, the line that the row is about."""
    lines = [line.strip(" │✗") for line in output.splitlines()]
    line = next((line for line in lines if row.says in line), lines[-1] if lines else "")
    line = re.sub(r"^error: ", "", " ".join(line.split()))
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def contents() -> dict[Path, str]:
    """The page."""
    parts = [_HEAD]
    for title, rows in ROWS.items():
        parts.append(f"\n## {title}\n\n| input | exit code | what is said |\n|---|---|---|")
        for row in rows:
            code, output = run(row)
            said = message(row, output).replace("|", "\\|").replace("`", "'")
            parts.append(f"| {row.what} | {code} | `{said}` |")
    return {PAGE: "\n".join(parts) + "\n"}


_HEAD = """\
# What is said of wrong inputs

Each of these inputs was given to the command that meets it first, mostly `rlhpo tune`; the table has what it said.
Nothing was trained. The exit code is 1 where files, data or places are wrong, and 2 where the command line itself is.
`rlhpo check STUDY.yaml` says all that is wrong with a study at once.

The page is written by `python -m tools.wrong_inputs`, from the table in `tools/wrong_inputs.py`; a test tries each
row."""


if __name__ == "__main__":
    generated.main(__doc__ or "", contents)
