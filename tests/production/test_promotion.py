from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rlhpo_core.errors import UserError
from rlhpo_core.production import promotion
from rlhpo_core.production.gate import Decision, Measured, Verdict
from rlhpo_core.production.ledger import PLACE, Ledger, Record
from rlhpo_core.production.promotion import decide, promote, rollback
from rlhpo_core.production.registered_model import RegisteredModel
from rlhpo_core.storage.lock import Lock, locked
from rlhpo_core.storage.object_store import FolderStore, Store
from rlhpo_core.study.spec import TrackingSpec
from rlhpo_core.tracking.registry import aliases_of_model
from tests.helpers.clocks import Clock
from tests.helpers.mlflow_store import new_store
from tests.helpers.servers import shared_s3_server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(new_store(tmp_path_factory.mktemp("registry")))


@pytest.fixture
def ledger(client: MlflowClient, tmp_path: Path, request: pytest.FixtureRequest) -> Ledger:
    """Of a model with four versions, the first of which is champion."""
    name = f"{request.node.name[:50]}-{uuid.uuid4().hex[:6]}"
    client.create_registered_model(name)
    for _ in range(4):
        client.create_model_version(name, source=str(tmp_path))
    client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_alias(name, "challenger", "4")
    return Ledger.of(name, str(tmp_path / "ledger"))


def verdict(gain: float, decision: Decision | None = None) -> Verdict:
    decision = decision or ("promote" if gain > 0 else "keep")
    return Verdict(
        decision=decision, reason=f"gain {gain}", metric="accuracy", rows=500, confidence=0.95,
        measured=Measured(
            champion=0.8, challenger=0.8 + gain, gain=gain, low=gain - 0.01, high=gain + 0.01, margin=0.0,
            detectable=0.02,
        ),
    )  # fmt: skip


class Gate:
    """Verdicts by gain, and what was asked for."""

    def __init__(self, gains: Mapping[str, float]) -> None:
        self.gains = gains
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, champion: str, challengers: Sequence[str]) -> dict[str, Verdict]:
        self.asked.append((champion, tuple(challengers)))
        base = self.gains.get(champion, 0.0)
        return {version: verdict(self.gains[version] - base) for version in challengers}


def aliases(client: MlflowClient, ledger: Ledger) -> dict[str, str]:
    return aliases_of_model(client, ledger.model)


def created(client: MlflowClient, ledger: Ledger) -> int:
    moment = promotion.created_at(client, ledger.model)
    assert moment is not None
    return moment


def enter(client: MlflowClient, ledger: Ledger, *versions: str, champion: str = "1") -> None:
    for version in versions:
        promotion.enter(client, ledger, version, f"study-{version}", champion)


def ask(client: MlflowClient, ledger: Ledger, version: str, gate: promotion.Judge) -> Record:
    return decide(client, ledger, version, f"study-{version}", "digest", gate)


def test_a_better_challenger_is_promoted_and_can_be_rolled_back(client: MlflowClient, ledger: Ledger) -> None:
    enter(client, ledger, "4")
    record = ask(client, ledger, "4", Gate({"4": 0.05}))
    assert (record.outcome, record.champion_before, record.champion, record.previous) == ("promoted", "1", "4", "1")
    assert aliases(client, ledger) == {"champion": "4", "previous": "1"}
    tags = client.get_model_version(ledger.model, "4").tags
    assert tags["rlhpo.gate.decision"] == f"promoted (record {record.number})"

    back = rollback(client, ledger, "complaints")
    assert (back.outcome, back.champion, back.previous) == ("rolled_back", "1", "4")
    assert aliases(client, ledger) == {"champion": "1", "previous": "4"}
    assert [r.outcome for r in ledger.records()] == ["promoted", "rolled_back"]
    assert [r.number for r in ledger.records()] == [1, 2]
    assert ledger.records()[1].reason == "complaints"


def test_one_that_is_not_better_is_kept_out(client: MlflowClient, ledger: Ledger) -> None:
    enter(client, ledger, "4")
    record = ask(client, ledger, "4", Gate({"4": -0.01}))
    assert (record.outcome, record.champion, record.champion_before) == ("kept", "1", "1")
    assert aliases(client, ledger) == {"champion": "1", "challenger": "4"}
    with pytest.raises(UserError, match="no previous champion"):
        rollback(client, ledger, "")


