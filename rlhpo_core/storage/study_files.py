"""A study's files, wherever they lie: the truth about a study.

They are ``study.yaml``, ``study.json`` (identity, time spent, winner), ``schema.json`` (by which the table is read, if
there is one), ``state/<round>.safetensors`` (the tuner at the start of that round), ``trials/<id>.json`` (every
finished trial), and ``checkpoints/<id>`` (of trials under way: what they go on from). Each is written in one atomic
step, so a study may be killed at any moment: the round under way is then proposed again, to the same trials, and those
that have a file are not trained again. States and trials are made once and never changed: of several runs that come to
the same one, the first has it, and all go on from what that one wrote. They carry checksums, so what a disk or a
network has changed is found out. MLflow is written from these files and catches up after an outage.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from rlhpo_core.data.schema import SCHEMA, TableSchema
from rlhpo_core.errors import UserError
from rlhpo_core.evaluators.protocol import Baseline
from rlhpo_core.frozen import Frozen
from rlhpo_core.storage.checkpoints import StoredCheckpoint, clear_all
from rlhpo_core.storage.object_store import Store
from rlhpo_core.study.changes import FREE, beginning, changed
from rlhpo_core.study.spec import StudySpec, dump_study, parse_study
from rlhpo_core.trial import FiniteFloat, History, Trial, trial_id

# A trial's pod reads no state, and is spared the import of torch.
if TYPE_CHECKING:
    from rlhpo_core.tuner.state import TunerState

#: Keys of the study's files, as the module's docstring has them.
SPEC = "study.yaml"
RECORD = "study.json"
STATES = "state/"
TRIALS = "trials/"
_STATE_KEY = re.compile(r"state/(\d{6,})\.safetensors")
#: Latest states that are kept; older ones are removed. A run that reads may be a round behind.
_KEPT = 3
#: Name of the checksum in a trial's file.
_DIGEST = "sha256"
#: There while pipelines are asked to stop.
STOP = "stop"


class Winner(Frozen):
    """The best trial, trained once more on train + validation and scored once on the holdout."""

    trial_id: str
    holdout: dict[str, FiniteFloat]
    """Metrics on the holdout."""
    warning: str | None = None
    """Why it is of no use, if it is no better on the holdout than a constant answer; for a person to read."""
    registered: str | None = None
    """``name version`` in the model registry."""


class StudyRecord(Frozen):
    """What is known beyond the study file."""

    study_id: str
    began: dict[str, Any] = Field(default_factory=dict)
    """What may not change in the study file, as ``study.changes.beginning`` has it; empty if it was begun without."""
    table: str | None = None
    """Digest of the table that the study began with; ``None`` without one."""
    baseline: Baseline | None = None
    """What trials have to beat; ``None`` if it is not known."""
    seconds: float = 0.0
    """Wall time spent tuning so far, over all resumes."""
    winner: Winner | None = None
    decision: str | None = None
    """What became of the winner at the gate, for a person to read."""

    @classmethod
    def new(cls, spec: StudySpec, table: str | None = None) -> StudyRecord:
        """The record of a study that begins, with an id of its own: the study's name and eight random digits.

        Args:
            table: Digest of its table.
        """
        return cls(study_id=f"{spec.name}-{secrets.token_hex(4)}", began=beginning(spec), table=table)


@dataclass(frozen=True)
class StudyFiles:
    """Reads and writes one study's files; every write makes or replaces a file in one step.

    Every method raises ``UserError`` if the store fails; reading, also if a file is missing or damaged.
    """

    store: Store

    @property
    def address(self) -> str:
        """The store's address, the same from any working folder."""
        uri = self.store.uri
        return uri if "://" in uri else str(Path(uri).resolve())

    def claim(self, record: StudyRecord) -> bool:
        """Give the study its identity unless it has one. Of several processes at once, one gets ``True``."""
        return self.store.create(RECORD, _json(record))

    def spec(self) -> StudySpec:
        """The study, with ``data.path`` as it was written. Raises: UserError also as ``check_unchanged`` does."""
        if (spec := self.spec_or_none()) is None:
            raise UserError(f"{self.store.uri} holds no study; `rlhpo tune STUDY.yaml` starts one")
        self.check_unchanged(spec)
        return spec

    def spec_or_none(self) -> StudySpec | None:
        """What the study file says; ``None`` if there is none yet."""
        if (data := self.store.read(SPEC)) is None:
            return None
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"cannot read the study file {self._where(SPEC)}: {error}") from error
        return parse_study(text, self._where(SPEC))

    def check_unchanged(self, spec: StudySpec) -> None:
        """See to it that a study file is about the study that was begun here.

        Raises: UserError, naming each field that differs and may not: trials of two studies do not mix.
        """
        data = self.store.read(RECORD)
        began = {} if data is None else self.record().began
        if began and (differing := changed(began, spec)):
            raise UserError(
                f"{self.store.uri} holds a study that differs in {', '.join(differing)}. Continue it as it was, or "
                f"give the new one a place of its own, where `warm_start` can take these trials over. Free to change "
                f"in a study that has begun are {', '.join(FREE)} and data.path"
            )

    def check_table(self, digest: str | None) -> None:
        """See to it that the table is the one that the study began with.

        Args:
            digest: Of the table at hand; ``None`` without one.

        Raises: UserError if it is another one.
        """
        if (began := self.record().table) is not None and digest != began:
            raise UserError(
                f"{self.store.uri} holds a study of another table (data.path: its digest was {began}, that of the "
                f"table there now is {digest}). Put the table back, or tune the new one in a place of its own, where "
                "`warm_start` can take these trials over"
            )

    def write_spec(self, spec: StudySpec) -> None:
        """Replace the study file."""
        self.store.write(SPEC, dump_study(spec).encode())

    def record(self) -> StudyRecord:
        """Identity, time spent and winner."""
        data = self.store.read(RECORD)
        if data is None:
            raise UserError(f"{self._where(RECORD)} is missing or damaged: there is no such file")
        try:
            return StudyRecord.model_validate_json(data)
        except ValidationError as error:
            raise UserError(f"{self._where(RECORD)} is missing or damaged: {error}") from error

    def write_record(self, record: StudyRecord) -> None:
        """Replace the record."""
        self.store.write(RECORD, _json(record))

    def schema(self) -> TableSchema | None:
        """By which the study's table is read; ``None`` if it has none, or has not been read yet."""
        if (data := self.store.read(SCHEMA)) is None:
            return None
        try:
            return TableSchema.model_validate_json(data)
        except ValidationError as error:
            raise UserError(f"{self._where(SCHEMA)} is damaged: {error}") from error

    def claim_schema(self, schema: TableSchema) -> None:
        """Keep the schema of the first table, unless one is there."""
        self.store.create(SCHEMA, _json(schema))

    def state(self) -> TunerState:
        """The latest state: the tuner at the start of the round under way; `execution.beginning` writes the first."""
        if (state := self.state_or_none()) is None:
            raise UserError(f"{self._where(STATES)} is empty: the study has not begun, or a part of it was removed")
        return state

    def state_or_none(self) -> TunerState | None:
        """As ``state``; ``None`` if the study has not begun."""
        from rlhpo_core.tuner import state_file

        while (round_ := self.latest_round()) is not None:
            # A state that is gone once it is to be read was cleared away, since there are newer ones.
            if (data := self.store.read(_state_key(round_))) is not None:
                try:
                    return state_file.from_bytes(data)
                except UserError as error:
                    advice = "remove it, and the study goes on from the state before it: " if round_ else ""
                    raise UserError(f"{self._where(_state_key(round_))}: {advice}{error}") from error
        return None

    def latest_round(self) -> int | None:
        """The round under way, counted from 0, without reading its state; ``None`` if the study has not begun."""
        return max(self._rounds(), default=None)

    def write_state(self, state: TunerState) -> TunerState:
        """Keep the state at the start of a round.

        Returns: the latest state that is there afterwards. It is another one if another run was first to write that of
        this round, or is further already; both then go on from there.
        """
        from rlhpo_core.tuner import state_file

        made = self.store.create(_state_key(state.round), state_file.to_bytes(state))
        rounds = sorted(self._rounds())
        if not made or rounds[-1] != state.round:
            return self.state()
        for old in rounds[:-_KEPT]:
            self.store.delete(_state_key(old))
        # Of trials that had ended before a kill, but had not been tidied up after.
        clear_all(self.store)
        return state

    def trial(self, trial_id: str) -> Trial | None:
        """A finished trial. Raises: UserError if its file is damaged."""
        return self._read_trial(f"{TRIALS}{trial_id}.json")

    def write_trial(self, trial: Trial) -> Trial:
        """Keep a finished trial, with its curve: from then on it is not trained again.

        Returns: the trial that is kept. Of several runs that trained it, the first to be done has it, and all go on
        with that one's outcome.
        """
        if trial.curve is None:
            raise ValueError(f"trial {trial.trial_id} would be kept without its curve")
        content = {**trial.model_dump(mode="json"), _DIGEST: _digest(trial)}
        made = self.store.create(f"{TRIALS}{trial.trial_id}.json", json.dumps(content).encode())
        StoredCheckpoint(lambda: self.store, trial.trial_id).clear()
        return trial if made else self.trial(trial.trial_id) or trial

    def history(self, state: TunerState | None = None) -> History:
        """All finished trials, those of an unfinished round included; curves of earlier rounds are left out.

        Args:
            state: The study's state, if it was just read; else it is read here.
        """
        state = state or self.state_or_none()
        learnt = History(direction=self.spec().objective.direction) if state is None else state.history
        known = {f"{TRIALS}{trial.trial_id}.json" for trial in learnt.trials}
        keys = [key for key in self.store.keys(TRIALS) if key.endswith(".json") and key not in known]
        pending = [trial for key in keys if (trial := self._read_trial(key)) is not None]
        return learnt.extended(sorted(pending, key=lambda trial: trial.proposal.number))

    def history_of_files(self) -> History:
        """All finished trials, without curves, by their files alone: no state is read, which takes the import of torch.

        A trial of an earlier round whose file somebody has removed is not among them.
        """
        keys = [key for key in self.store.keys(TRIALS) if key.endswith(".json")]
        found = [trial.without_curve() for key in keys if (trial := self._read_trial(key)) is not None]
        found.sort(key=lambda trial: trial.proposal.number)
        return History(direction=self.spec().objective.direction, trials=tuple(found))

    def whole_history(self) -> History:
        """All finished trials with their curves: each one's file is read."""
        history = self.history()
        return history.model_copy(update={"trials": tuple(map(self.with_curve, history.trials))})

    def with_curve(self, trial: Trial) -> Trial:
        """The trial with its curve, from its file unless it has it; without points if the file was removed.

        Raises: UserError if the file is damaged.
        """
        if trial.curve is not None:
            return trial
        kept = self.trial(trial.trial_id)
        return trial.model_copy(update={"curve": () if kept is None else kept.curve})

    def trials_of(self, sizes: Sequence[int], most: int) -> list[Trial]:
        """Finished trials of the latest of the first rounds, with their curves, in the order of their numbers.

        Their names follow from their places in the study, so nothing else is read or listed.

        Args:
            sizes: How many trials each of the rounds has.
            most: Rounds that lie further back than so many trials are left out.

        Raises: UserError if a file is damaged.
        """
        study_id, first = self.record().study_id, len(sizes)
        while first > 0 and sum(sizes[first:]) < most:
            first -= 1
        places = [(number, index) for number in range(first, len(sizes)) for index in range(sizes[number])]
        found = (self.trial(trial_id(study_id, *place)) for place in places)
        return [trial for trial in found if trial is not None]

    def request_stop(self) -> None:
        """Have a running pipeline end after the trials at hand."""
        self.store.write(STOP, b"")

    def stop_requested(self) -> bool:
        """Whether ``request_stop`` was called, by any process."""
        return self.store.read(STOP) is not None

    def clear_stop(self) -> None:
        """Let pipelines run again."""
        self.store.delete(STOP)

    def _rounds(self) -> list[int]:
        """Of the states that are kept, in no order."""
        found = (_STATE_KEY.fullmatch(key) for key in self.store.keys(STATES))
        return [int(match[1]) for match in found if match is not None]

    def _read_trial(self, key: str) -> Trial | None:
        data = self.store.read(key)
        if data is None:
            return None
        try:
            content = json.loads(data)
            digest = content.pop(_DIGEST)
            trial = Trial.model_validate_json(json.dumps(content))
            if digest != _digest(trial) or trial.curve is None:
                raise ValueError("its content does not match its checksum, or is not whole")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            advice = "remove it to have the trial run again, or to go on without its curve if its round is over"
            raise UserError(f"{self._where(key)} is damaged; {advice}: {error}") from error
        return trial

    def _where(self, key: str) -> str:
        return f"{self.store.uri}/{key}"


def _state_key(round_: int) -> str:
    return f"{STATES}{round_:06d}.safetensors"


def _digest(trial: Trial) -> str:
    return hashlib.sha256(_json(trial)).hexdigest()


def _json(content: BaseModel) -> bytes:
    return content.model_dump_json().encode()
