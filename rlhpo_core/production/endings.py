"""How a retuning ends, in the ledger and by alerts: also one whose process died before it could say so.

A retuning that others look after leaves a mark beside the ledger when it begins, ``begun/<run>.json``, and completes it
at its end. One that fails says so itself, and records it. For one that died, whoever looks next does: the last step of
its own run, or the next retuning of the model. A failure is recorded once, whoever comes first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from rlhpo_core.frozen import Frozen
from rlhpo_core.production import alerts
from rlhpo_core.production.ledger import CHAMPION_STAYS, DECISIONS, Ledger, Outcome, Record
from rlhpo_core.storage import lease
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import RECORD, TRIALS, StudyFiles
from rlhpo_core.study.production_settings import Alert
from rlhpo_core.study.spec import StudySpec
from rlhpo_core.tracking.provenance import circumstances

_ALERTS: dict[Outcome, Alert] = {
    "first": "promoted", "promoted": "promoted", "kept": "kept", "vetoed": "kept", "refused": "kept",
    "skipped": "skipped", "failed": "failed", "rolled_back": "rolled_back", "abandoned": "failed",
}  # fmt: skip
_FOLDER = "begun/"
#: Seconds after which the mark of a retuning that has ended is removed: its own run has ended long before.
_KEPT = 7 * 86400.0


class Begun(Frozen):
    """The mark of a retuning."""

    run: str
    """Its name: KFP's id of the run."""
    at: float
    """When it began, in Unix seconds."""
    store: str = ""
    """Where its study lies; empty until it is known that there is something to tune."""
    end: str = ""
    """How it has ended, for a person to read; empty while it has not."""


#: What is known of a retuning that died, for a person to read; empty for nothing.
Explain = Callable[[Begun], str]


def begin(ledger: Ledger, run: str) -> None:
    """Note that a retuning begins; a step that is run again finds its mark. Raises: UserError if the store fails."""
    ledger.store.create(_key(run), Begun(run=run, at=time.time()).model_dump_json().encode())


def note_study(ledger: Ledger, run: str, store: str) -> None:
    """Note where the study lies that is now tuned. Raises: UserError if the store fails."""
    _write(ledger, _mark(ledger, run).model_copy(update={"store": store}))


def end(ledger: Ledger, run: str, how: str) -> None:
    """Note that a retuning has come to its end.

    Args:
        how: For a person to read.

    Raises: UserError if the store fails.
    """
    _write(ledger, _mark(ledger, run).model_copy(update={"end": how}))


def study_of(ledger: Ledger, run: str) -> str | None:
    """Where the study of a retuning lies; ``None`` if it has none. Raises: UserError if the store fails."""
    return _mark(ledger, run).store or None


@contextmanager
def recording_failure(
    spec: StudySpec, ledger: Ledger, warn: Callable[[str], None], run: str | None = None
) -> Iterator[None]:
    """If an error leaves the context, record that the retuning failed and send the alert, then let it go on.

    Args:
        warn: Takes the text of an alert that could not be sent.
        run: The retuning's name, if it has a mark.
    """
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # A line that ends so says nothing without the next.
        said = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
        _fail(spec, ledger, said, warn, run)
        raise


def fail_unless_ended(
    spec: StudySpec, ledger: Ledger, run: str, warn: Callable[[str], None], explain: Explain = lambda begun: ""
) -> Record | None:
    """Record that a retuning failed that is over, and send the alert, unless it has come to an end.

    An end is a decision about its winner, by whichever process, a record that it stood still or failed, and that there
    was nothing to decide about yet.

    Args:
        warn: As for ``recording_failure``.
        explain: Asked what is known.

    Returns: the record; ``None`` if there was an end.

    Raises: UserError if the store fails.
    """
    mark = _mark(ledger, run)
    if mark.end or _is_in_ledger(ledger, mark):
        return None
    known = explain(mark) or "it came to no decision, and nobody works on it any more"
    return _fail(spec, ledger, f"{known}; {_trained(mark)}", warn, run)


