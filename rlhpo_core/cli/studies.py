"""What the command line shows of studies: one, a list of them, several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table as Grid

from rlhpo_core.cli.options import check_free_or, console, write_file
from rlhpo_core.errors import UserError

if TYPE_CHECKING:
    from rlhpo_core.storage.study_files import StudyFiles
    from rlhpo_core.storage.study_folder import StudyFolder
    from rlhpo_core.study.spec import StudySpec
    from rlhpo_core.trial import History


def show_store(address: str) -> None:
    """Print the study in an object store. Raises: UserError if there is none, or if it cannot be read."""
    from rlhpo_core.storage.object_store import open_store
    from rlhpo_core.storage.study_files import StudyFiles

    _print_study(StudyFiles(open_store(address)), "")


def show(folder: Path) -> None:
    """Print the study in a folder, or a list of those below it.

    Raises: UserError if there is none; at the end of the list, naming those that cannot be read.
    """
    from rlhpo_core.storage.study_folder import StudyFolder, studies

    if StudyFolder(folder).study_file.exists():
        opened = StudyFolder(folder)
        _print_study(opened, _state(opened, opened.spec(), opened.history_of_files()))
        return
    folders = list(studies(folder))
    if not folders:
        raise UserError(f"no studies in {folder}; `rlhpo tune STUDY.yaml` starts one")
    grid = Grid("study", "state", "trials", "failed", "stopped", "best", "winner", box=None, header_style="bold")
    damaged: list[UserError] = []
    for each in folders:
        try:
            grid.add_row(escape(str(each.path)), *_row(each))
        except UserError as error:
            grid.add_row(escape(str(each.path)), "damaged")
            damaged.append(error)
    console.print(grid)
    if damaged:
        raise UserError("\n".join(map(str, damaged)))


def compare(studies: list[StudyFolder], html: Path | None, csv: Path | None) -> None:
    """Print studies side by side, and write their page. Raises: UserError if they have different objectives."""
    from rlhpo_core.report.comparison import HEADER
    from rlhpo_core.report.comparison import compare as compared_of

    if csv is not None:
        raise UserError("--csv: the trials of one study alone are written as a table; name one folder")
    compared = compared_of([(str(study.path), study) for study in studies])
    grid = Grid(*HEADER, box=None, header_style="bold")
    for row in compared.rows:
        grid.add_row(*map(escape, row))
    console.print(grid)
    if html is not None:
        check_free_or(html, "<!doctype html", "HTML page")
        write_file(html, compared.html.encode(), force=True)
        console.print(f"comparison: {escape(str(html))}")


def _print_study(folder: StudyFiles, state: str) -> None:
    from rlhpo_core.stopping.saved import Saved

    spec = folder.spec()
    history = _history(folder)
    seconds = int(folder.record().seconds)
    console.print(f"[bold]{escape(spec.name)}[/] {state}".rstrip())
    console.print(f"trials     {len(history)} of {spec.budget.trials}, {_failed(history)} failed, in {seconds} s")
    if (saved := Saved.of(history)) is not None:
        console.print(f"stopped    {saved.described()}", soft_wrap=True)
    if history.best() is not None:
        print_best(folder, spec)


def _history(study: StudyFiles) -> History:
    """Of a folder, by its trials' files, without waiting for torch; of a store, by its state, which is one request."""
    from rlhpo_core.storage.object_store import FolderStore

    return study.history_of_files() if isinstance(study.store, FolderStore) else study.history()


def print_best(folder: StudyFiles, spec: StudySpec) -> None:
    """Print the best trial, and the winner's scores on the holdout if it is the winner."""
    from rlhpo_core.trial import shown

    best, winner = _history(folder).best(), folder.record().winner
    assert best is not None
    console.print(
        f"best       {spec.objective.metric} [bold cyan]{best.value:.6g}[/] (trial {best.proposal.number + 1})"
    )
    for name, value in best.config.items():
        text = f"{value:.6g}" if isinstance(value, float) else shown(value)
        console.print(f"           {escape(name)}: {escape(text)}")
    if winner is not None and winner.trial_id == best.trial_id:
        scores = ", ".join(f"{name} {value:.5g}" for name, value in winner.holdout.items())
        console.print(f"holdout    {scores}")
        if winner.warning is not None:
            console.print(f"[bold red]warning[/]    {escape(winner.warning)}")
        why = "the study names no registry.model" if spec.registry.model is None else "see registry.must_beat_constant"
        console.print(f"registered {escape(winner.registered or f'no ({why})')}")


def _row(study: StudyFolder) -> tuple[str, ...]:
    """What the list of studies says of one, after its folder."""
    spec, history, winner = study.spec(), _history(study), study.record().winner
    best = history.best()
    return (
        _state(study, spec, history),
        f"{len(history)}/{spec.budget.trials}",
        str(_failed(history)),
        str(sum(trial.stop is not None for trial in history.trials)),
        "–" if best is None else f"{spec.objective.metric} {best.value:.5g}",
        (winner.registered or ("of no use" if winner.warning else "refitted")) if winner is not None else "–",
    )


def _state(folder: StudyFolder, spec: StudySpec, history: History) -> str:
    from rlhpo_core.study.budget import spent

    if folder.busy():
        return "running"
    if spent(spec.budget, history, folder.record().seconds) is None:
        return "interrupted"
    return "finished" if history.best() is not None else "failed"


def _failed(history: History) -> int:
    from rlhpo_core.trial import TrialStatus

    return sum(trial.status in (TrialStatus.FAILED, TrialStatus.INFEASIBLE) for trial in history.trials)
