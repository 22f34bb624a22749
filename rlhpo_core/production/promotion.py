"""Who is champion: decisions under a lock, written to the ledger, and then carried out in the registry.

Whoever holds the lock decides for all challengers that wait, so of two that finish at once the better one is promoted.
The ledger's record is the decision; aliases and tags follow it, and if a crash comes between, whoever looks next makes
it good (``settle``). What can no longer be carried out is recorded as abandoned and stands in nobody's way. Aliases
that people set by hand are respected: the champion is read anew just before the decision is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient

from rlhpo_core.errors import UserError
from rlhpo_core.production.gate import Decision, Verdict
from rlhpo_core.production.ledger import DECISIONS, PLACE, Candidate, Ledger, Outcome, Record
from rlhpo_core.storage.lock import Lock, locked
from rlhpo_core.tracking.provenance import author, circumstances
from rlhpo_core.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    aliases_of_model,
    registered_model,
    version_exists,
)

#: Tag of a registered model: the last record of the ledger that its aliases follow.
APPLIED = "rlhpo.audit"
#: Tag of a version: what was decided about it, and in which record.
DECISION = "rlhpo.gate.decision"
#: (champion, challengers) → a verdict for each challenger that could be judged.
Judge = Callable[[str, Sequence[str]], Mapping[str, Verdict]]

_OUTCOMES: dict[Decision, Outcome] = {"promote": "promoted", "keep": "kept", "veto": "vetoed", "refuse": "refused"}
_ATTEMPTS = 5


@dataclass(frozen=True)
class _Entry:
    """What the registry says of a model."""

    created: int
    """When, by MLflow in Unix milliseconds."""
    aliases: Mapping[str, str]
    """To versions."""
    applied: int
    """Number of the last record that the aliases follow; 0 if there is none."""

    @property
    def champion(self) -> str | None:
        return self.aliases.get(CHAMPION)


def champion_of(client: MlflowClient, model: str) -> str | None:
    """The champion's version; ``None`` if there is no such model, or none is champion."""
    return aliases_of_model(client, model).get(CHAMPION)


def created_at(client: MlflowClient, model: str) -> int | None:
    """When the registered model was created, in Unix milliseconds; ``None`` if there is no such model."""
    entry = _entry(client, model)
    return None if entry is None else entry.created


def enter(client: MlflowClient, ledger: Ledger, version: str, study_id: str, champion: str | None) -> None:
    """Have a version wait for a decision.

    Args:
        champion: The version that it challenges.

    Raises: UserError if the model is not in the registry.
    """
    created = _entry_of(client, ledger).created
    ledger.enter(Candidate(version=version, study_id=study_id, champion=champion, model_created=created))


def decide(client: MlflowClient, ledger: Ledger, version: str, study_id: str, digest: str, judge: Judge) -> Record:
    """Decide about a version, together with all others that wait, or read how another process has decided.

    Args:
        version: Has entered the ledger as a candidate.
        study_id: Of the study that the version comes from.
        digest: Of the table that the decision rests on.
        judge: Called at most once for each champion that is there meanwhile. It may take long: the lock is kept.

    Raises: UserError if the lock cannot be had, if the version is no longer in the registry, or if the champion keeps
    changing.
    """
    with locked(ledger.store, author()) as lock:
        for _ in range(_ATTEMPTS):
            _carry_out(client, ledger)
            entry = _entry_of(client, ledger)
            if not version_exists(client, ledger.model, version):
                ledger.leave(version)
                raise UserError(f"version {version} of {ledger.model} was deleted before anything was decided about it")
            records = ledger.records(entry.created)
            decided = [record for record in records if record.challenger == version and record.outcome in DECISIONS]
            if decided:
                ledger.leave(version)
                return decided[-1]
            if (record := _attempt(client, ledger, lock, entry, version, study_id, digest, judge)) is not None:
                return record
    raise UserError(f"the champion of {ledger.model} changed {_ATTEMPTS} times while {version} was judged; try again")


def _attempt(
    client: MlflowClient, ledger: Ledger, lock: Lock, entry: _Entry, version: str, study_id: str, digest: str,
    judge: Judge,
) -> Record | None:  # fmt: skip
    """One decision; ``None`` if the champion changed meanwhile."""
    after, champion = _last_number(ledger, entry), entry.champion
    facts: dict[str, Any] = {
        "model": ledger.model, "model_created": entry.created, "data_digest": digest, **circumstances()
    }  # fmt: skip
    if champion is None or champion == version:
        record = Record(
            outcome="first", reason="the first version of this model", challenger=version, champion=version,
            champion_before=champion, previous=entry.aliases.get(PREVIOUS), study_id=study_id, **facts,
        )  # fmt: skip
        return _write(client, ledger, record, after)
    study_ids = _waiting(client, ledger, champion, entry.created) | {version: study_id}
    with lock.kept():
        verdicts = judge(champion, sorted(study_ids, key=int))
    if champion_of(client, ledger.model) != champion:
        return None
    decision: Record | None = None
    for challenger, record in _records(
        verdicts, version, champion, entry.aliases.get(PREVIOUS), study_ids, facts
    ).items():
        written = _write(client, ledger, record, after)
        if written is None:
            return None
        after = written.number
        ledger.leave(challenger)
        decision = written if challenger == version else decision
    return decision


