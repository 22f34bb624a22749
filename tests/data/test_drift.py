from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from rlhpo_core.data.drift import DataProfile, Drift, compare, profile
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.study.production_settings import RetuneSpec
from rlhpo_core.study.spec import DataSpec

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"


def halves(path: Path, name: str) -> list[pd.DataFrame]:
    frame = pd.read_csv(EXAMPLES / name).sample(frac=1, random_state=0)
    return [frame.iloc[: len(frame) // 2], frame.iloc[len(frame) // 2 :]]


def read(path: Path, frame: pd.DataFrame) -> Table:
    frame.to_csv(path, index=False)
    return load_table(DataSpec(path=path, target="target"), seed=0)


def drift(path: Path, then: pd.DataFrame, now: pd.DataFrame) -> Drift:
    before, after = (profile(read(path / f"{name}.csv", frame)) for name, frame in (("then", then), ("now", now)))
    return compare(before, DataProfile.model_validate_json(after.model_dump_json()), RetuneSpec())


def test_the_same_table_is_the_same(tmp_path: Path) -> None:
    then, _ = halves(tmp_path, "german_credit.csv")
    change = drift(tmp_path, then, then)
    assert change.same
    assert change.summary() == "the data is the same"


def test_two_halves_of_a_table_are_new_but_have_not_drifted(tmp_path: Path) -> None:
    for name in ("german_credit.csv", "winequality_white.csv", "car.csv"):
        change = drift(tmp_path, *halves(tmp_path, name))
        assert not change.same
        assert change.drifted == ()
        assert not change.schema_changed
        assert change.moved < 0.02
        assert "nothing drifted" in change.summary()


def test_a_number_that_shifts_and_a_category_that_spreads_have_drifted(tmp_path: Path) -> None:
    then, now = halves(tmp_path, "german_credit.csv")
    moved = now.assign(duration=now["duration"] * 1.8, purpose=np.where(np.arange(len(now)) % 2, "A48", now["purpose"]))
    change = drift(tmp_path, then, moved)
    assert set(change.drifted) == {"duration", "purpose"}
    assert {column.name for column in change.columns[:2]} == {"duration", "purpose"}
    assert all(column.p_value < 0.01 for column in change.columns[:2])
    assert change.moved > drift(tmp_path, then, now).moved
    assert "drifted" in change.summary()


def test_values_that_go_missing_have_drifted(tmp_path: Path) -> None:
    then, now = halves(tmp_path, "german_credit.csv")
    blank = now.assign(housing=now["housing"].where(np.arange(len(now)) % 3 > 0))
    assert drift(tmp_path, then, blank).drifted == ("housing",)


def test_labels_shift(tmp_path: Path) -> None:
    then, now = halves(tmp_path, "german_credit.csv")
    bad, good = now[now["target"] == 2], now[now["target"] == 1]
    change = drift(tmp_path, then, pd.concat([bad, good.iloc[: len(bad) // 2]]))
    assert change.label is not None
    assert change.label.drifted
    assert "target" in change.drifted


def test_the_schema_changes(tmp_path: Path) -> None:
    then, now = halves(tmp_path, "german_credit.csv")
    other = now.rename(columns={"age": "years"}).assign(housing=np.arange(len(now)) % 7)
    target = other["target"].astype(object)
    target.iloc[:20] = 3
    change = drift(tmp_path, then, other.assign(target=target))
    assert (change.added, change.removed, change.retyped) == (("years",), ("age",), ("housing",))
    assert change.new_classes == ("3",)
    assert change.schema_changed
    assert "new columns years; columns gone age; columns of another kind housing; new classes 3" in change.summary()


def test_a_profile_keeps_no_rows_and_stays_small(tmp_path: Path) -> None:
    frame = pd.read_csv(EXAMPLES / "winequality_white.csv")
    remembered = profile(read(tmp_path / "table.csv", frame))
    kept = remembered.columns["alcohol"].quantiles
    assert kept is not None
    assert len(kept) == 500
    assert list(kept) == sorted(kept)
    assert len(remembered.model_dump_json()) < 100_000
