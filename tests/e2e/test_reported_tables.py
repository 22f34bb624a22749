"""Tables that have surprised users of other tools, in studies and retunings by the command line.

pandas-dev/pandas#14124 and mlflow/mlflow#10727, #3798 and #208 tell of them; tests of single modules have the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from rlhpo_core.data.table import load_table
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import DataSpec
from tests.helpers.command_line import client, rlhpo
from tests.helpers.mlflow_store import new_store
from tests.helpers.plain_s3 import PlainS3, serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def week(number: int, rows: int = 1500) -> pd.DataFrame:
    """Customers of one week."""
    rng = np.random.default_rng(number)
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 80, rows),
            "fee": rng.uniform(5, 90, rows).round(2),
            "online": rng.random(rows) < 0.5,
            "branch": rng.choice(["1", "2", "closed"], rows),
        }
    )
    churn = 1 / (1 + np.exp(-((table["age"] - 50) / 12 + np.where(table["online"], 1, -1))))
    return table.assign(churn=np.where(rng.random(rows) < churn, "yes", "no"))


def write(folder: Path, table: pd.DataFrame) -> None:
    table.to_csv(folder / "current.csv", index=False)


def study(folder: Path, **fields: Any) -> Path:
    content = {
        "name": "flag",
        "data": {"path": "current.csv", "target": "churn", "holdout": 0.3},
        "evaluator": {"kind": "xgboost"},
        "objective": "log_loss",
        "space": {
            "max_depth": {"type": "int", "low": 2, "high": 6},
            "n_estimators": {"type": "fixed", "value": 20},
        },
        "prior": "none",
        "budget": {"trials": 2},
        "execution": {"workers": 1, "threads": 1},
        "registry": {"model": "flag"},
        **fields,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_gaps_and_absent_values_break_no_retuning(tmp_path: Path) -> None:
    """A truth value with its first blank, a category without its special value; the column stays of its kind."""
    new_store(tmp_path / "runs")
    write(tmp_path, week(1))
    rlhpo("tune", study(tmp_path), cwd=tmp_path)
    later = week(2)
    later["online"] = later["online"].astype(object)
    later.loc[[5, 90, 700], "online"] = None
    write(tmp_path, later.assign(branch=later["branch"].replace("closed", "1")))
    output = rlhpo("retune", tmp_path / "study.yaml", cwd=tmp_path)
    assert "columns of another kind" not in output
    assert "kept: log_loss" in output or "promoted: log_loss" in output
    first, second = (StudyFolder.open(tmp_path / "runs" / name).schema() for name in ("flag", "flag-2"))
    assert first is not None
    assert first == second
    assert first.columns["online"].kind == "boolean"
    assert first.columns["branch"].categories == ("1", "2", "closed")


def test_a_retuning_of_a_table_that_breaks_its_schema_says_where(tmp_path: Path) -> None:
    new_store(tmp_path / "runs")
    write(tmp_path, week(1))
    rlhpo("tune", study(tmp_path), cwd=tmp_path)
    later = week(2).drop(columns="branch")
    later["age"] = later["age"].astype(object).where(later.index != 6, "unknown")
    write(tmp_path, later)
    output = rlhpo("retune", tmp_path / "study.yaml", cwd=tmp_path, code=1)
    assert "column 'branch' is gone" in output
    assert "column 'age' should hold numbers, but row 7 of 1500 has 'unknown'" in output
    assert "failed" in rlhpo("audit", "flag", cwd=tmp_path)
    # A study that was begun goes on with its own table only, and says what is wrong with another.
    output = rlhpo("resume", "runs/flag", cwd=tmp_path, code=1)
    assert "column 'branch' is gone" in output


def test_renamed_labels_promote_nobody(tmp_path: Path) -> None:
    """Two exports of one table write the label with and without a final dot."""
    new_store(tmp_path / "runs")
    tables = [week(n).assign(churn=lambda t: np.where(t["churn"] == "yes", ">50K", "<=50K")) for n in (1, 2)]
    write(tmp_path, tables[0])
    rlhpo("tune", study(tmp_path), cwd=tmp_path)
    write(tmp_path, tables[1].assign(churn=lambda t: t["churn"] + "."))
    output = rlhpo("retune", tmp_path / "study.yaml", cwd=tmp_path)
    assert "the label seems to be written otherwise" in output
    assert "'>50K.' (known: '>50K')" in output
    assert "refused" in rlhpo("audit", "flag", cwd=tmp_path)
    assert str(client(tmp_path).get_registered_model("flag").aliases["champion"]) == "1"


def test_a_folder_of_parts_gives_the_same_trials_with_both_engines(tmp_path: Path) -> None:
    """kubeflow/kfp-tekton#996, ludwig-ai/ludwig#3396: as Spark writes a table, with a blank in its path."""
    new_store(tmp_path / "runs")
    place = tmp_path / "my tables" / "customers.parquet"
    parts = week(1, 300).assign(day=["2024-05-01", "2024-05-02"] * 150)
    parts.to_parquet(place, partition_cols=["day"])
    data = {"path": "my tables/customers.parquet", "target": "churn"}
    path = study(tmp_path, data=data, objective="accuracy", tuner={"trials_per_round": 2}, registry={})
    for engine in ("inprocess", "kfp"):
        rlhpo("tune", path, "--engine", engine, "--out", f"runs/{engine}", cwd=tmp_path)
    plain, piped = (StudyFolder.open(tmp_path / "runs" / name).history().trials for name in ("inprocess", "kfp"))
    assert [trial.value for trial in plain] == [trial.value for trial in piped]
    assert [trial.proposal.config for trial in plain] == [trial.proposal.config for trial in piped]
    assert len(plain) == 2


