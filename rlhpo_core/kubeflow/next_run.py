"""The runs of a study on a cluster: what keeps a study going that is cut into chunks, also when a run fails.

The chain of runs is a list in the study's store, ``next/<number>.json``: each link is made once, by whoever sends the
run or gives the study up. The last step of a run goes by the store alone, since KFP's word for how a run stands is
RUNNING or COMPLETE after success as well as failure: how many trials there are, whether the winner is registered, and
what a step could not do. A run that is dead without having come to its last step is followed by ``supervise``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.kubeflow import client
from rlhpo_core.kubeflow.connection import Server, ServerError, call
from rlhpo_core.production import alerts
from rlhpo_core.storage import lease
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import RECORD, StudyFiles
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec

#: The parameter of the pipeline that says how many runs may follow. It falls by one with each that brought trials.
FURTHER = "further_runs"
#: Runs in a row without a new trial after which a study is given up.
MOST_BARREN = 3
_FOLDER = "next/"
_LINK = re.compile(r"next/(\d{6})\.json")
#: How many trials there were when the latest run began, and when the winner was registered and nothing was left to do.
_BEGAN, _CONCLUDED = "began.json", "concluded.json"
#: What a step could not do though it waited; there until the next run begins.
_FAULT = "fault.json"
#: States that a run has only if somebody stops it.
_STOPPED = frozenset({"CANCELING", "CANCELED"})


@dataclass(frozen=True)
class Next:
    """What became of sending the next run."""

    run_id: str
    """Of the run that goes on with the study; empty if there is none."""
    reason: str
    """For a person to read."""


class Link(Frozen):
    """What the store holds of a run that follows, or of the end of a chain."""

    after: str = ""
    """The run that it follows; empty for one that a person has sent."""
    name: str = ""
    """Its name, by which it is found if the answer to the request for it was lost."""
    run_id: str = ""
    """Empty until it is known, and at the end of a chain."""
    trials: int = 0
    """Finished trials then."""
    barren: int = 0
    """Runs in a row before it that have brought no trial."""
    given_up: str = ""
    """Why no run follows though the study is not at its end; for a person to read."""


class Fault(Frozen):
    """Why a step has failed, in its own words."""

    step: str
    reason: str
    passing: bool
    """Whether another run may do better."""


def put_study(store: str, spec: StudySpec) -> None:
    """Put the study file into the store, from where the steps read it, and take back a request to stop.

    Args:
        store: Where the study's files live; for a retuning, the place of the model.

    Raises: UserError if the store holds another study, or if it cannot be written.
    """
    files = StudyFiles(open_store(store))
    files.check_unchanged(spec)
    files.write_spec(spec)
    files.clear_stop()
    forget_fault(files)


def begin_chain(files: StudyFiles, run_id: str) -> None:
    """Note that a person has sent a run: a new chain, whatever became of an earlier one.

    Raises: UserError if the store fails.
    """
    number = 1 + max(_links(files), default=0)
    while not files.store.create(_key(number), _json(Link(run_id=run_id, trials=_trials(files)))):
        number += 1


def note_fault(files: StudyFiles, step: str, error: UserError) -> None:
    """Keep why a step fails, for the last step to tell. Raises: UserError if the store fails."""
    met = Fault(step=step, reason=str(error)[:2000], passing=error.passing)
    files.store.write(_FAULT, met.model_dump_json().encode())


def fault(files: StudyFiles) -> Fault | None:
    """What a step of the latest run could not do; ``None`` if there is no such thing.

    Raises: UserError if the store fails.
    """
    try:
        return Fault.model_validate_json(files.store.read(_FAULT) or b"")
    except ValidationError:
        return None


def forget_fault(files: StudyFiles) -> None:
    """Take back what an earlier run could not do. Raises: UserError if the store fails."""
    files.store.delete(_FAULT)


def note_beginning(files: StudyFiles) -> None:
    """Keep that a run begins, and with how many trials. Raises: UserError if the store fails."""
    forget_fault(files)
    files.store.write(_BEGAN, _count(files))


def note_conclusion(files: StudyFiles) -> None:
    """Keep that the study is at its end and all is done. Raises: UserError if the store fails."""
    files.store.write(_CONCLUDED, _count(files))


def was_idle(files: StudyFiles) -> bool:
    """Whether the latest run has brought no trial. Raises: UserError if the store fails."""
    return files.store.read(_BEGAN) == _count(files)


def is_followed(files: StudyFiles, run_id: str) -> bool:
    """Whether the end of a run has seen to what comes after it: another run, or the end of the chain."""
    return any(link.after == run_id for link in _links(files).values())


def is_over(files: StudyFiles, spec: StudySpec) -> str | None:
    """Why there is nothing left to do; ``None`` while there is, registering the winner included."""
    if files.store.read(_CONCLUDED) != _count(files):
        return None
    return spent(spec.budget, files.history(), files.record().seconds)


def send_next(server: Server, files: StudyFiles, run_id: str, further: int, most_barren: int = MOST_BARREN) -> Next:
    """Send the run that follows ``run_id``, if there is something left to do and it may help.

    A run that failed is followed as well. A study is given up, with an alert, after ``most_barren`` runs in a row that
    brought no new trial, when no further run may follow though the study is not at its end, and at once if a step met
    what waiting does not mend.

    Args:
        run_id: The run's id in KFP that has ended, or is about to.
        further: How many runs may follow it.

    Raises: UserError if the server or the store cannot be reached or refuses. The same call may be made again.
    """
    spec = files.spec_or_none()
    if spec is None:
        return Next("", f"{files.store.uri} holds no study")
    links = _links(files)
    for number, link in links.items():
        if link.after == run_id:
            return _sent_before(server, files, number, link, run_id, further)
    number, last = max(links.items(), default=(0, Link()))
    # Of two chains of a study one goes on: that whose latest run is under way.
    followed = {"", run_id, *(link.after for link in links.values())}
    for other in [link.run_id for link in links.values() if link.run_id not in followed]:
        if _goes_on(server, other):
            return Next(other, f"run {other} goes on with the study")
    if (reason := is_over(files, spec)) is not None:
        return Next("", f"the study is at its end: {reason}")
    if files.stop_requested():
        return Next("", "the study was asked to stop")
    if further < 1 and not (last.after and last.run_id == run_id):
        return Next("", "no further run was asked for")
    if (archived := _archived(server, run_id)) is not None:
        return Next("", f"the experiment {archived!r} is archived, so no run follows in it")
    trials = _trials(files)
    barren = 0 if trials > last.trials else last.barren + 1
    link = Link(after=run_id, trials=trials, barren=barren)
    if (hopeless := _hopeless(files, barren, most_barren, further)) is not None:
        link = link.model_copy(update={"given_up": hopeless})
        if files.store.create(_key(number + 1), _json(link)):
            content = {"study": spec.name, "store": files.store.uri, "run": run_id, "reason": hopeless}
            alerts.send(spec.alerts, "failed", content, print)
        return Next("", f"the study is given up: {hopeless}")
    study = spec.name if files.store.read(RECORD) is None else files.record().study_id
    link = link.model_copy(update={"name": f"{study} {number + 1}"})
    if not files.store.create(_key(number + 1), _json(link)):
        # Another run of the study was quicker by a moment: what it has sent goes on for both.
        return send_next(server, files, run_id, further, most_barren)
    return _send(server, files, number + 1, link, run_id, further)


def supervise(server: Server, files: StudyFiles) -> tuple[bool, str]:
    """Look whether a study goes on, and send the next run in place of one that died before it could.

    Returns: whether there is nothing left to look after, and what was found, for a person to read.

    Raises: UserError if the server or the store cannot be reached or refuses.
    """
    spec = files.spec_or_none()
    if spec is None:
        return True, f"{files.store.uri} holds no study"
    if (reason := is_over(files, spec)) is not None:
        return True, f"the study is at its end: {reason}"
    if files.stop_requested():
        return True, "the study was asked to stop"
    _, last = max(_links(files).items(), default=(0, Link()))
    if last.given_up:
        return True, f"the study is given up: {last.given_up}"
    run_id = last.run_id or last.after
    if not run_id:
        return False, "no run of the study is known yet"
    run = call(server, "run_service_get_run", run_id)
    if run.state not in client.ENDED:
        return False, f"run {run_id} goes on with the study"
    if any(status.state in _STOPPED for status in run.state_history or ()):
        return True, f"run {run_id} was stopped"
    parameters = (run.runtime_config.parameters if run.runtime_config is not None else None) or {}
    # It has died without giving the study back.
    lease.release(files.store, run_id)
    following = send_next(server, files, run_id, int(parameters.get(FURTHER, 0)))
    if not following.run_id:
        return True, following.reason
    reason = f"run {run_id} ended without sending the next one, which was sent in its place: {following.run_id}"
    alerts.send(spec.alerts, "failed", {"study": spec.name, "store": files.store.uri, "reason": reason}, print)
    return False, reason


def copy_run(server: Server, run_id: str, name: str, parameters: Mapping[str, object]) -> str:
    """Start a run of the same pipeline, in the same experiment, as the same account; returns its id.

    Args:
        parameters: Those that differ.

    Raises: ServerError; UserError if the server does not know the run.
    """
    import kfp_server_api as api

    try:
        run = call(server, "run_service_get_run", run_id)
    except ServerError as error:
        if error.status == 404:
            raise UserError(f"KFP at {server.host} does not know the run {run_id}, which was to be followed") from error
        raise
    config = run.runtime_config or api.V2beta1RuntimeConfig()
    source = (
        {"pipeline_version_reference": run.pipeline_version_reference}
        if run.pipeline_version_reference is not None
        else {"pipeline_spec": run.pipeline_spec}
    )
    body = api.V2beta1Run(
        display_name=name,
        description=f"goes on where run {run_id} has ended",
        experiment_id=run.experiment_id,
        service_account=run.service_account or None,
        runtime_config=api.V2beta1RuntimeConfig(
            parameters={**(config.parameters or {}), **parameters}, pipeline_root=config.pipeline_root or None
        ),
        plugins_input=run.plugins_input or None,
        **source,
    )
    return str(call(server, "run_service_create_run", body).run_id)


def _goes_on(server: Server, run_id: str) -> bool:
    """Whether a run has not ended; one that the server does not know has."""
    try:
        return not client.run(server, run_id).ended
    except ServerError:
        raise
    except UserError:
        return False


def _archived(server: Server, run_id: str) -> str | None:
    """Name of a run's experiment if a person has archived it, as one does to end things; else ``None``."""
    try:
        run = call(server, "run_service_get_run", run_id)
        experiment = call(server, "experiment_service_get_experiment", run.experiment_id)
    except ServerError as error:
        if error.status == 404:
            return None
        raise
    return str(experiment.display_name) if experiment.storage_state == "ARCHIVED" else None


