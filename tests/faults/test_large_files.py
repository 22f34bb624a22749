"""A proxy before MLflow that takes no large requests, as nginx does unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.kubeflow.steps import chain
from rlhpo_core.report.study_report import Report, log_report
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import parse_study
from rlhpo_core.tracking.tracker import StudyTracker
from tests.helpers import chunk
from tests.helpers.kfp_server import KfpServer
from tests.helpers.pool_study import kept_workers
from tests.helpers.servers import shared_server
from tests.helpers.stepwise import study
from tests.helpers.tracked_studies import make_spec
from tests.helpers.weather import FakeTime, Network

pytestmark = pytest.mark.usefixtures("only_these_settings")


@pytest.fixture
def network() -> Iterator[Network]:
    """Between us and MLflow, with nginx's own limit."""
    network = Network(shared_server().port, most=1024 * 1024)
    with network.open():
        yield network


def puts(network: Network, name: str) -> int:
    return sum(request.startswith("PUT ") and request.endswith(f"/{name}") for request, _ in network.requests)


def test_a_page_that_is_too_large_is_left_out_with_a_warning_and_costs_nothing_else(
    network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = StudyTracker.open(make_spec("large", tracking={"uri": network.url}), "toy-1", tmp_path)
    page = "<p>" + "a study in pictures " * 60_000
    time = FakeTime()
    with time.waiting(600):
        log_report(
            tracker, Report(page, page * 4, "in short", {"curve": b"small", "slices": b"x" * 1_500_000}, {}, "done")
        )
        tracker.finish("FINISHED")
    assert (time.now, time.said) == (0.0, []), "waiting would not mend it"
    run = tracker.client.get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["mlflow.note.content"]) == ("FINISHED", "in short")
    assert [one.path for one in tracker.client.list_artifacts(tracker.run_id, "figures")] == ["figures/curve.png"]
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("warning: report.html is left out in MLflow, and all else goes on: what stands before")
    assert "does not take report.html of 1.2 MB (status 413)" in first
    assert "client_max_body_size" in first
    assert "slices.png of 1.5 MB" in second
    assert puts(network, "report.html") == 1


def test_a_run_ends_well_though_its_report_is_too_large(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its winner is registered, the next step comes to its end, and MLflow says so."""
    network.most = 48_000
    backend = KfpServer()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", network.url)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", backend.url)
    store, time = tmp_path / "store", FakeTime()
    put_study(str(store), parse_study(study(trials=3, registry={"model": "behind-a-proxy"}), "sent"))
    try:
        with time.waiting(600), kept_workers():
            chunk.main(str(store), tmp_path / "artifacts", rounds=1)
            chain.submit_next(str(store), "run-1", 0, tmp_path / "report", tmp_path / "note")
    finally:
        backend.stop()
    assert time.now == 0
    winner = StudyFolder(store).record().winner
    assert winner is not None
    assert winner.registered == "behind-a-proxy version 1"
    assert (tmp_path / "report").stat().st_size > network.most, "KFP has it"
    said = capsys.readouterr().out
    assert said.count("report.html is left out") == 1
    assert "the report is not whole" not in said


def test_a_model_that_is_too_large_is_an_error_that_says_what_to_raise(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.most = 20_000
    monkeypatch.setenv("MLFLOW_TRACKING_URI", network.url)
    large = {"n_estimators": {"type": "int", "low": 190, "high": 200}}
    one = {"trials": 1, "execution": {"threads": 1}, "tuner": {"trials_per_round": 1}}
    time, text = FakeTime(), study(space=large, registry={"model": "too-large"}, **one)
    put_study(str(tmp_path / "store"), parse_study(text, "sent"))
    with (
        time.waiting(600),
        kept_workers(),
        pytest.raises(UserError, match=r"does not take model\.ubj of 0\.\d MB .* client_max_body_size") as caught,
    ):
        chunk.main(str(tmp_path / "store"), tmp_path / "artifacts", rounds=1)
    assert not caught.value.passing
    assert time.now == 0
