"""What happened to a registered model, as an append-only log in an object store: one object per record.

The log decides. A record is made by a conditional write under the next number, so of two that act on the same past one
comes first, and the other has to read again. The registry's aliases follow the log.

A model that is deleted in the registry and made anew counts its versions from 1 again. Records therefore say when their
model was created, and what is known of an earlier model of the same name decides nothing about the present one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from rlhpo_core import __version__
from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.production.gate import Verdict
from rlhpo_core.storage.object_store import Store, open_store

#: What a retuning, or a person's command, came to.
Outcome = Literal["first", "promoted", "kept", "vetoed", "refused", "skipped", "failed", "rolled_back", "abandoned"]
#: Outcomes by which the champion stays although there was a challenger.
CHAMPION_STAYS: tuple[Outcome, ...] = ("kept", "vetoed", "refused")
#: Outcomes that decide about a challenger.
DECISIONS: tuple[Outcome, ...] = ("first", "promoted", *CHAMPION_STAYS)
#: Where promotions are recorded if the study file does not say.
DEFAULT = "runs/registry"
#: Environment variable that names the place for all who share a cluster, where the study file does not.
STORE_VARIABLE = "RLHPO_REGISTRY_STORE"
#: Tag of a registered model with the address of its ledger, so that it has one wherever it is retuned from.
PLACE = "rlhpo.ledger"
_AUDIT, _CANDIDATES = "audit/", "candidates/"
#: Of records; what else lies beside them (a backup, say) is none.
_KEY = re.compile(r"audit/(\d{8})\.json")


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
    model_created: int | None = None
    """When the registered model was created, by MLflow in Unix milliseconds; ``None`` if that is not known."""
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
    run: str | None = None
    """The retuning, as ``endings`` has it, that stood still or failed."""
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

    version: Annotated[str, Field(pattern=r"^\d+$")]
    model_created: int
    """As in ``Record``."""
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
        """Below the place that the study file or the command line names, else RLHPO_REGISTRY_STORE, else DEFAULT."""
        place = store or os.environ.get(STORE_VARIABLE) or DEFAULT
        return cls(open_store(f"{place.rstrip('/')}/{model}"), model)

    @property
    def place(self) -> str | None:
        """The address below which the ledgers of all models lie; ``None`` for a folder, which is of one machine."""
        uri = self.store.uri
        return uri.removesuffix(f"/{self.model}") if "://" in uri else None

    def records(self, model_created: int | None = None, after: int = 0) -> list[Record]:
        """The oldest first.

        Args:
            model_created: Leaves out what concerns an earlier model of the same name, created at another time.
            after: Leaves out records up to this number.

        Raises: UserError if one is damaged.
        """
        records = [self._record(key) for number, key in self._keys() if number > after]
        if model_created is None:
            return records
        return [record for record in records if record.model_created in (None, model_created)]

    def last(self) -> Record | None:
        """The newest record; ``None`` if there is none.

        Raises: UserError if it is damaged.
        """
        keys = [key for _, key in self._keys()]
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

    def add_once(self, record: Record) -> Record | None:
        """As ``add``, unless there is a record of the same ``run`` already; of several at once one adds it."""
        while True:
            records = self.records()
            if any(known.run == record.run for known in records):
                return None
            if (added := self.append(record, records[-1].number if records else 0)) is not None:
                return added

    def enter(self, candidate: Candidate) -> None:
        """Have a version wait for a decision."""
        self.store.write(f"{_CANDIDATES}{candidate.version}.json", candidate.model_dump_json().encode())

    def waiting(self, champion: str | None, model_created: int) -> list[Candidate]:
        """Those that challenge this champion and are not decided, by version.

        A candidate that cannot be read, or was entered by a newer rlhpo, is left to its own process.
        """
        decided = {r.challenger for r in self.records(model_created) if r.outcome in DECISIONS}
        candidates = [
            candidate
            for candidate in self._candidates()
            if candidate.champion == champion
            and candidate.model_created == model_created
            and candidate.version not in decided
        ]
        return sorted(candidates, key=lambda candidate: int(candidate.version))

    def leave(self, version: str) -> None:
        """Have a version wait no longer: its decision is in the log."""
        self.store.delete(f"{_CANDIDATES}{version}.json")

    def times_kept_in_a_row(self, model_created: int | None = None) -> int:
        """How many of the latest decisions, without a break, have kept the champion; ``model_created`` as above."""
        count = 0
        for record in reversed(self.records(model_created)):
            if record.outcome in CHAMPION_STAYS:
                count += 1
            elif record.outcome != "skipped":
                break
        return count

    def _keys(self) -> list[tuple[int, str]]:
        """Numbers and keys of the records, the oldest first."""
        return [(int(found[1]), key) for key in self.store.keys(_AUDIT) if (found := _KEY.fullmatch(key))]

    def _candidates(self) -> Iterator[Candidate]:
        for key in self.store.keys(_CANDIDATES):
            try:
                yield Candidate.model_validate_json(self.store.read(key) or b"")
            except ValidationError:
                continue

    def _record(self, key: str) -> Record:
        data = self.store.read(key)
        try:
            return Record.model_validate_json(data or b"")
        except ValidationError as error:
            raise UserError(
                f"{self.store.uri}/{key} is damaged, or a newer rlhpo has written it; restore it from a backup, or "
                f"install that version ({error})"
            ) from error
