"""Whole studies in this process: what ``rlhpo tune`` and ``rlhpo resume`` do behind their options."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlhpo_core.cli import session
from rlhpo_core.cli.interrupts import Interrupts
from rlhpo_core.errors import UserError
from rlhpo_core.production.ledger import Ledger
from rlhpo_core.report.study_report import Report
from rlhpo_core.storage import lease
from rlhpo_core.storage.lock import LostLock
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import StudySpec, TrackingSpec, load_study
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import Trial
from tests.helpers import retuned_models
from tests.helpers.command_line import children, client, write_study
from tests.helpers.mlflow_store import new_store
from tests.helpers.webhooks import Hook

pytestmark = pytest.mark.usefixtures("only_these_settings")

NAP = {"act": {"type": "fixed", "value": "nap"}, "x": {"type": "float", "low": 0.0, "high": 1.0}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("work")
    new_store(place / "runs")
    return place


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def study(place: Path, name: str, **fields: Any) -> StudySpec:
    small = {"budget": {"trials": 2}, "tuner": {"mode": "random"}, "execution": {"workers": 1}}
    return load_study(write_study(place, name, **{**small, **fields}))


def test_a_study_is_tuned_logged_reported_and_told_of(place: Path, console: Console, hook: Hook) -> None:
    spec = study(place, "whole", alerts={"url": hook.url, "events": ["budget_spent"]})
    result = session.start(spec, place / "runs" / "whole", console)
    assert (result.finished, result.logged, result.reason) == (True, True, "all 2 trials done")
    assert result.best is not None
    assert result.winner is None, "a function has no model to refit"
    assert f"sqlite:///{place}/runs/mlflow.db" in result.page
    assert "<h1>whole</h1>" in (result.folder.path / "report.html").read_text()
    assert len(children(client(place), result.folder.path)) == 2
    ((_, body),) = hook.heard
    event = json.loads(body)
    assert (event["event"], event["study"], event["best"]) == ("budget_spent", "whole", result.best.value)
    with pytest.raises(UserError, match="holds a study already"):
        session.start(spec, place / "runs" / "whole", console)


def test_a_retuning_that_fails_before_its_decision_is_recorded_and_alerted(
    place: Path, console: Console, hook: Hook, tmp_path: Path
) -> None:
    spec = retuned_models.study(
        tmp_path, retuned_models.WINES[:400], "between", budget={"trials": 1},
        alerts={"url": hook.url, "events": ["failed"]}, execution={"workers": 1, "threads": 1, "drill": [1]},
        tracking={"uri": f"sqlite:///{place}/runs/mlflow.db"},
    )  # fmt: skip
    with pytest.raises(UserError, match="none of the 1 trials succeeded"):
        session.retune(spec, tmp_path / "runs" / "between", console)
    (record,) = Ledger.of("between", str(tmp_path / "registry")).records()
    assert (record.outcome, record.run) == ("failed", None)
    assert record.reason.startswith("all 1 trials done; none of the 1 trials succeeded: 1 × RuntimeError: made to fail")
    assert [json.loads(body)["reason"] for _, body in hook.heard] == [record.reason]


def test_a_study_that_cannot_be_logged_leaves_no_folder(place: Path, console: Console) -> None:
    spec = study(place, "unseen", tracking={"uri": "http://127.0.0.1:9"})
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9 .* cannot be reached"):
        session.start(spec, place / "runs" / "unseen", console)
    assert not (place / "runs" / "unseen").exists()


def test_a_study_that_cannot_begin_leaves_a_folder_as_it_found_it(
    place: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {"uri": "http://127.0.0.1:9"}
    (place / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be reached"):
        session.start(study(place, "unseen", tracking=elsewhere), place / "empty", console)
    assert list((place / "empty").iterdir()) == []
    with pytest.raises(UserError, match="cannot read the prior no-such-prior"):
        session.start(study(place, "untaught", prior="no-such-prior", tuner={}), place / "empty" / "new", console)
    assert list((place / "empty").iterdir()) == []
    begin = session.begin_study

    def begin_beside_another_file(folder: StudyFolder, spec: StudySpec) -> None:
        begin(folder, spec)
        (folder.path / "thesis.txt").write_text("years of work")

    monkeypatch.setattr(session, "begin_study", begin_beside_another_file)
    with pytest.raises(UserError, match="cannot be reached"):
        session.start(study(place, "unseen", tracking=elsewhere), place / "shared", console)
    assert [file.name for file in (place / "shared").iterdir()] == ["thesis.txt"]


def test_a_folder_that_is_not_empty_is_refused_and_kept(place: Path, console: Console) -> None:
    precious = place / "precious" / "thesis" / "keep.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    for tracking in ({"uri": "http://127.0.0.1:9"}, {}):
        with pytest.raises(UserError, match=r"precious is not empty.*choose another --out"):
            session.start(study(place, "guest", tracking=tracking), place / "precious", console)
    assert [file.name for file in (place / "precious").rglob("*")] == ["thesis", "keep.txt"]
    assert precious.read_text() == "years of work"


def test_a_study_of_failures_ends_with_their_causes(place: Path, console: Console) -> None:
    crash = {"kind": "function", "function": "tests.helpers.functions:always_crash"}
    causes = r"(?s)all 2 trials done; none of the 2 trials succeeded.*2 × ArithmeticError.*report\.html"
    with pytest.raises(UserError, match=causes):
        session.start(study(place, "doomed", evaluator=crash), place / "runs" / "doomed", console)
    assert (place / "runs" / "doomed" / "report.html").exists()
    assert {run.info.status for run in children(client(place), place / "runs" / "doomed")} == {"FAILED"}


def test_what_mlflow_misses_is_said_and_logged_by_resuming(
    place: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tracker: StudyTracker, report: Report) -> None:
        raise UserError("MLflow is away")

    monkeypatch.setattr(session, "log_report", refuse)
    path = place / "runs" / "cut-off"
    result = session.start(study(place, "cut-off"), path, console)
    assert (result.finished, result.logged) == (True, False)
    assert f"MLflow is away\nThe study is whole in {path}; `rlhpo resume {path}` logs the rest." in said(console)
    monkeypatch.undo()
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    again = session.resume(path, console)
    assert (again.logged, again.reason) == (True, "all 2 trials done")
    assert len(children(client(place), path)) == 2


def test_a_study_goes_on_as_it_began_or_not_at_all(place: Path, console: Console) -> None:
    table = place / "small.csv"
    rows = [f"{i % 7},{i % 3},{'yes' if i % 7 > 3 else 'no'}" for i in range(60)]
    table.write_text("\n".join(["a,b,label", *rows]) + "\n")
    spec = study(
        place, "steady", evaluator={"kind": "xgboost"}, data={"path": str(table), "target": "label"},
        objective="accuracy", space={"max_depth": {"type": "int", "low": 1, "high": 3}}, budget={"trials": 1},
    )  # fmt: skip
    folder = session.start(spec, place / "runs" / "steady", console).folder
    text = folder.study_file.read_text()
    folder.study_file.write_text(text.replace("metric: accuracy", "metric: auc").replace("trials: 1", "trials: 2"))
    with pytest.raises(UserError, match=r"differs in objective\.metric \(was accuracy, is auc\)"):
        session.resume(folder.path, console)
    folder.study_file.write_text(text.replace("trials: 1", "trials: 2"))
    table.rename(place / "moved.csv")
    table.write_text("\n".join(["a,b,label", *rows, "1,1,yes"]) + "\n")
    with pytest.raises(UserError, match="another table"):
        session.resume(folder.path, console)
    assert len(folder.history()) == 1
    folder.study_file.write_text(folder.study_file.read_text().replace("small.csv", "moved.csv"))
    assert session.resume(folder.path, console).reason == "all 2 trials done"


def test_a_study_that_somebody_else_has_taken_over_is_left_to_them(
    place: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after hours in which this process was stopped, to a process on another machine."""
    write, path = StudyFolder.write_trial, place / "runs" / "taken"

    def write_and_lose(folder: StudyFolder, trial: Trial) -> Trial:
        kept = write(folder, trial)
        there = {"holder": "process 7 on elsewhere abc", "since": time.time(), "expires": time.time() + 60}
        folder.store.create("lock/0000000002", json.dumps(there).encode())
        time.sleep(0.3)
        return kept

    with monkeypatch.context() as patch:
        patch.setattr(lease, "EXPIRY", 1.0)
        patch.setattr(StudyFolder, "write_trial", write_and_lose)
        with pytest.raises(
            LostLock,
            match=r"taken was held too long and is lost to process 7 on elsewhere; what was done under it is kept",
        ):
            session.start(study(place, "taken", space=NAP, budget={"trials": 9}), path, console)
    folder = StudyFolder(path)
    assert len(folder.history()) < 9
    assert study_run(place, folder).info.status == "RUNNING", "it is theirs"
    with pytest.raises(
        UserError, match=rf"{path} is being tuned by process 7 on elsewhere since .*; if it is dead, try"
    ):
        session.resume(path, console)
    folder.store.delete("lock/0000000002")
    assert session.resume(path, console).finished


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Presses Ctrl-C when the first trial has ended."""
    pressed: list[int] = []
    write = StudyFolder.write_trial

    def write_and_press(folder: StudyFolder, trial: Trial) -> Trial:
        kept = write(folder, trial)
        if not pressed:
            pressed.append(trial.proposal.number)
            os.kill(os.getpid(), signal.SIGINT)
        return kept

    monkeypatch.setattr(StudyFolder, "write_trial", write_and_press)
    yield pressed
    assert pressed


def test_an_error_while_tuning_leaves_no_run_that_seems_to_go_on(
    place: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: StudyFolder, trial: Trial) -> Trial:
        raise UserError("cannot write the trial")

    spec, path = study(place, "broken"), place / "runs" / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(StudyFolder, "write_trial", full)
        with pytest.raises(UserError, match="cannot write the trial"):
            session.start(spec, path, console)
    assert tracked_run(place, path).info.status == "FAILED"
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    assert session.resume(path, console).finished
    assert tracked_run(place, path).info.status == "FINISHED"


def test_a_conclusion_that_fails_leaves_none_either(
    place: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise UserError("the winner cannot be trained")

    monkeypatch.setattr(session, "register_winner", fail)
    result = session.start(study(place, "unconcluded"), place / "runs" / "unconcluded", console)
    assert (result.finished, result.logged) == (True, False)
    assert "the winner cannot be trained" in said(console)
    assert tracked_run(place, result.folder.path).info.status == "FAILED"


def tracked_run(place: Path, path: Path) -> Any:
    """The study's own run, also of a study without a trial."""
    store, study_id = client(place), StudyFolder.open(path).record().study_id
    experiments = [experiment.experiment_id for experiment in store.search_experiments()]
    wanted = f"tags.`rlhpo.study_id` = '{study_id}' and tags.`rlhpo.run` = 'study'"
    (run,) = store.search_runs(experiments, wanted)
    return run