def _hopeless(files: StudyFiles, barren: int, most: int, further: int) -> str | None:
    """Why another run would do no better, or may not be sent."""
    met = fault(files)
    said = "" if met is None else f"; {met.step}: {met.reason}"
    if met is not None and not met.passing:
        return said.removeprefix("; ")
    if barren >= most:
        return f"{barren} runs in a row have brought no new trial{said}"
    if further < 1:
        return f"all runs that were to follow have followed, and budget is left; send the study again{said}"
    return None


def _sent_before(server: Server, files: StudyFiles, number: int, link: Link, run_id: str, further: int) -> Next:
    """What became of a link that is there: sent, given up, or left by an attempt that ended before it knew."""
    if link.given_up:
        return Next("", f"the study is given up: {link.given_up}")
    if not link.run_id and (matches := client.runs(server, limit=1, name=link.name)):
        link = link.model_copy(update={"run_id": matches[0].id})
        files.store.write(_key(number), _json(link))
    if link.run_id:
        return Next(link.run_id, f"the next run was sent before: {link.run_id}")
    return _send(server, files, number, link, run_id, further)


def _send(server: Server, files: StudyFiles, number: int, link: Link, run_id: str, further: int) -> Next:
    left = further if link.barren else further - 1
    try:
        sent = copy_run(server, run_id, link.name, {FURTHER: left})
    except ServerError as error:
        if not error.passing:
            # Refused, so there is no such run: whoever mends the cause may try again.
            files.store.delete(_key(number))
        raise
    files.store.write(_key(number), _json(link.model_copy(update={"run_id": sent})))
    return Next(sent, f"{link.name}: run {sent}, and {left} more may follow")


def _links(files: StudyFiles) -> dict[int, Link]:
    """All links by their numbers."""
    found = {int(match[1]): match[0] for key in files.store.keys(_FOLDER) if (match := _LINK.fullmatch(key))}
    return {number: _read(files, key) for number, key in found.items()}


def _trials(files: StudyFiles) -> int:
    """Finished trials so far."""
    return 0 if files.store.read(RECORD) is None else len(files.history())


def _count(files: StudyFiles) -> bytes:
    return json.dumps({"trials": _trials(files)}).encode()


def _read(files: StudyFiles, key: str) -> Link:
    try:
        return Link.model_validate_json(files.store.read(key) or b"")
    except ValidationError as error:
        raise UserError(f"{files.store.uri}/{key} is damaged; remove it to have the next run sent: {error}") from error


def _key(number: int) -> str:
    return f"{_FOLDER}{number:06d}.json"


def _json(link: Link) -> bytes:
    return link.model_dump_json().encode()
