"""A study's files, wherever they lie: the truth about a study.

They are ``study.yaml``, ``study.json`` (identity, time spent, winner), ``state.safetensors`` (the tuner at the start of
the round under way) and ``trials/<id>.json`` (every finished trial). Each is replaced in one atomic step, so a study
may be killed at any moment: the round under way is then proposed again, to the same trials, and those that have a file
are not trained again. MLflow is written from these files and catches up after an outage.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from rlhpo_core.errors import UserError
from rlhpo_core.store import FolderStore, Store, open_store
from rlhpo_core.study import StudySpec, XGBoostSpec, dump_study, parse_study
from rlhpo_core.trial import FiniteFloat, History, Inherited, Trial

# A trial's pod reads no state, and is spared the import of torch.
if TYPE_CHECKING:
    from rlhpo_core.mlflow_connection import Connection
    from rlhpo_core.prior import Prior
    from rlhpo_core.tuner import TunerState

SPEC = "study.yaml"
RECORD = "study.json"
STATE = "state.safetensors"
TRIALS = "trials/"
STOP = "stop"


class Winner(BaseModel):
    """The best trial, trained once more on train + validation and scored once on the holdout."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial_id: str
    holdout: dict[str, FiniteFloat]
    """Metrics on the holdout."""
    registered: str | None = None
    """``name version`` in the model registry."""