def fail_lost(
    spec: StudySpec, ledger: Ledger, but: str | None, warn: Callable[[str], None], explain: Explain = lambda begun: ""
) -> list[Record]:
    """``fail_unless_ended`` for earlier retunings of the model whose runs have died without their last step.

    These are begun and not ended, nobody holds their study, and they began longer ago than a run keeps a study between
    two steps. Marks that have done their service are removed.

    Args:
        but: The retuning that asks.

    Raises: UserError if the store fails.
    """
    records, now = [], time.time()
    for key in ledger.store.keys(_FOLDER):
        begun = _read(ledger, key)
        if begun is None or begun.run == but:
            continue
        if begun.end:
            if begun.at < now - _KEPT:
                ledger.store.delete(key)
        elif begun.at < now - lease.RUN_EXPIRY and (not begun.store or _is_free(begun.store)):
            record = fail_unless_ended(spec, ledger, begun.run, warn, explain)
            if record is None:
                end(ledger, begun.run, "as the ledger says")
            else:
                records.append(record)
    return records


def send_alerts(spec: StudySpec, ledger: Ledger, record: Record, warn: Callable[[str], None]) -> None:
    """Send the alerts that a record of the ledger gives cause for; ``warn`` takes the text of one that fails."""
    content = {"model": record.model, "reason": record.reason, "record": record.model_dump(mode="json")}
    alerts.send(spec.alerts, _ALERTS[record.outcome], content, warn)
    times = ledger.times_kept_in_a_row(record.model_created) if record.outcome in CHAMPION_STAYS else 0
    if times and times % spec.alerts.keeps == 0:
        reason = f"the champion of {record.model} was kept {times} times in a row"
        alerts.send(spec.alerts, "keeps_in_row", {"model": record.model, "reason": reason, "keeps": times}, warn)


def _fail(spec: StudySpec, ledger: Ledger, reason: str, warn: Callable[[str], None], run: str | None) -> Record | None:
    """Record a failure and send the alert; ``None`` if another process has recorded it."""
    record = Record(outcome="failed", model=ledger.model, reason=reason[:500], run=run, **circumstances())
    added = ledger.add(record) if run is None else ledger.add_once(record)
    if run is not None:
        end(ledger, run, "failed")
    if added is not None:
        send_alerts(spec, ledger, added, warn)
    return added


def _is_in_ledger(ledger: Ledger, mark: Begun) -> bool:
    """Whether a record says how it has ended, though its process died before it completed the mark."""
    files = StudyFiles(open_store(mark.store)) if mark.store else None
    study = None if files is None or files.store.read(RECORD) is None else files.record().study_id
    return any(
        record.run == mark.run or (study is not None and record.study_id == study and record.outcome in DECISIONS)
        for record in ledger.records()
    )


def _trained(mark: Begun) -> str:
    if not mark.store:
        return "nothing was trained"
    count = len([key for key in open_store(mark.store).keys(TRIALS) if key.endswith(".json")])
    return f"trials trained: {count}, see {mark.store}"


def _is_free(store: str) -> bool:
    return lease.refused(open_store(store)) is None


def _mark(ledger: Ledger, run: str) -> Begun:
    """As it is in the store; of a retuning that did not come to make one, a new one."""
    return _read(ledger, _key(run)) or Begun(run=run, at=time.time())


def _read(ledger: Ledger, key: str) -> Begun | None:
    """``None`` for what is not there, or is no mark."""
    try:
        return Begun.model_validate_json(ledger.store.read(key) or b"")
    except ValidationError:
        return None


def _write(ledger: Ledger, mark: Begun) -> None:
    ledger.store.write(_key(mark.run), mark.model_dump_json().encode())


def _key(run: str) -> str:
    return f"{_FOLDER}{run}.json"
