"""The next run of a study on a cluster: what keeps a study going that is cut into chunks.

The last step of a run sends the run that follows: a copy of its own, with one fewer to follow it. It is sent once for
each round that a study has reached: whoever makes that round's object in the study's store sends it, and a step that is
run again finds there what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.kubeflow import client
from rlhpo_core.kubeflow.connection import Server, ServerError, call
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec

#: The parameter of the pipeline that says how many runs may follow. It falls by one with each.
FURTHER = "further_runs"
_FOLDER = "next/"


@dataclass(frozen=True)
class Next:
    """What became of sending the next run."""

    run_id: str
    """Of the run that goes on with the study; empty if there is none."""
    reason: str
    """For a person to read."""


class _Claim(Frozen):
    """What the store holds of a run that follows."""

    name: str
    run_id: str = ""
    """Empty until it is known."""


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


def send_next(server: Server, files: StudyFiles, spec: StudySpec, run_id: str, began: int, further: int) -> Next:
    """Send the run that follows ``run_id``, if budget is left and it may help.

    Args:
        run_id: This run's id in KFP.
        began: The study's round at the start of this run.
        further: How many runs may follow this one.

    Raises: UserError if the server cannot be reached or refuses. The same call may be made again.
    """
    state, record = files.state(), files.record()
    if (why_not := _why_not(files, spec, state.round, began, further)) is not None:
        return Next("", why_not)
    key = f"{_FOLDER}{state.round}.json"
    claim = _Claim(name=f"{record.study_id} from round {state.round + 1}")
    if not files.store.create(key, _json(claim)):
        known = _read(files, key)
        if known.run_id:
            return Next(known.run_id, f"the next run was sent before: {known.run_id}")
        # An earlier attempt ended before it knew what had become of its request.
        if matches := client.runs(server, limit=1, name=claim.name):
            files.store.write(key, _json(claim.model_copy(update={"run_id": matches[0].id})))
            return Next(matches[0].id, f"the next run was sent before: {matches[0].id}")
    try:
        sent = copy_run(server, run_id, claim.name, {FURTHER: further - 1})
    except ServerError as error:
        if not error.passing:
            # Refused, so there is no such run: whoever mends the cause may try again.
            files.store.delete(key)
        raise
    files.store.write(key, _json(claim.model_copy(update={"run_id": sent})))
    return Next(sent, f"{claim.name}: run {sent}, and {further - 1} more may follow")


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
        **source,
    )
    return str(call(server, "run_service_create_run", body).run_id)


def _why_not(files: StudyFiles, spec: StudySpec, round_: int, began: int, further: int) -> str | None:
    if further < 1:
        return "no further run was asked for"
    if files.stop_requested():
        return "the study was asked to stop"
    if (reason := spent(spec.budget, files.history(), files.record().seconds)) is not None:
        return f"the study is at its end: {reason}"
    if round_ <= began:
        return "this run has finished no round, and another would do no better"
    return None


def _read(files: StudyFiles, key: str) -> _Claim:
    try:
        return _Claim.model_validate_json(files.store.read(key) or b"")
    except ValidationError as error:
        raise UserError(f"{files.store.uri}/{key} is damaged; remove it to have the next run sent: {error}") from error


def _json(claim: _Claim) -> bytes:
    return claim.model_dump_json().encode()
