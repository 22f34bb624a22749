from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.production.ledger import Candidate, Ledger, Record


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.of("wine", str(tmp_path / "ledger"))


def record(outcome: str, **fields: object) -> Record:
    return Record.model_validate({"at": 0, "by": "me", "outcome": outcome, "model": "wine", "reason": "", **fields})


def test_records_are_never_overwritten(ledger: Ledger) -> None:
    assert ledger.append(record("failed", reason="first"), after=0) is not None
    assert ledger.append(record("failed", reason="second"), after=0) is None
    assert ledger.add(record("failed", reason="third")).number == 2
    assert [entry.reason for entry in ledger.records()] == ["first", "third"]
    ledger.store.write("audit/00000001.json", b"{}")
    with pytest.raises(UserError, match="damaged; restore it from a backup"):
        ledger.records()


def test_decisions_for_the_champion_in_a_row_are_counted_over_what_was_skipped(ledger: Ledger) -> None:
    counts = (("kept", 1), ("skipped", 1), ("vetoed", 2), ("promoted", 0), ("refused", 1), ("failed", 0))
    for outcome, count in counts:
        ledger.add(record(outcome))
        assert ledger.times_kept_in_a_row() == count


def test_a_candidate_waits_for_its_champion_until_it_is_decided(ledger: Ledger) -> None:
    for version, champion in (("10", "1"), ("9", "1"), ("8", "2")):
        ledger.enter(Candidate(version=version, study_id=f"study-{version}", champion=champion))
    assert [candidate.version for candidate in ledger.waiting("1")] == ["9", "10"]
    ledger.add(record("failed", challenger="9"))
    assert [candidate.version for candidate in ledger.waiting("1")] == ["9", "10"], "a failure decides nothing"
    ledger.add(record("vetoed", challenger="9"))
    assert [candidate.version for candidate in ledger.waiting("1")] == ["10"]
    ledger.leave("10")
    assert ledger.waiting("1") == []
    assert [candidate.study_id for candidate in ledger.waiting("2")] == ["study-8"]


def test_each_model_has_a_log_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.last() is None
    ledger.add(record("skipped"))
    assert ledger.last() == ledger.records()[0]
    assert Ledger.of("beer", str(tmp_path / "ledger")).records() == []


def test_a_record_moves_the_champion_or_not() -> None:
    assert record("promoted", champion_before="1", champion="2").moves
    assert not record("kept", champion_before="1", champion="1").moves