def _waiting(client: MlflowClient, ledger: Ledger, champion: str, created: int) -> dict[str, str]:
    """Version to study of those that wait. One that was deleted meanwhile would be judged for ever, and leaves."""
    study_ids = {}
    for candidate in ledger.waiting(champion, created):
        if version_exists(client, ledger.model, candidate.version):
            study_ids[candidate.version] = candidate.study_id
        else:
            ledger.leave(candidate.version)
    return study_ids


def _records(
    verdicts: Mapping[str, Verdict], version: str, champion: str, previous: str | None,
    study_ids: Mapping[str, str], facts: Mapping[str, Any],
) -> dict[str, Record]:  # fmt: skip
    """Challenger to what is recorded of it, the promotion first: it is what must not be lost.

    Of the others than ``version`` a refusal is not recorded: the data of their own studies may suffice.
    """
    gains = {
        challenger: verdict.measured.gain if verdict.measured is not None else 0.0
        for challenger, verdict in verdicts.items()
        if verdict.decision == "promote"
    }
    best = max(gains, key=lambda challenger: (gains[challenger], -int(challenger)), default=None)
    records: dict[str, Record] = {}
    for challenger in sorted(verdicts, key=lambda challenger: (challenger != best, int(challenger))):
        verdict = verdicts[challenger]
        outcome, reason = _OUTCOMES[verdict.decision], verdict.reason
        if challenger in gains and challenger != best:
            outcome, reason = "kept", f"{reason}; but version {best}, which waited at the same time, gains more"
        if outcome == "refused" and challenger != version:
            continue
        records[challenger] = Record(
            outcome=outcome, reason=reason, challenger=challenger, verdict=verdict, study_id=study_ids[challenger],
            champion_before=champion if best is None or challenger == best else best,
            champion=best or champion, previous=champion if best else previous, **facts,
        )  # fmt: skip
    return records


def promote(client: MlflowClient, ledger: Ledger, version: str | None, reason: str) -> Record:
    """Make a version champion by hand.

    Args:
        version: ``None`` stands for the challenger.
        reason: For a person to read, in the ledger.

    Raises: UserError if none is named and there is no challenger, or if it is champion already; MlflowException if
    there is no such version.
    """
    with locked(ledger.store, author()):
        _carry_out(client, ledger)
        entry = _entry_of(client, ledger)
        wanted = version or entry.aliases.get(CHALLENGER)
        if wanted is None:
            raise UserError(f"{ledger.model} has no challenger; name a version with --version")
        client.get_model_version(ledger.model, wanted)
        if wanted == entry.champion:
            raise UserError(f"version {wanted} is the champion of {ledger.model} already")
        return _by_hand(client, ledger, entry, "promoted", wanted, f"by hand: {reason}")


def rollback(client: MlflowClient, ledger: Ledger, reason: str) -> Record:
    """Make the previous champion champion again; the one that steps back becomes ``previous``.

    Args:
        reason: For a person to read, in the ledger.

    Raises: UserError if there is no previous champion.
    """
    with locked(ledger.store, author()):
        _carry_out(client, ledger)
        entry = _entry_of(client, ledger)
        if PREVIOUS not in entry.aliases:
            raise UserError(f"{ledger.model} has no previous champion to go back to")
        return _by_hand(client, ledger, entry, "rolled_back", entry.aliases[PREVIOUS], reason)


def _by_hand(
    client: MlflowClient, ledger: Ledger, entry: _Entry, outcome: Outcome, version: str, reason: str
) -> Record:
    record = Record(
        outcome=outcome, model=ledger.model, model_created=entry.created, reason=reason,
        champion_before=entry.champion, champion=version, previous=entry.champion,
        challenger=version if outcome == "promoted" else None, **circumstances(),
    )  # fmt: skip
    written = _write(client, ledger, record, _last_number(ledger, entry))
    if written is None:
        raise UserError(f"something else happened to {ledger.model} just now; look at it and try again")
    return written


# -- from the ledger to the registry ---------------------------------------------------------------------------------