class StudyRecord(BaseModel):
    """What is known beyond the study file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_id: str
    seconds: float = 0.0
    """Wall time spent tuning so far, over all resumes."""
    winner: Winner | None = None
    decision: str | None = None
    """What became of the winner at the gate, for a person to read."""

    @classmethod
    def new(cls, spec: StudySpec) -> StudyRecord:
        return cls(study_id=f"{spec.name}-{secrets.token_hex(4)}")


@dataclass(frozen=True)
class StudyFiles:
    """Reads and writes one study's files; every write replaces a file in one step.

    Every method raises ``UserError`` if the store fails; reading, also if a file is missing or damaged.
    """

    store: Store

    @property
    def address(self) -> str:
        """The store's address, the same from any working folder."""
        uri = self.store.uri
        return uri if "://" in uri else str(Path(uri).resolve())

    def begin(self, record: StudyRecord) -> bool:
        """Give the study its identity, unless it has one. Of several at once, one does (and gets ``True``)."""
        return self.store.create(RECORD, _json(record))

    def spec(self) -> StudySpec:
        """The study, with ``data.path`` as it was written."""
        if (spec := self.spec_or_none()) is None:
            raise UserError(f"{self.store.uri} holds no study; `rlhpo tune STUDY.yaml` starts one")
        return spec

    def spec_or_none(self) -> StudySpec | None:
        """As ``spec``; ``None`` if there is no study file yet."""
        if (data := self.store.read(SPEC)) is None:
            return None
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"cannot read the study file {self._where(SPEC)}: {error}") from error
        return parse_study(text, self._where(SPEC))

    def write_spec(self, spec: StudySpec) -> None:
        self.store.write(SPEC, dump_study(spec).encode())

    def record(self) -> StudyRecord:
        data = self.store.read(RECORD)
        if data is None:
            raise UserError(f"{self._where(RECORD)} is missing or damaged: there is no such file")
        try:
            return StudyRecord.model_validate_json(data)
        except ValidationError as error:
            raise UserError(f"{self._where(RECORD)} is missing or damaged: {error}") from error

    def write_record(self, record: StudyRecord) -> None:
        self.store.write(RECORD, _json(record))

    def state(self, spec: StudySpec) -> TunerState:
        """The tuner at the start of the round under way; a new one if none was saved."""
        from rlhpo_core import state as state_file
        from rlhpo_core import tuner

        data = self.store.read(STATE)
        if data is None:
            return tuner.initial_state(
                self.record().study_id,
                spec.seed,
                spec.space,
                spec.objective.direction,
                spec.tuner,
                prior_of(spec, self._beside()),
            )
        try:
            return state_file.from_bytes(data)
        except UserError as error:
            raise UserError(f"{self._where(STATE)}: {error}") from error

    def write_state(self, state: TunerState) -> None:
        from rlhpo_core import state as state_file

        self.store.write(STATE, state_file.to_bytes(state))

    def begin_warm(self, spec: StudySpec) -> None:
        """Take over what ``warm_start`` or ``prior`` names, unless the study has a state already.

        From then on the state has it: an alias, or a file, may stand for another prior by the next step.

        Raises: UserError if there is no such study or prior, or if it does not fit.
        """
        if self.store.read(STATE) is not None:
            return
        wanted = spec.warm_start
        if wanted is None:
            if spec.prior not in ("auto", "none"):
                self.write_state(self.state(spec))
            return
        if wanted.study is None:
            start = self.state(spec)
            self.write_state(replace(start, inherited=Inherited(source="", first=wanted.first)))
            return
        from rlhpo_core.warm_start import warm_state

        earlier = StudyFiles(open_store(wanted.study))
        metric = earlier.spec().objective.metric
        if metric != spec.objective.metric:
            raise UserError(f"warm_start: the study at {wanted.study} has the objective {metric}; scores do not mix")
        start = warm_state(
            earlier.state(earlier.spec()),
            self.record().study_id,
            spec.seed,
            spec.space,
            spec.objective.direction,
            spec.tuner,
            wanted.moved,
            wanted.first,
            prior_of(spec, self._beside()),
        )
        self.write_state(start)

    def trial(self, trial_id: str) -> Trial | None:
        """A finished trial. Raises: UserError if its file is damaged."""
        return self._read_trial(f"{TRIALS}{trial_id}.json")

    def write_trial(self, trial: Trial) -> None:
        self.store.write(f"{TRIALS}{trial.trial_id}.json", _json(trial))

    def history(self, spec: StudySpec) -> History:
        """All finished trials, those of an unfinished round included."""
        state = self.state(spec)
        known = {f"{TRIALS}{trial.trial_id}.json" for trial in state.history.trials}
        found = [self._read_trial(key) for key in self.store.keys(TRIALS) if key.endswith(".json") and key not in known]
        pending = [trial for trial in found if trial is not None]
        return state.history.extended(sorted(pending, key=lambda trial: trial.proposal.number))

    def request_stop(self) -> None:
        """Have a running pipeline end after the trials at hand."""
        self.store.write(STOP, b"")

    def stop_requested(self) -> bool:
        return self.store.read(STOP) is not None

    def clear_stop(self) -> None:
        self.store.delete(STOP)

    def _read_trial(self, key: str) -> Trial | None:
        data = self.store.read(key)
        if data is None:
            return None
        try:
            return Trial.model_validate_json(data)
        except ValidationError as error:
            raise UserError(f"{self._where(key)} is damaged; remove it to have the trial run again: {error}") from error

    def _where(self, key: str) -> str:
        return f"{self.store.uri}/{key}"

    def _beside(self) -> Path:
        """Where a local MLflow store of this study would lie."""
        return self.store.root.resolve().parent if isinstance(self.store, FolderStore) else Path.cwd()


def prior_of(spec: StudySpec, beside: Path) -> Prior | None:
    """The prior that a study starts from; ``beside`` is where a local MLflow store would lie.

    Raises: UserError if it cannot be read.
    """
    from rlhpo_core import transfer
    from rlhpo_core.prior import builtin_names, load_prior
    from rlhpo_core.prior_store import find_prior

    if spec.prior == "none" or spec.tuner.mode == "random":
        return None
    if spec.prior != "auto":
        return find_prior(spec.prior, lambda: _mlflow(spec, beside))
    if not isinstance(spec.evaluator, XGBoostSpec) or spec.tuner.profile == "paper" or spec.tuner.mode != "mbrl_sdp":
        return None
    return next((prior for name in builtin_names() if transfer.fits(prior := load_prior(name), spec.space)), None)


def _mlflow(spec: StudySpec, beside: Path) -> Connection:
    from rlhpo_core.mlflow_connection import Connection

    return Connection.of(spec.tracking, beside)


def _json(content: BaseModel) -> bytes:
    return content.model_dump_json().encode()
