from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlhpo_core.data.table import load_table
from rlhpo_core.errors import UserError
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.tables import at_hand, fetch_table
from rlhpo_core.study.spec import DataSpec, StudySpec, dump_study, parse_study
from tests.helpers.pictures import as_npz
from tests.helpers.plain_s3 import PlainS3, serving


def study(path: str) -> StudySpec:
    text = (
        f"name: far\ndata: {{path: '{path}', target: churn}}\nevaluator: {{kind: xgboost}}\nobjective: accuracy\n"
        "space: {max_depth: {type: int, low: 2, high: 6}}\n"
    )
    return parse_study(text, "far", Path("/studies"))


def customers(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.integers(18, 80, rows), "day": ["2024-05-01", "2024-05-02"] * (rows // 2)})
    return table.assign(churn=rng.choice(["no", "yes"], rows))


def test_a_file_is_copied_under_its_name(tmp_path: Path) -> None:
    path = as_npz(tmp_path / "corners.npz")
    assert fetch_table(str(path), tmp_path / "fetched") == "corners.npz"
    assert (tmp_path / "fetched").read_bytes() == path.read_bytes()


def test_nothing_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no table at file:///.*/absent"):
        fetch_table(f"file://{tmp_path}/absent", tmp_path / "fetched")
    with pytest.raises(UserError, match=r"cannot read the table .*absent\.csv"):
        fetch_table(str(tmp_path / "absent.csv"), tmp_path / "fetched")


@pytest.mark.parametrize("place", ["tables/customers.parquet", "customers"])
def test_parts_in_an_object_store_are_the_table_that_they_are_here(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Spark leaves them, with a marker of its own beside them."""
    here = tmp_path / "customers.parquet"
    customers().to_parquet(here, partition_cols=["day"])
    (here / "_SUCCESS").touch()
    with serving(PlainS3(), monkeypatch):
        store = open_store(f"s3://bucket/{place}")
        for part in here.rglob("*"):
            if part.is_file():
                store.write(part.relative_to(here).as_posix(), part.read_bytes())
        spec = study(f"s3a://bucket/{place}/")
        assert spec.data is not None
        assert spec.data.address == spec.data.source == f"s3://bucket/{place}"
        assert parse_study(dump_study(spec), "again").data == spec.data
        with at_hand(spec) as local:
            assert local.data is not None
            read = load_table(local.data, seed=0)
        assert not local.data.path.exists(), "the copy lasts as long as it is needed"
        absent = study("s3://bucket/absent")
        with pytest.raises(UserError, match="there is no table at s3://bucket/absent"), at_hand(absent):
            pass
    assert read.digest == load_table(DataSpec(path=here, target="churn"), seed=0).digest


def test_a_file_in_an_object_store_is_read_by_its_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    customers().to_csv(tmp_path / "customers.csv", index=False)
    with serving(PlainS3(), monkeypatch):
        open_store("s3://bucket/tables").write("customers.csv", (tmp_path / "customers.csv").read_bytes())
        with at_hand(study("s3://bucket/tables/customers.csv")) as local:
            assert local.data is not None
            assert local.data.path.name == "customers.csv"
            read = load_table(local.data, seed=0)
    assert read.digest == load_table(DataSpec(path=tmp_path / "customers.csv", target="churn"), seed=0).digest


def test_what_lies_here_is_taken_as_it_is(tmp_path: Path) -> None:
    spec = study("customers.csv")
    assert spec.data is not None
    assert (spec.data.address, spec.data.source) == (None, "/studies/customers.csv")
    with at_hand(spec) as local:
        assert local is spec
    written = study(f"file://{tmp_path}/a%20b.csv").data
    assert written is not None
    assert written.path == tmp_path / "a b.csv"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("gs://bucket/t.csv", "data.path: data cannot be at gs://; write a path, file:///… or s3://bucket/prefix"),
        ("s3:/bucket/t.csv", "data.path: 's3:/bucket/t.csv' is no address; did you mean 's3://bucket/t.csv'?"),
        ("https://example.org/t.csv", "data.path: data cannot be at https://"),
        ("s3://", "data.path: 's3://' names no bucket"),
    ],
)
def test_an_address_that_is_none_is_refused(path: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        study(path)
    assert said in str(refused.value)
