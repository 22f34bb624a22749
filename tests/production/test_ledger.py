from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.production.ledger import STORE_VARIABLE, Candidate, Ledger, Record


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.of("wine", str(tmp_path / "ledger"))


def candidate(version: str, champion: str = "1", created: int = 100) -> Candidate:
    return Candidate(version=version, model_created=created, study_id=f"study-{version}", champion=champion)


def waiting(ledger: Ledger, champion: str = "1", created: int = 100) -> list[str]:
    return [candidate.version for candidate in ledger.waiting(champion, created)]


def record(outcome: str, **fields: object) -> Record:
    return Record.model_validate({"at": 0, "by": "me", "outcome": outcome, "model": "wine", "reason": "", **fields})


def test_the_place_is_the_studys_then_the_clusters_then_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(STORE_VARIABLE, raising=False)
    assert Ledger.of("wine", None).store.uri == "runs/registry/wine"
    monkeypatch.setenv(STORE_VARIABLE, "s3://bucket/registry/")
    assert Ledger.of("wine", None).place == "s3://bucket/registry"
    assert Ledger.of("wine", str(tmp_path)).place is None, "a folder is of one machine"


def test_records_are_never_overwritten(ledger: Ledger) -> None:
    assert ledger.append(record("failed", reason="first"), after=0) is not None
    assert ledger.append(record("failed", reason="second"), after=0) is None
    assert ledger.add(record("failed", reason="third")).number == 2
    assert [entry.reason for entry in ledger.records()] == ["first", "third"]
    ledger.store.write("audit/00000001.json", b"{}")
    with pytest.raises(UserError, match="damaged, or a newer rlhpo has written it; restore"):
        ledger.records()


def test_decisions_for_the_champion_in_a_row_are_counted_over_what_was_skipped(ledger: Ledger) -> None:
    counts = (("kept", 1), ("skipped", 1), ("vetoed", 2), ("promoted", 0), ("refused", 1), ("failed", 0))
    for outcome, count in counts:
        ledger.add(record(outcome))
        assert ledger.times_kept_in_a_row() == count


def test_a_candidate_waits_for_its_champion_until_it_is_decided(ledger: Ledger) -> None:
    for version, champion in (("10", "1"), ("9", "1"), ("8", "2")):
        ledger.enter(candidate(version, champion))
    assert waiting(ledger) == ["9", "10"]
    ledger.add(record("failed", challenger="9"))
    assert waiting(ledger) == ["9", "10"], "a failure decides nothing"
    ledger.add(record("vetoed", challenger="9"))
    assert waiting(ledger) == ["10"]
    ledger.leave("10")
    assert waiting(ledger) == []
    assert waiting(ledger, champion="2") == ["8"]


def test_what_is_known_of_an_earlier_model_of_the_same_name_decides_nothing(ledger: Ledger) -> None:
    ledger.enter(candidate("2"))
    ledger.enter(candidate("3", created=100))
    for outcome, created in (("kept", 100), ("skipped", 200), ("vetoed", 200), ("kept", 200)):
        ledger.add(record(outcome, challenger="2", model_created=created))
    assert waiting(ledger, created=100) == ["3"]
    assert waiting(ledger, created=200) == []
    ledger.enter(candidate("3", created=200))
    assert (waiting(ledger, created=100), waiting(ledger, created=200)) == ([], ["3"])
    assert [entry.number for entry in ledger.records(200)] == [2, 3, 4]
    assert [entry.number for entry in ledger.records(200, after=2)] == [3, 4]
    assert (ledger.times_kept_in_a_row(100), ledger.times_kept_in_a_row(200)) == (1, 2)


@pytest.mark.parametrize(
    "content", [b"", b'{"version": "2"', b"[1]", b'{"version": "two"}'], ids=["empty", "cut", "other", "word"]
)
def test_a_candidate_that_cannot_be_read_is_in_nobodys_way(ledger: Ledger, content: bytes) -> None:
    ledger.enter(candidate("3"))
    ledger.store.write("candidates/2.json", content)
    ledger.store.write("candidates/4.json", candidate("4").model_dump_json().replace("{", '{"later": 1, ', 1).encode())
    assert waiting(ledger) == ["3"]
    ledger.enter(candidate("2"))
    assert waiting(ledger) == ["2", "3"]


def test_what_lies_beside_the_records_is_none(ledger: Ledger) -> None:
    ledger.add(record("kept"))
    for name in ("00000001.json.bak", "notes.txt", "old/00000009.json"):
        ledger.store.write(f"audit/{name}", b"{}")
    assert ledger.add(record("kept")).number == 2
    assert [entry.number for entry in ledger.records()] == [1, 2]


def test_each_model_has_a_log_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.last() is None
    ledger.add(record("skipped"))
    assert ledger.last() == ledger.records()[0]
    assert Ledger.of("beer", str(tmp_path / "ledger")).records() == []


def test_a_record_moves_the_champion_or_not() -> None:
    assert record("promoted", champion_before="1", champion="2").moves
    assert not record("kept", champion_before="1", champion="1").moves
