"""MLflow holds what the study's files hold, or the study says what is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from rlhpo_core.cli import session
from rlhpo_core.errors import UserError
from rlhpo_core.tracking.listener import TrackingListener
from rlhpo_core.tracking.tracker import StudyTracker
from rlhpo_core.trial import History, RoundSummary
from tests.helpers.servers import shared_server
from tests.helpers.tracked_studies import children, files_of, make_history, make_spec, points
from tests.helpers.weather import AWAY, LOST, PASS, FakeTime, Network

pytestmark = pytest.mark.usefixtures("only_these_settings")

TRIALS, SUMMARIES = make_history(9).trials, [RoundSummary(round=r, trials=3 * r + 3, best=0.5) for r in range(3)]


@pytest.fixture
def network() -> Iterator[Network]:
    """Between us and MLflow."""
    network = Network(shared_server().port)
    with network.open():
        yield network


def play(
    network: Network, tmp_path: Path, name: str, weather: Callable[[str], str], until: int = 7
) -> tuple[StudyTracker, TrackingListener, list[str]]:
    """A study of three rounds, with that weather from its third trial until another."""
    spec = make_spec(name, tracking={"uri": network.url, "experiment": name})
    tracker, said = StudyTracker.open(spec, "toy-1", tmp_path), list[str]()
    empty = History(direction="minimize")
    listener = TrackingListener(tracker, empty, (), said.append, files_of(TRIALS), probe_every=0)
    for number, trial in enumerate(TRIALS):
        network.weather = weather if 2 <= number < until else lambda request: PASS
        listener.trial_finished(trial)
        if number % 3 == 2:
            listener.round_finished(SUMMARIES[number // 3])
    return tracker, listener, said


def assert_complete(tracker: StudyTracker) -> None:
    runs = children(tracker)
    assert set(runs) == {trial.trial_id for trial in TRIALS}
    for trial in TRIALS:
        run = runs[trial.trial_id]
        assert run.info.status == "FINISHED"
        assert run.data.params == {"x": str(trial.config["x"]), "kind": "a"}
        assert run.data.metrics["objective"] == trial.value
        assert run.data.metrics["accuracy"] == 0.8
        assert run.data.tags["rlhpo.trial"] == str(trial.proposal.number + 1)
    assert [step for step, _ in points(tracker, tracker.run_id, "best")] == list(range(1, 10))
    assert [step for step, _ in points(tracker, tracker.run_id, "round.trials")] == [1, 2, 3]


ONE_CALL = [pytest.param(path, marks=pytest.mark.e2e) for path in ("log-batch", "runs/create", "runs/update")]
FOREIGN = ['{"run": "x", "runs": 3, "experiment": []}', "{}", "[]", "null"]


@pytest.mark.parametrize("answer", [*FOREIGN, LOST], ids=["other fields", "empty", "list", "null", "lost"])
@pytest.mark.parametrize("path", ["", *ONE_CALL], ids=["all", "batch", "new", "end"])
def test_answers_from_elsewhere_lose_nothing(network: Network, tmp_path: Path, answer: str, path: str) -> None:
    name = f"{path}-{answer}".replace("/", "-")
    tracker, listener, said = play(network, tmp_path, name, lambda request: answer if path in request else PASS)
    assert listener.flush()
    assert_complete(tracker)
    assert not any("Not everything" in line for line in said)
    tracker.finish()


@pytest.mark.parametrize("answer", FOREIGN)
def test_what_is_missing_at_the_end_is_said(network: Network, tmp_path: Path, answer: str) -> None:
    tracker, listener, said = play(
        network, tmp_path, f"end-{answer}", lambda request: answer if "log-batch" in request else PASS, until=100
    )
    network.weather = lambda request: answer if "log-batch" in request else PASS
    assert not listener.flush()
    assert "Not everything is in MLflow" in said[-1]
    network.weather = lambda request: PASS
    assert listener.flush()
    assert_complete(tracker)
    network.weather = lambda request: answer if "runs/update" in request else PASS
    with pytest.raises(UserError):
        tracker.finish()
    network.weather = lambda request: PASS
    tracker.finish()
    assert tracker.client.get_run(tracker.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("weather", [AWAY, LOST, "503"])
@pytest.mark.parametrize("path", ["runs/create", "runs/update", "artifacts"])
def test_an_outage_while_a_study_begins_is_waited_out_and_leaves_one_run(
    network: Network, tmp_path: Path, weather: str, path: str
) -> None:
    time, name = FakeTime(), tmp_path.name
    network.weather = lambda request: weather if path in request and time.now < 10 else PASS
    with time.waiting():
        tracker = StudyTracker.open(make_spec(name, tracking={"uri": network.url, "experiment": name}), "toy", tmp_path)
    assert time.now < 30
    # A run that was made although the answer was lost is found at the next try.
    assert time.now >= 10 or (path, weather) == ("runs/create", LOST)
    runs = tracker.client.search_runs([tracker.experiment_id])
    active = [run.info.run_id for run in runs if run.info.status == "RUNNING"]
    assert active == [tracker.run_id]


@pytest.mark.parametrize("path", ["runs/search", "runs/create", "runs/update", "artifacts"])
def test_a_study_whose_run_may_be_in_mlflow_keeps_its_folder(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """What waiting does not mend comes between: a resume ends the run; without a run the place is free again."""
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    spec = make_spec(
        tmp_path.name,
        evaluator={"kind": "function", "function": "tests.helpers.functions:act"},
        objective={"metric": "score", "direction": "maximize"},
        space={"act": {"type": "fixed", "value": "score"}, "x": {"type": "float", "low": 0.0, "high": 1.0}},
        budget={"trials": 2},
        tracking={"uri": network.url, "experiment": tmp_path.name},
    )
    console = Console(file=StringIO())
    network.weather = lambda request: "403" if path in request else PASS
    with pytest.raises(UserError, match="denies access") as caught:
        session.start(spec, tmp_path / "study", console)
    network.weather = lambda request: PASS
    assert ("rlhpo resume" in str(caught.value)) == (path != "runs/search")
    if path == "runs/search":
        assert session.start(spec, tmp_path / "study", console).logged
    else:
        assert session.resume(tmp_path / "study", console).logged
    client = MlflowClient(network.url)
    runs = client.search_runs([client.get_experiment_by_name(tmp_path.name).experiment_id])
    studies = [run.info.status for run in runs if run.data.tags["rlhpo.run"] == "study"]
    assert studies == ["FINISHED"]


FIRST_START = """
import sys
from pathlib import Path
from rlhpo_core.tracking.tracker import StudyTracker
from tests.helpers.tracked_studies import make_spec
print("ready", flush=True)
sys.stdin.readline()
StudyTracker.open(make_spec("first"), sys.argv[2], Path(sys.argv[1]))
"""


@pytest.mark.e2e
def test_first_starts_at_once_share_a_new_database(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_START, str(tmp_path), f"toy-{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs


def test_a_long_curve_is_whole(network: Network, tmp_path: Path) -> None:
    """It goes in several requests, and one of them may be answered from elsewhere."""
    curve = tuple((step, float(step)) for step in range(1, 2001))
    history = History(direction="minimize", trials=(TRIALS[0].model_copy(update={"curve": curve}),))
    tracker = StudyTracker.open(
        make_spec("long", tracking={"uri": network.url, "experiment": "long"}), "toy-1", tmp_path
    )
    batches: list[str] = []

    def second_is_lost(request: str) -> str:
        if "log-batch" not in request:
            return PASS
        batches.append(request)
        return "{}" if len(batches) == 2 else PASS

    network.weather = second_is_lost
    tracker.sync(history, [])
    (run,) = children(tracker).values()
    assert len(points(tracker, run.info.run_id, "curve.log_loss")) < 2000
    assert tracker.complete(history, []) == []
    assert points(tracker, run.info.run_id, "curve.log_loss") == list(curve)