def test_of_two_that_wait_the_better_one_is_promoted_whoever_comes_first(client: MlflowClient, ledger: Ledger) -> None:
    enter(client, ledger, "2", "3")
    gate = Gate({"2": 0.03, "3": 0.06})
    worse = ask(client, ledger, "2", gate)
    assert worse.outcome == "kept"
    assert "version 3, which waited at the same time, gains more" in worse.reason
    assert aliases(client, ledger)["champion"] == "3"
    assert gate.asked == [("1", ("2", "3"))]
    better = ask(client, ledger, "3", gate)
    assert (better.outcome, better.champion, better.study_id) == ("promoted", "3", "study-3")
    assert gate.asked == [("1", ("2", "3"))], "it was decided already, and is not judged again"
    assert [r.outcome for r in ledger.records()] == ["promoted", "kept"]


def test_a_latecomer_is_judged_against_the_new_champion(client: MlflowClient, ledger: Ledger) -> None:
    enter(client, ledger, "2")
    gate = Gate({"2": 0.03, "3": 0.02})
    assert ask(client, ledger, "2", gate).outcome == "promoted"
    enter(client, ledger, "3")  # it had begun when 1 was champion
    record = ask(client, ledger, "3", gate)
    assert (record.outcome, record.champion_before) == ("kept", "2")
    assert gate.asked[-1] == ("2", ("3",))
    assert aliases(client, ledger)["champion"] == "2"


def test_the_champion_is_read_again_just_before_the_alias_moves(client: MlflowClient, ledger: Ledger) -> None:
    """Someone sets the alias by hand while the challenger is being judged."""
    enter(client, ledger, "4")
    inner, asked = Gate({"2": 0.07, "4": 0.05}), []

    def judge(champion: str, challengers: Sequence[str]) -> dict[str, Verdict]:
        asked.append(champion)
        if len(asked) == 1:
            client.set_registered_model_alias(ledger.model, "champion", "2")
        return inner(champion, challengers)

    assert ask(client, ledger, "4", judge).outcome == "kept"
    assert asked == ["1", "2"]
    assert aliases(client, ledger)["champion"] == "2"


