"""The steps that have runs follow each other: the last one of a run, and the one of a study's supervisor."""

from __future__ import annotations

from pathlib import Path

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow import pod
from rlhpo_core.kubeflow.connection import Server
from rlhpo_core.kubeflow.steps.study import files_of, tracked
from rlhpo_core.retries import wait_out
from rlhpo_core.storage import lease
from rlhpo_core.storage.study_files import StudyFiles
from rlhpo_core.study.budget import spent
from rlhpo_core.study.spec import StudySpec


@pod.step
def submit_next(store: str, kfp_run: str, further_runs: int, html: Path, markdown: Path) -> str:
    """Send the run that goes on with the study, and then report; returns its id, empty if none was sent.

    Runs at the end of each run, also of one that failed. A report that cannot be made or logged is a warning.

    Args:
        kfp_run: This run's id in KFP.
        further_runs: How many runs may follow this one.
        html: Written: the report; empty if there is none.
        markdown: Written: the report in short.

    Raises: UserError if KFP or the store cannot be reached or refuses; the step may then be run again.
    """
    from rlhpo_core.kubeflow import idle_schedule, next_run

    server, files = Server.of(), files_of(store)
    # The run that follows takes the study.
    lease.release(files.store, kfp_run)
    # A request whose answer was lost is looked for by its name, once the server has had time to carry it out.
    following = wait_out(
        "send the next run", lambda: next_run.send_next(server, files, kfp_run, further_runs), first=15.0
    )
    print(following.reason, flush=True)
    for path in (html, markdown):
        path.write_text(f"{following.reason}\n", encoding="utf-8")
    spec = files.spec_or_none()
    if spec is None or files.state_or_none() is None:
        return following.run_id
    over = spent(spec.budget, files.history(), files.record().seconds) is not None
    if over and next_run.was_idle(files):
        wait_out("look after the schedule", lambda: idle_schedule.note(server, files, spec, kfp_run, _tell))
    try:
        _report(files, spec, html, markdown, goes_on=bool(following.run_id))
    except UserError as error:
        print(f"warning: the report is not whole: {error}", flush=True)
    return following.run_id


@pod.step
def supervise(store: str, schedule: str) -> str:
    """Look whether a study on a cluster goes on, and start it again if it is dead; returns what was found.

    Args:
        schedule: Name of the schedule that this is a run of: it is paused once there is nothing left to look after.

    Raises: UserError if KFP or the store cannot be reached or refuses.
    """
    from rlhpo_core.kubeflow import next_run, schedules, stopping

    server, files = Server.of(), files_of(store)
    done, found = wait_out("look after the study", lambda: next_run.supervise(server, files), first=15.0)
    print(found, flush=True)
    if done:
        # A run that was terminated while no step of it was at work has nobody to say so; one that was asked to stop
        # still ends its trials.
        if not files.stop_requested():
            stopping.try_to_mark_killed(files, _tell)
        # Paused and not deleted: KFP deletes the running workflow with its schedule, and that is this one.
        for one in schedules.schedules(server):
            if one.name == schedule and one.enabled:
                schedules.disable(server, one.id)
    return found


def _report(files: StudyFiles, spec: StudySpec, html: Path, markdown: Path, goes_on: bool) -> None:
    """Write the report and log it; if no run follows, the study's run in MLflow ends."""
    from rlhpo_core.report.study_report import log_report, make_report
    from rlhpo_core.tracking.tracker import StudyTracker

    report, history = make_report(files, spec), files.history()
    html.write_text(report.html, encoding="utf-8")
    markdown.write_text(report.note, encoding="utf-8")
    tracker = StudyTracker.open(spec, files.record().study_id, tracked(spec))
    try:
        log_report(tracker, report)
    finally:
        if not goes_on:
            over = spent(spec.budget, history, files.record().seconds) is not None
            tracker.finish("KILLED" if not over else "FAILED" if history.best() is None else "FINISHED")


def _tell(line: str) -> None:
    print(line, flush=True)