def test_studies_without_a_place_of_their_own_are_numbered(place: Path, console: Console) -> None:
    spec = study(place, "many", budget={"trials": 1})
    made = [session.start(spec, place / "runs" / "many", console, numbered=True).folder.path.name for _ in range(2)]
    assert made == ["many", "many-2"]
    elsewhere = spec.model_copy(update={"tracking": TrackingSpec(uri="http://127.0.0.1:9")})
    with pytest.raises(UserError, match="cannot be reached"):
        session.start(elsewhere, place / "runs" / "many", console, numbered=True)
    assert sorted(path.name for path in (place / "runs").glob("many*")) == ["many", "many-2"]


def test_a_report_that_cannot_be_written_is_said_and_written_by_a_resume(
    place: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, make_report = place / "runs" / "unwritten", session.make_report

    def in_the_way(*arguments: Any) -> Any:
        (path / "report.html").mkdir()
        return make_report(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(session, "make_report", in_the_way)
        result = session.start(study(place, "unwritten", budget={"trials": 2}), path, console)
    assert (result.finished, result.logged) == (True, False)
    assert "report.html" in said(console)
    (path / "report.html").rmdir()
    assert session.resume(path, console).logged
    assert (path / "report.html").is_file()
    assert study_run(place, result.folder).info.status == "FINISHED"


def test_ctrl_c_finishes_the_trials_at_hand(place: Path, console: Console, ctrl_c: list[int]) -> None:
    spec = study(place, "polite", space=NAP, budget={"trials": 9})
    before = signal.getsignal(signal.SIGINT)
    result = session.start(spec, place / "runs" / "polite", console)
    assert (result.finished, result.reason) == (False, "interrupted")
    assert "Finishing the trials at hand" in said(console)
    assert 1 <= len(result.folder.history()) < 9
    assert signal.getsignal(signal.SIGINT) is before
    assert study_run(place, result.folder).info.status == "KILLED"


def test_sigterm_saves_what_there_is_and_leaves_the_report_to_a_resume(
    place: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, path = StudyFolder.write_trial, place / "runs" / "evicted"

    def write_and_terminate(folder: StudyFolder, trial: Trial) -> Trial:
        kept = write(folder, trial)
        os.kill(os.getpid(), signal.SIGTERM)
        return kept

    with monkeypatch.context() as patch:
        patch.setattr(StudyFolder, "write_trial", write_and_terminate)
        result = session.start(study(place, "evicted", space=NAP, budget={"trials": 3}), path, console)
    assert (result.finished, result.reason) == (False, "interrupted")
    assert len(result.folder.history()) == 1
    assert not (path / "report.html").exists()
    assert study_run(place, result.folder).info.status == "KILLED"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    again = session.resume(path, console)
    assert (again.finished, again.logged) == (True, True)
    assert (path / "report.html").exists()
    assert study_run(place, result.folder).info.status == "FINISHED"
    assert len(children(client(place), path)) == 3


def study_run(place: Path, folder: StudyFolder) -> Any:
    (run,) = {run.data.tags["mlflow.parentRunId"] for run in children(client(place), folder.path)}
    return client(place).get_run(run)


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
@pytest.mark.parametrize("stage", ["register_winner", "make_report"])
def test_the_end_of_a_study_can_be_broken_off(
    place: Path, console: Console, monkeypatch: pytest.MonkeyPatch, stage: str, signals: list[signal.Signals]
) -> None:
    def take_long(*_: Any) -> None:
        for number in signals:
            os.kill(os.getpid(), number)
        pytest.fail("the signals were not heeded")

    name = f"slow-{stage.replace('_', '-')}-{len(signals)}"
    path = place / "runs" / name
    with monkeypatch.context() as patch:
        patch.setattr(session, stage, take_long)
        result = session.start(study(place, name, budget={"trials": 1}), path, console)
    assert (result.finished, result.reason) == (False, "interrupted")
    assert study_run(place, result.folder).info.status == "KILLED"
    assert ("press Ctrl-C again to leave that to `rlhpo resume`" in said(console)) == (len(signals) == 2)
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    assert session.resume(path, console).reason == "all 1 trials done"
    assert study_run(place, result.folder).info.status == "FINISHED"


def test_the_second_interruption_and_sigterm_give_the_trials_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for signals in ([signal.SIGINT, signal.SIGINT], [signal.SIGTERM]):
        warnings: list[str] = []
        cancelled: list[int] = []
        with Interrupts(warnings.append) as interrupts:
            with interrupts.heeded(lambda cancelled=cancelled: cancelled.append(1)):
                for number in signals:
                    assert not cancelled
                    os.kill(os.getpid(), number)
            assert interrupts.count == 2
            with pytest.raises(KeyboardInterrupt):
                interrupts.check()
        assert cancelled == [1]
        assert len(warnings) == len(signals) - 1
    monkeypatch.setattr("rlhpo_core.cli.interrupts._GRACE", 0.05)
    interrupts = Interrupts(warnings.append)
    with interrupts, interrupts.heeded(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(60)


def test_a_report_that_cannot_be_written_is_an_error(place: Path, console: Console) -> None:
    spec = study(place, "drawn", budget={"trials": 1})
    folder = session.start(spec, place / "runs" / "drawn", console).folder
    (folder.path / "report.html").unlink()
    assert session.write_report(folder, spec) == folder.path / "report.html"
    page = session.write_report(folder, spec, place / "charts.html")
    assert "Plotly.newPlot" in page.read_text()
    assert session.write_report(folder, spec, page) == page, "an earlier page is replaced"
    (place / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"table\.csv exists and is no HTML page"):
        session.write_report(folder, spec, place / "table.csv")
    assert (place / "table.csv").read_text() == "a,b\n1,2\n"
    with pytest.raises(UserError, match=r"cannot write .*nowhere"):
        session.write_report(folder, spec, place / "nowhere" / "charts.html")