def settle(client: MlflowClient, ledger: Ledger, patience: float = 900.0) -> Record | None:
    """Carry out what the ledger says and the registry does not show yet, after a crash in between.

    Args:
        patience: Seconds to wait for the lock, which is taken only if there is such a thing.

    Returns: What was recorded because something can no longer be carried out; ``None`` if all could be.

    Raises: UserError if the lock cannot be had.
    """
    entry = _entry(client, ledger.model)
    if entry is None or not _pending(ledger, entry):
        return None
    with locked(ledger.store, author(), patience=patience):
        return _carry_out(client, ledger)


def _write(client: MlflowClient, ledger: Ledger, record: Record, after: int) -> Record | None:
    """Into the ledger, then into the registry."""
    written = ledger.append(record, after)
    if written is not None:
        _carry_out(client, ledger)
    return written


def _carry_out(client: MlflowClient, ledger: Ledger) -> Record | None:
    """``settle`` for the lock's holder: the aliases follow the latest move only, the tags every record."""
    entry = _entry(client, ledger.model)
    pending = [] if entry is None else _pending(ledger, entry)
    if entry is None or not pending:
        return None
    number, abandoned = pending[-1].number, None
    if (move := _latest_move(pending)) is not None:
        if (obstacle := _obstacle(client, entry, move)) is None:
            _move(client, entry, move)
        else:
            abandoned = ledger.add(_abandoned(entry, move, obstacle))
            number = abandoned.number
    for record in pending:
        if record.challenger is not None and version_exists(client, ledger.model, record.challenger):
            for name, value in _tags(record).items():
                client.set_model_version_tag(ledger.model, record.challenger, name, value)
    if ledger.place is not None:
        client.set_registered_model_tag(ledger.model, PLACE, ledger.place)
    client.set_registered_model_tag(ledger.model, APPLIED, str(number))
    return abandoned


def _pending(ledger: Ledger, entry: _Entry) -> list[Record]:
    """Records of this model, the oldest first, that concern the registry and are newer than what it shows."""
    return [
        record
        for record in ledger.records(entry.created, after=entry.applied)
        if record.moves or record.challenger is not None or record.outcome == "abandoned"
    ]


def _latest_move(pending: Sequence[Record]) -> Record | None:
    """The last that changes the champion, unless it was abandoned already."""
    moves = [record for record in pending if record.moves or record.outcome == "abandoned"]
    return moves[-1] if moves and moves[-1].outcome != "abandoned" else None


def _obstacle(client: MlflowClient, entry: _Entry, move: Record) -> str | None:
    """Why a change of the champion can no longer be carried out; ``None`` if it can."""
    if move.champion is None or not version_exists(client, move.model, move.champion):
        return "that version is not in the registry any more"
    if entry.champion not in (None, move.champion_before, move.champion):
        return f"version {entry.champion} was made champion by hand meanwhile"
    return None


def _abandoned(entry: _Entry, move: Record, obstacle: str) -> Record:
    there = "there is no champion" if entry.champion is None else f"the champion is version {entry.champion}"
    return Record(
        outcome="abandoned", model=move.model, model_created=entry.created, champion_before=entry.champion,
        champion=entry.champion, previous=entry.aliases.get(PREVIOUS), data_digest=move.data_digest,
        reason=f"record {move.number} made version {move.champion} champion, but {obstacle}; {there}. To have another "
        f"one, name it: rlhpo promote {move.model} --version N",
        **circumstances(),
    )  # fmt: skip


def _move(client: MlflowClient, entry: _Entry, move: Record) -> None:
    """Set the aliases as a record has them."""
    if move.previous is not None and version_exists(client, move.model, move.previous):
        client.set_registered_model_alias(move.model, PREVIOUS, move.previous)
    client.set_registered_model_alias(move.model, CHAMPION, move.champion)
    if entry.aliases.get(CHALLENGER) == move.champion:
        client.delete_registered_model_alias(move.model, CHALLENGER)


def _tags(record: Record) -> dict[str, str]:
    """The decision, on the version that it is about; the ledger, and the version's description, have all of it."""
    return {DECISION: f"{record.outcome} (record {record.number})"}


def _entry(client: MlflowClient, name: str) -> _Entry | None:
    """``None`` if there is no such model."""
    model = registered_model(client, name)
    if model is None:
        return None
    applied = model.tags.get(APPLIED, "")
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    return _Entry(int(model.creation_timestamp), aliases, int(applied) if applied.isdecimal() else 0)


def _entry_of(client: MlflowClient, ledger: Ledger) -> _Entry:
    """Raises: UserError if there is no such model."""
    entry = _entry(client, ledger.model)
    if entry is None:
        raise UserError(f"there is no registered model {ledger.model!r} in MLflow")
    return entry


def _last_number(ledger: Ledger, entry: _Entry) -> int:
    """After which the next record comes: also where the ledger was lost, and the registry follows a later record."""
    last = ledger.last()
    return max(entry.applied, last.number if last is not None else 0)