def test_the_judging_may_take_longer_than_the_lock_lives(
    client: MlflowClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, expiry = Clock(), 0.2
    held: list[Lock] = []

    @contextmanager
    def short_lived(store: Store, holder: str) -> Iterator[Lock]:
        with locked(store, holder, expiry=expiry, clock=clock) as lock:
            held.append(lock)
            yield lock

    def judge(champion: str, challengers: Sequence[str]) -> dict[str, Verdict]:
        for _ in range(10):
            until = held[-1].expires
            clock.advance(expiry / 2, noticed=lambda until=until: held[-1].expires > until)
        return {version: verdict(0.05) for version in challengers}

    monkeypatch.setattr(promotion, "locked", short_lived)
    enter(client, ledger, "4")
    assert ask(client, ledger, "4", judge).outcome == "promoted"
    assert aliases(client, ledger)["champion"] == "4"


def test_a_refusal_concerns_only_the_one_that_asked(client: MlflowClient, ledger: Ledger) -> None:
    enter(client, ledger, "2", "3")

    def judge(champion: str, challengers: Sequence[str]) -> dict[str, Verdict]:
        return {version: verdict(0.0, "refuse") for version in challengers}

    assert ask(client, ledger, "2", judge).outcome == "refused"
    assert [candidate.version for candidate in ledger.waiting("1", created(client, ledger))] == ["3"]


def test_a_crash_between_the_decision_and_the_aliases_is_made_good(
    client: MlflowClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_the_aliases_move(client, ledger, "4", monkeypatch)
    assert aliases(client, ledger)["champion"] == "1"
    assert ask(client, ledger, "4", Gate({})).outcome == "promoted"
    assert aliases(client, ledger) == {"champion": "4", "previous": "1"}
    # What people change by hand afterwards is theirs.
    client.set_registered_model_alias(ledger.model, "champion", "2")
    promotion.settle(client, ledger)
    assert aliases(client, ledger)["champion"] == "2"


def crash_before_the_aliases_move(
    client: MlflowClient, ledger: Ledger, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version's promotion is in the ledger, and nothing else has happened."""
    enter(client, ledger, version)
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ask(client, ledger, version, Gate({version: 0.05}))
    last = ledger.last()
    assert last is not None
    assert (last.outcome, last.champion) == ("promoted", version)


@pytest.mark.parametrize("look", ["settle", "promote", "rollback"])
def test_whoever_looks_next_carries_out_what_was_decided(
    client: MlflowClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    crash_before_the_aliases_move(client, ledger, "4", monkeypatch)
    if look == "settle":
        assert promotion.settle(client, ledger) is None
        assert aliases(client, ledger) == {"champion": "4", "previous": "1"}
        keys = ledger.store.keys()
        assert promotion.settle(client, ledger) is None
        assert ledger.store.keys() == keys, "where nothing is to be done the lock is not asked for"
    elif look == "promote":
        assert promote(client, ledger, "2", "").champion_before == "4"
    else:
        assert rollback(client, ledger, "").champion == "1"
    assert client.get_model_version(ledger.model, "4").tags["rlhpo.gate.decision"].startswith("promoted ")


def test_a_promoted_version_that_was_deleted_stands_in_nobodys_way(
    client: MlflowClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_the_aliases_move(client, ledger, "4", monkeypatch)
    client.delete_model_version(ledger.model, "4")
    note = promotion.settle(client, ledger)
    assert note is not None
    assert note == ledger.last()
    assert (note.outcome, note.number, note.champion, note.data_digest) == ("abandoned", 2, "1", "digest")
    assert "record 1 made version 4 champion, but that version is not in the registry any more" in note.reason
    assert f"rlhpo promote {ledger.model} --version N" in note.reason
    assert promotion.settle(client, ledger) is None, "it is said once"
    enter(client, ledger, "3")
    assert ask(client, ledger, "3", Gate({"3": 0.05})).outcome == "promoted"
    assert aliases(client, ledger) == {"champion": "3", "previous": "1"}
    assert [record.number for record in ledger.records()] == [1, 2, 3]


def test_a_crash_after_the_note_does_not_repeat_it(
    client: MlflowClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_the_aliases_move(client, ledger, "4", monkeypatch)
    client.delete_model_version(ledger.model, "4")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_tag", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            promotion.settle(client, ledger)
    assert promotion.settle(client, ledger) is None
    assert [record.outcome for record in ledger.records()] == ["promoted", "abandoned"]


def test_a_champion_set_by_hand_after_a_crash_stays(
    client: MlflowClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_the_aliases_move(client, ledger, "4", monkeypatch)
    client.set_registered_model_alias(ledger.model, "champion", "3")
    note = promotion.settle(client, ledger)
    assert note is not None
    assert "version 3 was made champion by hand meanwhile; the champion is version 3" in note.reason
    assert aliases(client, ledger)["champion"] == "3"


def test_a_model_made_anew_begins_anew(client: MlflowClient, ledger: Ledger, tmp_path: Path) -> None:
    """Its versions count from 1 again, and the ledger remembers others of these numbers."""
    for version, champion in (("2", "1"), ("3", "2")):
        enter(client, ledger, version, champion=champion)
        assert ask(client, ledger, version, Gate({version: 0.1 * int(version)})).outcome == "promoted"
    enter(client, ledger, "4", champion="3")
    client.delete_registered_model(ledger.model)
    client.create_registered_model(ledger.model)
    for _ in range(3):
        client.create_model_version(ledger.model, source=str(tmp_path))
    enter(client, ledger, "1")
    assert ask(client, ledger, "1", Gate({})).outcome == "first"
    enter(client, ledger, "2", "3")
    gate = Gate({"2": 0.05, "3": 0.02})
    assert ask(client, ledger, "3", gate).outcome == "kept"
    assert ask(client, ledger, "2", gate).outcome == "promoted"
    assert gate.asked == [("1", ("2", "3"))]
    assert aliases(client, ledger) == {"champion": "2", "previous": "1"}
    assert promote(client, ledger, "1", "").champion_before == "2"
    assert [record.number for record in ledger.records()] == [1, 2, 3, 4, 5, 6]


def test_a_promotion_is_carried_out_also_where_the_ledger_was_lost(
    client: MlflowClient, ledger: Ledger, tmp_path: Path
) -> None:
    """The registry follows record 2; the next one must not take that for its own."""
    promote(client, ledger, "2", "")
    promote(client, ledger, "3", "")
    empty = Ledger.of(ledger.model, str(tmp_path / "another"))
    assert promote(client, empty, "4", "").number == 3
    assert aliases(client, ledger)["champion"] == "4"


def test_a_version_deleted_before_its_decision(client: MlflowClient, ledger: Ledger) -> None:
    enter(client, ledger, "2", "3")
    client.delete_model_version(ledger.model, "2")
    with pytest.raises(UserError, match=r"version 2 of .* was deleted before anything was decided about it"):
        ask(client, ledger, "2", Gate({"2": 0.9, "3": 0.1}))
    enter(client, ledger, "2")
    gate = Gate({"3": 0.1})
    assert ask(client, ledger, "3", gate).outcome == "promoted"
    assert gate.asked == [("1", ("3",))]
    assert ledger.waiting("1", created(client, ledger)) == []


def test_a_previous_champion_that_was_deleted_is_left_out(
    client: MlflowClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_the_aliases_move(client, ledger, "4", monkeypatch)
    client.delete_model_version(ledger.model, "1")
    assert promotion.settle(client, ledger) is None
    assert aliases(client, ledger) == {"champion": "4"}


def test_a_model_that_is_not_there_has_nothing_to_settle(client: MlflowClient, tmp_path: Path) -> None:
    nowhere = Ledger.of("nowhere", str(tmp_path))
    assert promotion.settle(client, nowhere) is None
    with pytest.raises(UserError, match="there is no registered model 'nowhere' in MLflow"):
        rollback(client, nowhere, "")


def test_by_hand(client: MlflowClient, ledger: Ledger) -> None:
    record = promote(client, ledger, None, "the gate lacks rows")
    assert (record.champion, record.reason) == ("4", "by hand: the gate lacks rows")
    assert aliases(client, ledger) == {"champion": "4", "previous": "1"}
    with pytest.raises(UserError, match=r"is the champion of .* already"):
        promote(client, ledger, "4", "")
    assert promote(client, ledger, "2", "").previous == "4"
    with pytest.raises(UserError, match="no challenger; name a version"):
        promote(client, ledger, None, "")


# -- two processes ---------------------------------------------------------------------------------------------------

#: Waits for the start, then has its version decided about; gains by version as in the gate above.
FINISH = """
import sys, time
from pathlib import Path
from mlflow import MlflowClient
from rlhpo_core.production.ledger import Ledger
from tests.production.test_promotion import Gate, ask

uri, model, store, version, start = sys.argv[1:]
Path(start + version).touch()
while not Path(start).exists():
    time.sleep(0.01)
record = ask(MlflowClient(uri), Ledger.of(model, store), version, Gate({"2": 0.03, "3": 0.06}))
print(record.outcome)
"""


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_two_that_finish_at_once_bring_one_promotion_and_not_of_the_worse(
    client: MlflowClient, ledger: Ledger, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, started by the same signal; both versions were entered when their trainings ended."""
    store = str(tmp_path / "ledger")
    if kind == "s3":
        server = shared_s3_server()
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        store = f"s3://{server.bucket}/{uuid.uuid4().hex}"
        ledger = Ledger.of(ledger.model, store)
    enter(client, ledger, "2", "3")
    start = tmp_path / "start"
    place = ["sqlite:///" + client._tracking_client.tracking_uri.removeprefix("sqlite:///"), ledger.model]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FINISH, *place, store, version, str(start)],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        )
        for version in ("2", "3")
    ]  # fmt: skip
    while not (start.with_name("start2").exists() and start.with_name("start3").exists()):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)
    start.touch()
    outputs = [process.communicate(timeout=250)[0].split()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == ["kept", "promoted"]
    assert aliases(client, ledger)["champion"] == "3"
    assert aliases(client, ledger)["previous"] == "1"
    assert sorted(record.outcome for record in ledger.records()) == ["kept", "promoted"]


class Shared(FolderStore):
    """A folder that says that it is at an address."""

    @property
    def uri(self) -> str:
        return f"s3://{self.root.relative_to(self.root.parents[1])}"


def test_a_model_has_one_ledger_wherever_it_is_retuned_from(
    client: MlflowClient, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = TrackingSpec(uri=client.tracking_uri)
    promote(client, ledger, "2", "a folder is of one machine, and is not noted")
    RegisteredModel.open(ledger.model, tracking, str(tmp_path / "other"), tmp_path)
    shared = Ledger(Shared(tmp_path / "registry" / ledger.model), ledger.model)
    promote(client, shared, "3", "from the cluster")
    assert client.get_registered_model(ledger.model).tags[PLACE] == shared.place == "s3://registry"
    for elsewhere in (str(tmp_path / "other"), "s3://another/registry"):
        with pytest.raises(UserError, match=r"lies at s3://registry, and not at .*Set registry.store"):
            RegisteredModel.open(ledger.model, tracking, elsewhere, tmp_path)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert RegisteredModel.open(ledger.model, tracking, "s3://registry/", tmp_path).name == ledger.model