def test_a_table_in_an_object_store_is_looked_at_and_tuned_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first study file to the trials of both engines."""
    new_store(tmp_path / "runs")
    place, address = tmp_path / "customers.parquet", "s3://bucket/tables/customers.parquet"
    week(1, 300).assign(day=["2024-05-01", "2024-05-02"] * 150).to_parquet(place, partition_cols=["day"])
    fields = {"objective": "accuracy", "tuner": {"trials_per_round": 2}, "registry": {}}
    with serving(PlainS3(), monkeypatch):
        store = open_store(address)
        for part in place.rglob("*.parquet"):
            store.write(part.relative_to(place).as_posix(), part.read_bytes())
        said = rlhpo("init", "--data", address, "--target", "churn", "--out", "first.yaml", cwd=tmp_path)
        assert f"{address}: 300 rows" in said
        assert f"path: {address}" in (tmp_path / "first.yaml").read_text()
        path = study(tmp_path, data={"path": address, "target": "churn"}, **fields)
        assert "can be read: 300 rows" in rlhpo("check", path, cwd=tmp_path)
        skipped = rlhpo("check", path, "--offline", cwd=tmp_path)
        assert f"{address} is looked at without --offline" in skipped
        for engine in ("inprocess", "kfp"):
            rlhpo("tune", path, "--engine", engine, "--out", f"runs/{engine}", cwd=tmp_path)
    folders = [StudyFolder.open(tmp_path / "runs" / name) for name in ("inprocess", "kfp")]
    far, piped = ([trial.value for trial in folder.history().trials] for folder in folders)
    assert far == piped
    assert len(far) == 2
    here = load_table(DataSpec(path=place, target="churn"), seed=0).digest
    assert [folder.record().table for folder in folders] == [here, here]
    assert folders[0].record().baseline == folders[1].record().baseline is not None
    assert address in folders[0].study_file.read_text()


def test_the_model_takes_rows_as_pandas_reads_them(tmp_path: Path) -> None:
    """Whole numbers are int64 there, and truth values bool; the guide shows this call."""
    new_store(tmp_path / "runs")
    write(tmp_path, week(1)[["age", "fee", "online", "churn"]])
    rlhpo("tune", study(tmp_path, objective="accuracy", data={"path": "current.csv", "target": "churn"}), cwd=tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs/mlflow.db")
    try:
        model = mlflow.pyfunc.load_model("models:/flag@champion")
        answered = model.predict(pd.read_csv(tmp_path / "current.csv").drop(columns="churn"))
    finally:
        mlflow.set_tracking_uri(None)
    assert len(answered) == 1500
    assert set(answered["prediction"]) <= {"yes", "no"}
