"""A schedule whose study has nothing left to do: it is paused, and somebody is told.

It is paused and not deleted: KFP deletes the running workflow with its schedule, and that is the run that does this.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from rlhpo_core.frozen import Frozen
from rlhpo_core.kubeflow import client, schedules
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.production import alerts
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.spec import StudySpec

#: Runs of a schedule that find their study finished before the schedule is paused.
MOST_IDLE_RUNS = 3
_FOLDER = "idle/"


class _Idle(Frozen):
    """What the store holds of a schedule's runs that had nothing to do."""

    trials: int = 0
    """Of the study then; with more, the count begins anew."""
    runs: tuple[str, ...] = ()


def note(server: Server, files: StudyFiles, spec: StudySpec, run_id: str, tell: Callable[[str], None]) -> bool:
    """Count a run that found its study finished; pause its schedule if that was one of MOST_IDLE_RUNS in a row.

    A run is counted once, however often this is called for it. A run that no schedule has started is not counted.

    Args:
        tell: Takes what was done, for a person to read.

    Returns: Whether the schedule was paused.

    Raises: UserError if KFP or the store cannot be reached or refuses. The same call may be made again.
    """
    schedule_id = client.run(server, run_id).schedule_id
    if schedule_id is None:
        return False
    key, trials = f"{_FOLDER}{schedule_id}.json", len(files.history())
    idle = _read(files, key)
    if idle.trials != trials:
        idle = _Idle(trials=trials)
    if run_id not in idle.runs:
        idle = idle.model_copy(update={"runs": (*idle.runs, run_id)})
        files.store.write(key, idle.model_dump_json().encode())
    if len(idle.runs) < MOST_IDLE_RUNS:
        tell(f"the study is finished; run {len(idle.runs)} of this schedule with nothing to do, of {MOST_IDLE_RUNS}")
        return False
    schedules.disable(server, schedule_id)
    files.store.delete(key)
    reason = (
        f"the study {spec.name} is finished, and {len(idle.runs)} runs of its schedule in a row had nothing to do: the "
        "schedule is paused. Remove it with `rlhpo unschedule`, or raise the budget and schedule the study again."
    )
    tell(reason)
    content = {"study": spec.name, "store": files.store.uri, "schedule": schedule_id, "reason": reason}
    alerts.send(spec.alerts, "schedule_paused", content, tell)
    return True


def _read(files: StudyFiles, key: str) -> _Idle:
    """A count that is damaged begins anew: it decides about nothing but how soon an idle schedule is paused."""
    try:
        return _Idle.model_validate_json(files.store.read(key) or b"{}")
    except ValidationError:
        return _Idle()
