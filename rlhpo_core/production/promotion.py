"""Who is champion: decisions under a lock, written to the ledger, and then carried out in the registry.

Whoever holds the lock decides for all challengers that wait, so of two that finish at once the better one is promoted.
The ledger's record is the decision; aliases and tags follow it, and if a crash comes between, whoever is next makes it
good. Aliases that people set by hand are respected: the champion is read anew just before the decision is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow import MlflowClient

from rlhpo_core.errors import UserError
from rlhpo_core.production.gate import Decision, Verdict
from rlhpo_core.production.ledger import DECISIONS, Ledger, Outcome, Record
from rlhpo_core.storage.lock import Lock, locked
from rlhpo_core.tracking.provenance import author, circumstances
from rlhpo_core.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, aliases_of_model, registered_model

#: Tag of a registered model: the last record of the ledger that its aliases follow.
APPLIED = "rlhpo.audit"
#: (champion, challengers) → a verdict for each challenger that could be judged.
Judge = Callable[[str, Sequence[str]], Mapping[str, Verdict]]

_OUTCOMES: dict[Decision, Outcome] = {"promote": "promoted", "keep": "kept", "veto": "vetoed", "refuse": "refused"}
_ATTEMPTS = 5


def champion_of(client: MlflowClient, model: str) -> str | None:
    """The champion's version; ``None`` if there is no such model, or none is champion."""
    return aliases_of_model(client, model).get(CHAMPION)


def decide(client: MlflowClient, ledger: Ledger, version: str, study_id: str, digest: str, judge: Judge) -> Record:
    """Decide about a version, together with all others that wait, or read how another process has decided.

    Args:
        version: Has entered the ledger as a candidate.
        study_id: Of the study that the version comes from.
        digest: Of the table that the decision rests on.
        judge: Called at most once for each champion that is there meanwhile.

    Raises: UserError if the lock cannot be had, or if the champion keeps changing.
    """
    with locked(ledger.store, author()) as lock:
        for _ in range(_ATTEMPTS):
            settle(client, ledger)
            decided = [r for r in ledger.records() if r.challenger == version and r.outcome in DECISIONS]
            if decided:
                ledger.leave(version)
                return decided[-1]
            if (record := _attempt(client, ledger, lock, version, study_id, digest, judge)) is not None:
                return record
    raise UserError(f"the champion of {ledger.model} changed {_ATTEMPTS} times while {version} was judged; try again")


def _attempt(
    client: MlflowClient, ledger: Ledger, lock: Lock, version: str, study_id: str, digest: str, judge: Judge
) -> Record | None:
    """One decision; ``None`` if the champion changed meanwhile."""
    last, aliases = ledger.last(), aliases_of_model(client, ledger.model)
    after, champion = last.number if last is not None else 0, aliases.get(CHAMPION)
    facts: dict[str, Any] = {"model": ledger.model, "data_digest": digest, **circumstances()}
    if champion is None or champion == version:
        record = Record(
            outcome="first", reason="the first version of this model", challenger=version, champion=version,
            champion_before=champion, previous=aliases.get(PREVIOUS), study_id=study_id, **facts,
        )  # fmt: skip
        return _write(client, ledger, record, after)
    study_ids = {waiting.version: waiting.study_id for waiting in ledger.waiting(champion)} | {version: study_id}
    verdicts = judge(champion, sorted(study_ids, key=int))
    lock.renew()
    if champion_of(client, ledger.model) != champion:
        return None
    decision: Record | None = None
    for challenger, record in _records(verdicts, version, champion, aliases.get(PREVIOUS), study_ids, facts).items():
        written = _write(client, ledger, record, after)
        if written is None:
            return None
        after = written.number
        ledger.leave(challenger)
        decision = written if challenger == version else decision
    return decision


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
        settle(client, ledger)
        aliases = aliases_of_model(client, ledger.model)
        wanted = version or aliases.get(CHALLENGER)
        if wanted is None:
            raise UserError(f"{ledger.model} has no challenger; name a version with --version")
        client.get_model_version(ledger.model, wanted)
        if wanted == aliases.get(CHAMPION):
            raise UserError(f"version {wanted} is the champion of {ledger.model} already")
        return _by_hand(client, ledger, "promoted", wanted, aliases, f"by hand: {reason}")


def rollback(client: MlflowClient, ledger: Ledger, reason: str) -> Record:
    """Make the previous champion champion again; the one that steps back becomes ``previous``.

    Args:
        reason: For a person to read, in the ledger.

    Raises: UserError if there is no previous champion.
    """
    with locked(ledger.store, author()):
        settle(client, ledger)
        aliases = aliases_of_model(client, ledger.model)
        if PREVIOUS not in aliases:
            raise UserError(f"{ledger.model} has no previous champion to go back to")
        return _by_hand(client, ledger, "rolled_back", aliases[PREVIOUS], aliases, reason)


def _by_hand(
    client: MlflowClient, ledger: Ledger, outcome: Outcome, version: str, aliases: Mapping[str, str], reason: str
) -> Record:
    last, before = ledger.last(), aliases.get(CHAMPION)
    record = Record(
        outcome=outcome, model=ledger.model, reason=reason, champion_before=before, champion=version, previous=before,
        challenger=version if outcome == "promoted" else None, **circumstances(),
    )  # fmt: skip
    written = _write(client, ledger, record, last.number if last is not None else 0)
    if written is None:
        raise UserError(f"something else happened to {ledger.model} just now; look at it and try again")
    return written


def settle(client: MlflowClient, ledger: Ledger) -> None:
    """Carry out what the ledger says and the registry does not show yet, after a crash in between."""
    last = ledger.last()
    if last is None:
        return
    applied = _applied(client, ledger.model)
    if last.number > applied:
        for record in ledger.records()[-(last.number - applied) :]:
            _apply(client, record)


def _write(client: MlflowClient, ledger: Ledger, record: Record, after: int) -> Record | None:
    """Into the ledger, then into the registry."""
    written = ledger.append(record, after)
    if written is not None:
        _apply(client, written)
    return written


def _apply(client: MlflowClient, record: Record) -> None:
    model = record.model
    if record.moves and record.champion is not None and _applied(client, model) < record.number:
        aliases = aliases_of_model(client, model)
        if record.previous is not None:
            client.set_registered_model_alias(model, PREVIOUS, record.previous)
        client.set_registered_model_alias(model, CHAMPION, record.champion)
        if aliases.get(CHALLENGER) == record.champion:
            client.delete_registered_model_alias(model, CHALLENGER)
    if record.challenger is not None:
        for name, value in _tags(record).items():
            client.set_model_version_tag(model, record.challenger, name, value)
    if record.champion is not None:
        client.set_registered_model_tag(model, APPLIED, str(record.number))


def _tags(record: Record) -> dict[str, str]:
    """The decision, on the version that it is about."""
    facts: dict[str, object] = {
        "decision": record.outcome, "reason": record.reason[:5000], "by": record.by,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.at)), "record": record.number,
        "against": record.champion_before, "data_digest": record.data_digest,
        "code_commit": record.code_commit, "image_digest": record.image_digest,
    }  # fmt: skip
    if (verdict := record.verdict) is not None:
        facts |= verdict.model_dump(include={"metric", "rows", "confidence"})
        facts |= {} if verdict.measured is None else verdict.measured.model_dump(exclude={"detectable"})
    return {f"rlhpo.gate.{name}": str(value) for name, value in facts.items() if value is not None}


def _applied(client: MlflowClient, name: str) -> int:
    model = registered_model(client, name)
    return 0 if model is None else int(model.tags.get(APPLIED, 0))
