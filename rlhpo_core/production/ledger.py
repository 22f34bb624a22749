"""What happened to a registered model, as an append-only log in an object store: one object per record.

The log decides. A record is made by a conditional write under the next number, so of two that act on the same past one
comes first, and the other has to read again. The registry's aliases follow the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from rlhpo_core import __version__
from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.production.gate import Verdict
from rlhpo_core.storage.object_store import Store, open_store

#: What a retuning, or a person's command, came to.
Outcome = Literal["first", "promoted", "kept", "vetoed", "refused", "skipped", "failed", "rolled_back"]
#: Outcomes by which the champion stays although there was a challenger.
CHAMPION_STAYS: tuple[Outcome, ...] = ("kept", "vetoed", "refused")
#: Outcomes that decide about a challenger.
DECISIONS: tuple[Outcome, ...] = ("first", "promoted", *CHAMPION_STAYS)
#: Where promotions are recorded if the study file does not say.
DEFAULT = "runs/registry"
_AUDIT, _CANDIDATES = "audit/", "candidates/"


class Record(Frozen):
    """One entry of the log."""

    number: int = 0
    """Given when it is appended, from 1."""
    at: float
    """Unix time in seconds."""
    by: str
    """Account and machine."""
    outcome: Outcome
    model: str
    reason: str
    """For a person to read."""
    champion_before: str | None = None
    """A version, as all that follow."""
    challenger: str | None = None
    champion: str | None = None
    """After the event."""
    previous: str | None = None
    """After the event."""
    verdict: Verdict | None = None
    study_id: str | None = None
    data_digest: str | None = None
    code_commit: str | None = None
    image_digest: str | None = None
    rlhpo: str = __version__

    @property
    def moves(self) -> bool:
        """Whether the champion is another one after it."""
        return self.champion != self.champion_before


class Candidate(Frozen):
    """A version that waits for a decision."""

    version: str
    study_id: str
    champion: str | None
    """The version that it challenges."""


@dataclass(frozen=True)
class Ledger:
    """The log of one model. Every method raises ``UserError`` if the store fails."""

    store: Store
    model: str

    @classmethod
    def of(cls, model: str, store: str | None) -> Ledger:
        """Below the place that the study file or the command line names."""
        return cls(open_store(f"{(store or DEFAULT).rstrip('/')}/{model}"), model)

    def records(self) -> list[Record]:
        """All of them, the oldest first.

        Raises: UserError if one is damaged.
        """
        return [self._record(key) for key in self.store.keys(_AUDIT)]

    def last(self) -> Record | None:
        """The newest record; ``None`` if there is none.

        Raises: UserError if it is damaged.
        """
        keys = self.store.keys(_AUDIT)
        return self._record(keys[-1]) if keys else None

    def append(self, record: Record, after: int) -> Record | None:
        """Add a record right after number ``after``; ``None`` if another one was added there first."""
        numbered = record.model_copy(update={"number": after + 1})
        made = self.store.create(f"{_AUDIT}{after + 1:08d}.json", numbered.model_dump_json().encode())
        return numbered if made else None

    def add(self, record: Record) -> Record:
        """Add a record that depends on no other."""
        while True:
            last = self.last()
            if (added := self.append(record, last.number if last is not None else 0)) is not None:
                return added

    def enter(self, candidate: Candidate) -> None:
        """Have a version wait for a decision."""
        self.store.create(f"{_CANDIDATES}{candidate.version}.json", candidate.model_dump_json().encode())

    def waiting(self, champion: str | None) -> list[Candidate]:
        """Those that challenge this champion and are not decided, by version."""
        decided = {record.challenger for record in self.records() if record.outcome in DECISIONS}
        candidates = []
        for key in self.store.keys(_CANDIDATES):
            data = self.store.read(key)
            candidate = None if data is None else Candidate.model_validate_json(data)
            if candidate is not None and candidate.version not in decided and candidate.champion == champion:
                candidates.append(candidate)
        return sorted(candidates, key=lambda candidate: int(candidate.version))

    def leave(self, version: str) -> None:
        """Have a version wait no longer: its decision is in the log."""
        self.store.delete(f"{_CANDIDATES}{version}.json")

    def times_kept_in_a_row(self) -> int:
        """How many of the latest decisions, without a break, have kept the champion."""
        count = 0
        for record in reversed(self.records()):
            if record.outcome in CHAMPION_STAYS:
                count += 1
            elif record.outcome != "skipped":
                break
        return count

    def _record(self, key: str) -> Record:
        data = self.store.read(key)
        try:
            return Record.model_validate_json(data or b"")
        except ValidationError as error:
            raise UserError(f"{self.store.uri}/{key} is damaged; restore it from a backup ({error})") from error
