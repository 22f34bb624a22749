"""What was trained is trained once, whatever the store, MLflow and KFP do meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from rlhpo_core.errors import Outage, UserError
from rlhpo_core.execution.runner import run
from rlhpo_core.execution.trial_pool import TrialPool
from rlhpo_core.kubeflow.next_run import put_study
from rlhpo_core.kubeflow.steps import tuning
from rlhpo_core.production import promotion
from rlhpo_core.production.registered_model import RegisteredModel
from rlhpo_core.retries import patiently
from rlhpo_core.storage import s3_store
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.storage.s3_store import S3Store
from rlhpo_core.storage.study_files import StudyFiles, StudyRecord
from rlhpo_core.storage.study_folder import StudyFolder
from rlhpo_core.study.spec import TrackingSpec, parse_study
from rlhpo_core.tracking.connection import Connection
from rlhpo_core.trial import Trial
from tests.helpers import stepwise
from tests.helpers.pool_study import kept_workers
from tests.helpers.servers import shared_s3_server, shared_server
from tests.helpers.weather import AWAY, HALF, LOST, PASS, FakeTime, Network


def study(folder: Path, trials: int = 2) -> str:
    text: str = yaml.safe_dump(
        {
            "name": "storm",
            "evaluator": {
                "kind": "function",
                "function": "tests.helpers.functions:before_the_storm",
                "options": {"folder": str(folder)},
            },
            "objective": {"metric": "score", "direction": "maximize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"trials": trials},
            "tuner": {"trials_per_round": 2, "agent": {"nodes": 8}},
            "execution": {"workers": 1, "threads": 1},
        }
    )
    return text


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """Between us and S3."""
    server = shared_s3_server()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    # boto3 repeats at once and in real time; here it is the waiting that counts.
    monkeypatch.setattr(s3_store, "_ATTEMPTS", 1)
    network = Network(server.ports["s3.port"])
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", network.url)
    with network.open():
        yield network


def bucket(tmp_path: Path) -> str:
    return f"s3://{shared_s3_server().bucket}/{tmp_path.name}"


class Pods:
    """The steps up to training, each with files of its own."""

    def __init__(self, folder: Path, store: str) -> None:
        self.store, self.folder = store, folder
        with patiently():
            put_study(store, parse_study(study(folder), "sent"))
        tuning.prepare(store, "", folder / "table", folder / "state", log_trials=False)
        self.proposals = tuning.propose(store, folder / "state")

    def train(self, number: int) -> Path:
        artifact = self.folder / f"trial-{number}"
        tuning.train(self.store, "", self.proposals[number], self.folder / "table", "", artifact)
        return artifact

    def trained(self) -> int:
        return len((self.folder / "trained").read_text().splitlines())


@pytest.mark.parametrize(("seconds", "weather"), [(3, AWAY), pytest.param(240, "503", marks=pytest.mark.e2e)])
def test_a_trial_outlives_an_outage_of_the_store(
    network: Network, tmp_path: Path, seconds: float, weather: str
) -> None:
    pods, away = Pods(tmp_path, bucket(tmp_path)), tmp_path / "away"
    network.weather = lambda request: weather if away.exists() else PASS
    time = FakeTime()
    artifacts = []

    def pass_by(now: float) -> None:
        artifacts.append((tmp_path / "trial-0").exists())
        if now >= seconds:
            away.unlink(missing_ok=True)

    time.at = pass_by
    with time.waiting():
        artifact = pods.train(0)
    assert time.said
    assert "write trials/" in time.said[0]
    assert all(artifacts), "the artifact is there before the store is waited for"
    kept = Trial.model_validate_json(artifact.read_bytes())
    assert StudyFiles(open_store(pods.store)).trial(kept.trial_id) == kept
    assert pods.trained() == 1
    assert pods.train(0).read_bytes() == artifact.read_bytes()
    assert pods.trained() == 1


@pytest.mark.e2e
@pytest.mark.parametrize("weather", ["403", "503"])
def test_a_trial_that_the_store_refuses_goes_on_as_an_artifact(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weather: str
) -> None:
    monkeypatch.setenv("RLHPO_PATIENCE", "60")
    pods, away, time = Pods(tmp_path, bucket(tmp_path)), tmp_path / "away", FakeTime()
    network.weather = lambda request: weather if away.exists() else PASS
    with time.waiting():
        artifact = pods.train(0)
        assert (time.now > 25) == (weather == "503")
        away.unlink()
        artifacts = [artifact, pods.train(1)]
        away.unlink()
        kept = [Trial.model_validate_json(path.read_bytes()) for path in artifacts]
        tuning.fit_reward_model(tmp_path / "state", artifacts, tmp_path / "fitted")
        tuning.update_policy(pods.store, "", tmp_path / "fitted", tmp_path / "after")
    files = StudyFiles(open_store(pods.store))
    assert [files.trial(trial.trial_id) for trial in kept] == kept
    assert list(files.whole_history().trials) == kept
    assert pods.trained() == 2


@pytest.mark.e2e
def test_a_step_that_begins_in_an_outage_waits(network: Network, tmp_path: Path) -> None:
    time, away = FakeTime(), tmp_path / "away"
    away.touch()
    time.at = lambda now: away.unlink(missing_ok=True) if now > 100 else None
    network.weather = lambda request: AWAY if away.exists() else PASS
    with time.waiting():
        pods = Pods(tmp_path, bucket(tmp_path))
    assert len(pods.proposals) == 2
    assert 100 < time.now < 160


def test_a_study_in_this_process_waits_for_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    spec, away, time = parse_study(study(tmp_path), "the study"), tmp_path / "away", FakeTime()
    folder = StudyFolder.create(tmp_path / "study", spec, StudyRecord.new(spec))
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if away.exists():
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    time.at = lambda now: away.unlink(missing_ok=True) if now % 50 > 40 else None
    with time.waiting(), TrialPool(spec, 1, 1) as pool:
        outcome = run(folder, spec, pool, [])
    assert outcome.finished
    assert len(folder.history()) == len((tmp_path / "trained").read_text().splitlines()) == 2
    assert len([line for line in time.said if "No space left" in line]) >= 4


@pytest.mark.e2e
def test_what_was_created_is_ours_though_every_answer_was_lost_for_minutes(network: Network, tmp_path: Path) -> None:
    store, time = open_store(bucket(tmp_path)), FakeTime()
    network.weather = lambda request: LOST if time.now < 90 else PASS
    with time.waiting(600):
        assert store.create("lock", b"mine")
        assert time.now > 90
        assert not store.create("lock", b"other")
    assert store.read("lock") == b"mine"


@pytest.mark.parametrize("request_", ["read", "read what is missing", "keys"])
def test_an_answer_that_breaks_off_is_asked_for_again(network: Network, tmp_path: Path, request_: str) -> None:
    store, time = open_store(bucket(tmp_path)), FakeTime()
    store.write("a", b"1" * 100_000)
    network.weather = lambda request: HALF if request.startswith("GET") and time.now < 5 else PASS
    requests: dict[str, tuple[Callable[[], object], object]] = {
        "read": (lambda: store.read("a"), b"1" * 100_000),
        "read what is missing": (lambda: store.read("b"), None),
        "keys": (store.keys, ["a"]),
    }
    request, expected = requests[request_]
    with time.waiting(600):
        assert request() == expected
    assert time.now > 5


@pytest.mark.parametrize(
    ("weather", "passes"),
    [(AWAY, True), ("500", True), ("503", True), ("429", True), ("403", False), ("404", False), ("501", False)],
)
def test_which_answers_of_s3_are_waited_for(network: Network, tmp_path: Path, weather: str, passes: bool) -> None:
    store, time = open_store(bucket(tmp_path)), FakeTime()
    network.weather = lambda request: weather if time.now < 5 else PASS
    with time.waiting(600):
        if passes:
            store.write("a", b"1")
            assert store.read("a") == b"1"
        else:
            with pytest.raises(UserError):
                store.write("a", b"1")
    assert (time.now > 5) == passes


#: What stands between may answer in the server's place: in order, as XML has it, and not.
PAGES = ["<html><body>Sign in</body></html>", "<!doctype html><html><body>Sign in<p>to go on</body></html>"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_in_place_of_s3_is_no_answer(network: Network, tmp_path: Path, page: str) -> None:
    store, time = open_store(bucket(tmp_path)), FakeTime()
    store.write("old", b"1")
    requests: list[Callable[[], object]] = [
        lambda: store.write("new", b"2"), lambda: store.create("made", b"3"), lambda: store.read("old"), store.keys
    ]  # fmt: skip
    expected = [None, True, b"1", ["made", "new", "old"]]
    for request, answer in zip(requests, expected, strict=True):
        time.now = 0.0
        network.weather = lambda request: page if time.now < 5 else PASS
        with time.waiting(600):
            assert request() == answer
        assert time.now > 5
    assert any("is not S3" in line for line in time.said)
    assert (store.read("new"), store.read("made")) == (b"2", b"3")


def test_a_bucket_that_is_not_there_is_not_waited_for(network: Network) -> None:
    time = FakeTime()
    with time.waiting(600), pytest.raises(UserError, match="no such bucket"):
        S3Store("no-such-bucket").keys()
    assert time.now == 0


def test_a_name_that_is_not_resolved_is_waited_for(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://no-such-host.invalid")
    time = FakeTime()
    with time.waiting(10), pytest.raises(Outage, match="the server does not answer"):
        S3Store("bucket").read("a")
    assert time.now > 0


@pytest.mark.parametrize(("weather", "passes"), [(AWAY, True), ("503", True), ("429", True), ("403", False)])
def test_first_contact_with_mlflow_is_waited_for(weather: str, passes: bool) -> None:
    time, found = FakeTime(), '{"experiment": {"experiment_id": "7", "name": "x"}}'
    network = Network(9, lambda request: weather if time.now < 60 else found)
    with network.open():
        connection = Connection.of(TrackingSpec(uri=network.url), Path())
        with pytest.raises(UserError):
            connection.contact(lambda client: client.get_experiment_by_name("x"))
        assert len(network.requests) == 1, "at the command line nothing waits"
        with time.waiting(600):
            if passes:
                assert connection.contact(lambda client: client.get_experiment_by_name("x")).experiment_id == "7"
            else:
                with pytest.raises(UserError, match="denies access"):
                    connection.contact(lambda client: client.get_experiment_by_name("x"))
    assert (time.now >= 60) == passes


@pytest.mark.usefixtures("only_these_settings")
def test_the_steps_between_two_runs_wait_while_mlflow_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is away for ninety seconds when a run's first step asks, when the last does, and amid the registration."""
    store, time, network = str(tmp_path / "store"), FakeTime(), Network(shared_server().port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", network.url)
    put_study(store, parse_study(stepwise.study(trials=3, registry={"model": "rolled-out"}), "sent"))
    table, state, until = tmp_path / "table", tmp_path / "state", [90.0]
    registering = False

    def weather(request: str) -> str:
        nonlocal registering
        if time.now >= until[0] and request.endswith("model-versions/create") and not registering:
            registering, until[0] = True, time.now + 90
        return AWAY if time.now < until[0] else PASS

    network.weather = weather
    with network.open(), kept_workers(), time.waiting():
        prepared = tuning.prepare(store, "", table, state)
        assert 90 <= time.now < 200
        trials = []
        for proposal in tuning.propose(store, state):
            trials.append(tmp_path / f"trial-{len(trials)}")
            tuning.train(store, prepared.run_id, proposal, table, prepared.table_name, trials[-1])
        tuning.fit_reward_model(state, trials, tmp_path / "fitted")
        tuning.update_policy(store, prepared.run_id, tmp_path / "fitted", tmp_path / "after")
        time.now, until[0] = 0.0, 90.0
        assert tuning.conclude(store, table, prepared.table_name) == "rolled-out version 1"
    assert registering
    assert time.now >= 180
    client = MlflowClient(shared_server().url)
    assert client.get_run(prepared.run_id).info.status == "FINISHED"
    assert len(client.search_model_versions("name = 'rolled-out'")) == 1


@pytest.mark.parametrize(("weather", "passes"), [(AWAY, True), ("503", True), ("403", False)])
def test_the_registry_is_waited_for_at_every_request(weather: str, passes: bool, tmp_path: Path) -> None:
    time, network = FakeTime(), Network(shared_server().port)
    with network.open():
        name = f"wine-{weather}"
        model = RegisteredModel.open(name, TrackingSpec(uri=network.url), str(tmp_path), tmp_path)
        model.client.create_registered_model(name)
        model.client.create_model_version(name, source="s3://elsewhere/model", tags={"who": "one"})
        assert promotion.champion_of(model.client, name) is None
        network.weather = lambda request: weather if time.now < 60 else PASS
        with pytest.raises(UserError):
            model.tags("1")
        with time.waiting(600):
            if passes:
                assert model.tags("1")["who"] == "one"
                time.now = 0.0
                with model.connection.open():
                    record = promotion.promote(model.client, model.ledger, "1", "by hand")
                assert (record.outcome, promotion.champion_of(model.client, name)) == ("promoted", "1")
            else:
                with pytest.raises(UserError, match="denies access"):
                    model.tags("1")
        network.weather = lambda request: PASS
        with pytest.raises(UserError, match="not found"):
            model.tags("77")
    assert (time.now >= 60) == passes


def test_a_trial_that_two_runs_trained_has_one_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHPO_ALLOWED_MODULES", "tests")
    pods = Pods(tmp_path, str(tmp_path / "store"))
    files = StudyFiles(open_store(pods.store))
    trained = TrialPool.run

    def overtaken(pool: TrialPool, *arguments: object) -> Iterator[Trial]:
        for trial in trained(pool, *arguments):  # type: ignore[arg-type]
            files.write_trial(trial.model_copy(update={"value": -1.0}))
            yield trial

    monkeypatch.setattr(TrialPool, "run", overtaken)
    artifact = pods.train(0)
    kept = Trial.model_validate_json(artifact.read_bytes())
    assert kept.value == -1.0
    assert list(files.history().trials) == [kept]
