"""``rlhpo check``: all that is wrong with a study at once, before anything runs; and the schema for editors.

A field that is wrong hides nothing of the others: it is left out, or something harmless stands in for it, while the
rest is looked at. Nothing is trained and nothing is written, except that a store in S3 is tried with an object that is
removed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rlhpo_core.errors import NO_FIELD, UserError, describe
from rlhpo_core.evaluators.kinds import build_evaluator, evaluator_class
from rlhpo_core.retries import patiently
from rlhpo_core.storage.tables import at_hand
from rlhpo_core.strict_yaml import parse_yaml
from rlhpo_core.study.spec import METRICS, StudySpec, located

if TYPE_CHECKING:
    from rlhpo_core.evaluators.protocol import Evaluator

#: The schema's file beside a study file, which the first line of ``rlhpo init`` names.
SCHEMA = "rlhpo.schema.json"
#: What stands in for sections that are wrong. Where there is nothing here, the section is left out.
_STAND_INS: dict[str, Any] = {
    "name": "study",
    "objective": {"metric": "accuracy"},
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
}
#: Sections without which there is nothing to look at.
_NEEDED = ("evaluator",)
_MOST_ATTEMPTS = 8


@dataclass
class Findings:
    """What was found, for a person to read."""

    fine: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """What could not be looked at, since it depends on something that is wrong."""
    wrong: list[str] = field(default_factory=list)

    def look(self, section: str, check: Callable[[], str | None]) -> None:
        """Note what a check finds fine (``None``: nothing to say of it), or what its UserError says.

        Args:
            section: Of the study file, which begins a message that does not name a field itself.
        """
        try:
            if (told := check()) is not None:
                self.fine.append(f"{section}: {told}")
        except UserError as error:
            for line in str(error).splitlines():
                named = line.split(":")[0].split(".")[0] in StudySpec.model_fields or line.startswith(("MLflow", " "))
                self.wrong.append(line if named else f"{section}: {line}")


def check_study(path: Path, offline: bool = False) -> Findings:
    """Look at everything that a study of this file would use.

    Args:
        offline: Whether to ask no server.
    """
    found = Findings()
    try:
        text = path.read_text(encoding="utf-8")
        data = parse_yaml(text)
    except (OSError, UnicodeDecodeError, UserError) as error:
        found.wrong.append(f"{path}: {error}")
        return found
    if not isinstance(data, dict):
        found.wrong.append(f"{path}: a study file is a mapping (name:, data:, evaluator:, …); `rlhpo init` writes one")
        return found
    spec, replaced = _readable(data, found)
    if spec is None:
        found.skipped.append("data, evaluator, space and addresses: looked at once the fields above are right")
        return found
    if not found.wrong:
        found.fine.append("study file: every field can be read")
    spec = located(spec, path.parent)
    with ExitStack() as fetched:
        evaluator = _check_evaluator(spec, replaced, found, offline, fetched)
        if "space" not in replaced:
            found.look("space", lambda: _check_space(evaluator, spec))
    _check_addresses(spec, replaced, found, offline)
    return found


def prepared(spec: StudySpec) -> Evaluator:
    """The study's evaluator with its data, its space checked: what can be wrong with a study before torch is imported.

    Raises: UserError as ``build_evaluator`` and ``check_space`` do.
    """
    from rlhpo_core.execution.resources import threads

    evaluator = build_evaluator(spec, threads(spec.execution))
    evaluator.check_space(spec.space)
    return evaluator


def schema_text() -> str:
    """The study file's JSON Schema, for editors."""
    from rlhpo_core.study.json_schema import study_schema

    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


def _readable(data: Mapping[str, Any], found: Findings) -> tuple[StudySpec | None, set[str]]:
    """What can be read of a study; and the sections that were left out or replaced, whose problems are noted."""
    rest, replaced = dict(data), set[str]()
    for _ in range(_MOST_ATTEMPTS):
        try:
            return StudySpec.model_validate(rest), replaced
        except ValidationError as error:
            lines = describe(error, StudySpec).splitlines()
            found.wrong += [line for line in lines if line not in found.wrong and _section(line) not in replaced]
            if unknown := [line.split(":")[0].split(".") for line in lines if NO_FIELD in line]:
                for place in unknown:
                    rest = _without(rest, place)
                continue
            sections = {_section(line) for line in lines}
            if any(section in _NEEDED for section in sections) or sections <= replaced:
                return None, replaced
            for section in sections:
                rest.pop(section, None)
                if section in _STAND_INS:
                    rest[section] = _STAND_INS[section]
            replaced |= sections
    return None, replaced


def _section(line: str) -> str:
    return line.split(":")[0].split(".")[0]


def _without(data: Any, place: list[str]) -> Any:
    """A copy of plain data without one field of it."""
    if not isinstance(data, dict):
        return data
    first, *further = place
    if not further:
        return {name: value for name, value in data.items() if str(name) != first}
    return {name: _without(value, further) if str(name) == first else value for name, value in data.items()}


