"""How a retuning ends when the process that should say so is dead: marks beside the ledger, and who completes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlhpo_core.production import endings
from rlhpo_core.production.endings import Begun, begin, end, fail_lost, fail_unless_ended, note_study, recording_failure
from rlhpo_core.production.ledger import Ledger, Record
from rlhpo_core.storage import lease
from rlhpo_core.storage.lock import locked
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.study.spec import StudySpec
from tests.helpers.pool_study import spec as any_spec

SPEC = any_spec()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.of("wine", str(tmp_path / "ledger"))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Alerts, as (name, reason)."""
    alerts: list[tuple[str, str]] = []

    def send(spec: StudySpec, alert: str, content: Mapping[str, Any], warn: Any) -> None:
        alerts.append((alert, content["reason"]))

    monkeypatch.setattr(endings.alerts, "send", send)
    return alerts


def study(folder: Path, trials: int) -> StudyFiles:
    files = StudyFiles(open_store(str(folder)))
    assert files.claim(StudyRecord(study_id="wine-1"))
    for number in range(trials):
        files.store.write(f"trials/{number}.json", b"")
    return files


def over(ledger: Ledger, run: str) -> Record | None:
    return fail_unless_ended(SPEC, ledger, run, print)


def since_an_hour(ledger: Ledger, run: str) -> None:
    key = f"begun/{run}.json"
    mark = Begun.model_validate_json(ledger.store.read(key) or b"")
    ledger.store.write(key, mark.model_copy(update={"at": time.time() - 3600}).model_dump_json().encode())


def test_a_retuning_that_came_to_no_end_has_failed_once(ledger: Ledger, tmp_path: Path, sent: list[Any]) -> None:
    begin(ledger, "run-1")
    study(tmp_path / "study", trials=3)
    note_study(ledger, "run-1", str(tmp_path / "study"))
    found = fail_unless_ended(
        SPEC, ledger, "run-1", print, lambda begun: f"step 'train' of {begun.run} exited with 137"
    )
    assert found is not None
    assert (found.outcome, found.run) == ("failed", "run-1")
    assert found.reason == f"step 'train' of run-1 exited with 137; trials trained: 3, see {tmp_path / 'study'}"
    assert sent == [("failed", found.reason)]
    assert over(ledger, "run-1") is None
    assert ledger.records() == [found]


def test_one_that_could_not_even_leave_its_mark_has_failed_too(ledger: Ledger, sent: list[Any]) -> None:
    found = over(ledger, "run-1")
    assert found is not None
    assert found.reason == "it came to no decision, and nobody works on it any more; nothing was trained"
    assert over(ledger, "run-1") is None
    assert len(sent) == 1


@pytest.mark.parametrize("how", ["skipped", "nothing was to be decided yet", "promoted"])
def test_an_end_is_an_end(ledger: Ledger, sent: list[Any], how: str) -> None:
    begin(ledger, "run-1")
    end(ledger, "run-1", how)
    begin(ledger, "run-1")  # a pod that runs again
    assert over(ledger, "run-1") is None
    assert ledger.records() == []


@pytest.mark.parametrize("record", [{"outcome": "skipped", "run": "run-1"}, {"outcome": "kept", "study_id": "wine-1"}])
def test_what_the_ledger_says_is_an_end_though_the_process_died_just_then(
    ledger: Ledger, tmp_path: Path, sent: list[Any], record: dict[str, str]
) -> None:
    begin(ledger, "run-1")
    study(tmp_path / "study", trials=1)
    note_study(ledger, "run-1", str(tmp_path / "study"))
    ledger.add(Record.model_validate({"at": 0, "by": "me", "model": "wine", "reason": "", **record}))
    assert over(ledger, "run-1") is None
    since_an_hour(ledger, "run-1")
    assert fail_lost(SPEC, ledger, None, print) == []
    assert len(ledger.records()) == 1
    assert sent == []


def test_an_error_is_recorded_once_and_by_its_first_words(ledger: Ledger, sent: list[Any]) -> None:
    begin(ledger, "run-1")
    with pytest.raises(ZeroDivisionError), recording_failure(SPEC, ledger, print, "run-1"):
        raise ZeroDivisionError("no rows:\n  none at all\nof 3")
    assert over(ledger, "run-1") is None
    assert [(one.outcome, one.reason, one.run) for one in ledger.records()] == [
        ("failed", "no rows: none at all", "run-1")
    ]
    assert sent == [("failed", "no rows: none at all")]


def test_of_several_that_find_a_dead_run_one_records_it(ledger: Ledger, sent: list[Any]) -> None:
    begin(ledger, "run-1")
    start = threading.Barrier(8)

    def look() -> None:
        start.wait()
        over(ledger, "run-1")

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.outcome for one in ledger.records()] == ["failed"]
    assert len(sent) == 1


def test_the_next_retuning_records_what_was_left_by_one_that_died(
    ledger: Ledger, tmp_path: Path, sent: list[Any]
) -> None:
    files = study(tmp_path / "study", trials=2)
    begin(ledger, "dead")
    note_study(ledger, "dead", str(tmp_path / "study"))
    begin(ledger, "me")
    assert fail_lost(SPEC, ledger, "me", print) == [], "it may be waiting for a node"
    since_an_hour(ledger, "dead")
    since_an_hour(ledger, "me")
    with locked(files.store, "run dead", lease.RUN_EXPIRY, patience=0):
        assert fail_lost(SPEC, ledger, "me", print) == [], "somebody works on it"
    (found,) = fail_lost(SPEC, ledger, "me", print)
    assert (found.run, found.outcome) == ("dead", "failed")
    assert "trials trained: 2" in found.reason
    assert fail_lost(SPEC, ledger, "me", print) == []
    assert len(sent) == 1


def test_marks_that_have_done_their_service_are_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(ledger, "over")
    end(ledger, "over", "kept")
    ledger.store.write("begun/backup", b"not ours")
    assert fail_lost(SPEC, ledger, "me", print) == []
    assert len(ledger.store.keys("begun/")) == 2
    monkeypatch.setattr(endings, "_KEPT", -1.0)
    assert fail_lost(SPEC, ledger, "me", print) == []
    assert ledger.store.keys("begun/") == ["begun/backup"]
