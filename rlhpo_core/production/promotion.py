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
from rlhpo_core.production.ledger import JUDGED, Event, Ledger, Record
from rlhpo_core.production.registration import CHALLENGER, CHAMPION
from rlhpo_core.storage.lock import Lock, locked
from rlhpo_core.tracking.provenance import author, circumstances

PREVIOUS = "previous"
#: Tag of a registered model: the last record of the ledger that its aliases follow.
APPLIED = "rlhpo.audit"
#: (champion, challengers) → a verdict for each challenger that could be judged.
Judge = Callable[[str, Sequence[str]], Mapping[str, Verdict]]

_EVENTS: dict[Decision, Event] = {"promote": "promoted", "keep": "kept", "veto": "vetoed", "refuse": "refused"}
_ATTEMPTS = 5


def champion_of(client: MlflowClient, model: str) -> str | None:
    """The champion's version; ``None`` if there is no such model, or none is champion."""
    return _aliases(client, model).get(CHAMPION)


def decide(client: MlflowClient, ledger: Ledger, version: str, study_id: str, digest: str, judge: Judge) -> Record:
    """Decide about a version, together with all others that wait, or find out how another process has decided.

    Raises: UserError if the lock cannot be had, or if the champion keeps changing.
    """
    with locked(ledger.store, author()) as lock:
        for _ in range(_ATTEMPTS):
            settle(client, ledger)
            decided = [r for r in ledger.records() if r.challenger == version and r.event in JUDGED]
            if decided:
                ledger.leave(version)
                return decided[-1]
            if (found := _attempt(client, ledger, lock, version, study_id, digest, judge)) is not None:
                return found
    raise UserError(f"the champion of {ledger.model} changed {_ATTEMPTS} times while {version} was judged; try again")


def _attempt(
    client: MlflowClient, ledger: Ledger, lock: Lock, version: str, study_id: str, digest: str, judge: Judge
) -> Record | None:
    """One decision; ``None`` if the champion changed meanwhile."""
    last, aliases = ledger.last(), _aliases(client, ledger.model)
    after, champion = last.number if last is not None else 0, aliases.get(CHAMPION)
    facts: dict[str, Any] = {"model": ledger.model, "data_digest": digest, **circumstances()}
    if champion is None or champion == version:
        record = Record(
            event="first", reason="the first version of this model", challenger=version, champion=version,
            champion_before=champion, previous=aliases.get(PREVIOUS), study_id=study_id, **facts,
        )  # fmt: skip
        return _write(client, ledger, record, after)
    studies = {one.version: one.study_id for one in ledger.waiting(champion)} | {version: study_id}
    verdicts = dict(judge(champion, sorted(studies, key=int)))
    lock.renew()
    if champion_of(client, ledger.model) != champion:
        return None
    passed = {one: verdict for one, verdict in verdicts.items() if verdict.decision == "promote"}
    best = max(passed, key=lambda one: (passed[one].gain or 0.0, -int(one)), default=None)
    found: Record | None = None
    # The promotion first: it is what must not be lost.
    for one in sorted(verdicts, key=lambda one: (one != best, int(one))):
        verdict = verdicts[one]
        event = _EVENTS[verdict.decision]
        reason = verdict.reason
        if one in passed and one != best:
            event, reason = "kept", f"{reason}; but version {best}, which waited at the same time, gains more"
        if event == "refused" and one != version:
            continue  # its own data may suffice
        record = Record(
            event=event, reason=reason, challenger=one, champion_before=champion, verdict=verdict,
            champion=best or champion, previous=champion if best else aliases.get(PREVIOUS), study_id=studies[one],
            **facts,
        )  # fmt: skip
        if one != best and best is not None:
            record = record.model_copy(update={"champion_before": best})
        written = _write(client, ledger, record, after)
        if written is None:
            return None
        after = written.number
        ledger.leave(one)
        found = written if one == version else found
    return found


def promote(client: MlflowClient, ledger: Ledger, version: str | None, reason: str) -> Record:
    """Make a version champion by hand; the challenger if none is named.

    Raises: UserError if there is no such version, or if it is champion already.
    """
    with locked(ledger.store, author()):
        settle(client, ledger)
        aliases = _aliases(client, ledger.model)
        wanted = version or aliases.get(CHALLENGER)
        if wanted is None:
            raise UserError(f"{ledger.model} has no challenger; name a version with --version")
        client.get_model_version(ledger.model, wanted)
        if wanted == aliases.get(CHAMPION):
            raise UserError(f"version {wanted} is the champion of {ledger.model} already")
        return _by_hand(client, ledger, "promoted", wanted, aliases, f"by hand: {reason}")


def rollback(client: MlflowClient, ledger: Ledger, reason: str) -> Record:
    """Make the previous champion champion again; the one that steps back becomes ``previous``.

    Raises: UserError if there is no previous champion.
    """
    with locked(ledger.store, author()):
        settle(client, ledger)
        aliases = _aliases(client, ledger.model)
        if PREVIOUS not in aliases:
            raise UserError(f"{ledger.model} has no previous champion to go back to")
        return _by_hand(client, ledger, "rolled_back", aliases[PREVIOUS], aliases, reason)


def _by_hand(
    client: MlflowClient, ledger: Ledger, event: Event, version: str, aliases: Mapping[str, str], reason: str
) -> Record:
    last, before = ledger.last(), aliases.get(CHAMPION)
    record = Record(
        event=event, model=ledger.model, reason=reason, champion_before=before, champion=version, previous=before,
        challenger=version if event == "promoted" else None, **circumstances(),
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
        aliases = _aliases(client, model)
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
    found: dict[str, object] = {
        "decision": record.event, "reason": record.reason[:5000], "by": record.by,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.at)), "record": record.number,
        "against": record.champion_before, "data_digest": record.data_digest,
        "code_commit": record.code_commit, "image_digest": record.image_digest,
    }  # fmt: skip
    if (verdict := record.verdict) is not None:
        numbers = ("champion", "challenger", "gain", "low", "high", "margin", "confidence", "rows")
        found |= {name: getattr(verdict, name) for name in numbers} | {"metric": verdict.metric}
    return {f"rlhpo.gate.{name}": str(value) for name, value in found.items() if value is not None}


def _aliases(client: MlflowClient, model: str) -> dict[str, str]:
    """Alias to version; none if there is no such model."""
    found = _registered(client, model)
    return {} if found is None else {alias: str(version) for alias, version in found.aliases.items()}


def _applied(client: MlflowClient, model: str) -> int:
    found = _registered(client, model)
    return 0 if found is None else int(found.tags.get(APPLIED, 0))


def _registered(client: MlflowClient, model: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