def _check_evaluator(
    spec: StudySpec, replaced: set[str], found: Findings, offline: bool, fetched: ExitStack
) -> Evaluator | None:
    """The evaluator, if it can be built of what is sound.

    Args:
        fetched: Closes what keeps data that lies elsewhere on this machine.
    """
    from rlhpo_core.execution.resources import threads

    kind, built = evaluator_class(spec.evaluator.kind), []
    if spec.evaluator.reads is not None and spec.data is None:
        return None
    data: list[Any] = []
    if offline and spec.data is not None and spec.data.address is not None:
        found.skipped.append(f"data, evaluator: {spec.data.address} is looked at without --offline")
        return None

    def read() -> str | None:
        nonlocal spec
        with patiently(0):
            spec = fetched.enter_context(at_hand(spec))
        data.append(kind.read(spec))
        if data[0] is None:
            return None
        assert spec.data is not None
        return f"{spec.data.path.name} can be read: {len(data[0])} rows, {data[0].task} of {data[0].target_name!r}"

    found.look("data", read)
    if not data:
        return None
    objective = spec.objective
    if "objective" in replaced and data[0] is not None and data[0].task == "regression":
        objective = objective.model_copy(update={"metric": "rmse", "direction": METRICS["rmse"]})
    usable = spec.model_copy(update={"objective": objective})

    def build() -> str:
        built.append(build_evaluator(usable, threads(spec.execution)))
        return f"{spec.evaluator.describe()} can be used"

    found.look("evaluator", build)
    return built[0] if built else None


def _check_space(evaluator: Evaluator | None, spec: StudySpec) -> str:
    """By the evaluator, or, if its data cannot be read, by what its kind knows."""
    if evaluator is None:
        evaluator_class(spec.evaluator.kind).check_unread(spec)
    else:
        evaluator.check_space(spec.space)
    return f"{len(spec.space.steps)} hyperparameters"


def _check_addresses(spec: StudySpec, replaced: set[str], found: Findings, offline: bool) -> None:
    """Prior, earlier study, ledger and MLflow, as far as the study names them."""
    with patiently(0):
        if spec.warm_start is not None and spec.warm_start.study is not None:
            found.look("warm_start", lambda: _earlier(spec, offline))
        if "space" not in replaced:
            found.look("prior", lambda: _prior(spec, replaced, offline))
        if spec.registry.store is not None:
            found.look("registry.store", lambda: _ledger(str(spec.registry.store), offline))
        found.look("tracking", lambda: _mlflow(spec, offline))


def _earlier(spec: StudySpec, offline: bool) -> str | None:
    from rlhpo_core.storage.object_store import open_store
    from rlhpo_core.storage.study_files import StudyFiles

    assert spec.warm_start is not None
    address = str(spec.warm_start.study)
    if offline and "://" in address:
        return None
    earlier = StudyFiles(open_store(address)).spec()
    if earlier.objective.metric != spec.objective.metric:
        raise UserError(
            f"warm_start: the study at {address} has the objective {earlier.objective.metric}, and this one "
            f"{spec.objective.metric}; scores do not mix"
        )
    return f"{address} holds the study {earlier.name}"


def _prior(spec: StudySpec, replaced: set[str], offline: bool) -> str | None:
    if spec.prior == "none" or (offline and spec.prior != "auto" and (":" in spec.prior)):
        return None
    from rlhpo_core.execution.beginning import objective_remark, prior_of
    from rlhpo_core.tuner import prior_mapping

    prior = prior_of(spec, Path("runs"))
    if prior is None:
        return None
    prior_mapping.expectation(prior, spec.space)
    remark = objective_remark(prior, spec) if "objective" not in replaced else None
    return f"{prior.card.name} fits this space" + (f"; {remark}" if remark else "")


def _ledger(address: str, offline: bool) -> str | None:
    from rlhpo_core.storage.object_store import FolderStore, open_store, sure_of

    store = open_store(address)
    if isinstance(store, FolderStore):
        _check_writable(store.root)
        return f"{address} can be written"
    if offline:
        return None
    store.keys("lock/")
    sure_of(store)
    return f"{address} can be written, and keeps two writers apart"


def _mlflow(spec: StudySpec, offline: bool) -> str | None:
    """Ask a server whether it is there and has the experiment; look where a database is to be that is not there yet."""
    from rlhpo_core.tracking.address import is_server, tracking_uri

    uri = tracking_uri(spec.tracking, Path("runs"))
    if not is_server(uri):
        if uri.startswith("sqlite:///"):
            file = Path(uri.removeprefix("sqlite:///"))
            _check_writable(file.parent)
            if not file.exists():
                return f"a database will be made at {file}"
        elif not uri.startswith(("postgresql", "mysql", "mssql")):
            return None
    if offline:
        return None
    from rlhpo_core.tracking.connection import Connection

    connection = Connection.of(spec.tracking, Path("runs"))
    connection.check(spec.tracking.experiment, registry=spec.registry.model is not None)
    return f"{connection.shown} answers"


def _check_writable(folder: Path) -> None:
    """Raises: UserError unless the folder, or the nearest above it that is there, can be written to."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise UserError(f"{there} is no folder; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there} cannot be written; choose another place, or mend its rights")
