"""Kills at random points of checks, decisions and promotions: ledger and alias agree afterwards, nothing is lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rlhpo_core.production.ledger import DECISIONS, Ledger, Record
from rlhpo_core.production.registered_model import RegisteredModel
from rlhpo_core.tracking.registry import aliases_of_model
from tests.helpers.mlflow_store import new_store
from tests.helpers.promotion_steps import Processes, Step
from tests.helpers.retuned_models import WINES, copies, finished, study

pytestmark = [pytest.mark.usefixtures("only_these_settings"), pytest.mark.e2e]

VERSIONS, KILLS, SEED = 10, 12, 14
#: One kill in so many lies between record and aliases for certain.
CERTAIN = 4


@pytest.fixture
def model(tmp_path: Path) -> Iterator[tuple[RegisteredModel, Processes]]:
    """A champion, versions that challenge it, and processes that take steps with them."""
    new_store(tmp_path)
    original = study(tmp_path, WINES[:600], "wine", trees=3)
    finished(tmp_path, original)
    spec, registered = copies(original, "killed", VERSIONS)
    gains = np.random.default_rng(SEED).random(VERSIONS)
    source = registered.client.get_model_version(registered.name, "1").source
    processes = Processes(
        spec,
        {str(version): float(gain) for version, gain in enumerate(gains, start=1)},
        source,
        new_store(tmp_path, "scratch.db"),
    )
    yield registered, processes
    processes.close()


def test_after_any_kill_ledger_and_alias_agree_at_the_next_look(model: tuple[RegisteredModel, Processes]) -> None:
    registered, processes = model
    ledger, rng, now = registered.ledger, np.random.default_rng(SEED), time.time()
    versions = iter(range(2, VERSIONS + 1))
    done: Counter[str] = Counter()
    entered: list[str] = []

    def step(action: str, version: str = "", after: str = "", kill: int | None = None) -> bool:
        nonlocal now
        now += 400.0  # The dead hold the lock no longer.
        ended = processes.run(Step(action, version, now, after, kill))
        assert ended.error == "" or "is the champion of" in ended.error or "no previous champion" in ended.error
        return ended.killed

    for number in range(KILLS):
        action = str(rng.choice(["decide", "decide", "promote", "rollback", "check"]))
        # The window between record and aliases is short: every other kill lies behind the record.
        after, most = (("", 40), ("/audit/", 8))[int(rng.integers(2))]
        kill, version = int(rng.integers(1, most + 1)), str(rng.integers(1, VERSIONS + 1))
        if number % CERTAIN == 0:
            # How many points a step has depends on its times; the first behind the record is always in the window.
            last, but_one = str(VERSIONS), str(VERSIONS - 1)
            action, after, kill = "promote", "/audit/", 1
            version = but_one if champion(registered) == [last] else last
        if action == "decide":
            fresh = next(versions, None)
            version = str(rng.choice(entered)) if fresh is None else str(fresh)
            entered.append(version)
        killed = step(action, version, after, kill)
        done["killed" if killed else "ended"] += 1
        done["behind"] += champion(registered) != moves(ledger)[-1:]
        step("check")
        agree(registered)

    for version in dict.fromkeys(entered):
        step("decide", version)
        agree(registered)
    decided = [record for record in ledger.records() if record.outcome in DECISIONS]
    judged = Counter(record.challenger for record in decided if record.verdict is not None)
    by_hand = {record.challenger for record in decided if record.verdict is None}
    assert set(judged.values()) == {1}, "nothing was decided twice"
    assert set(entered) <= set(judged) | by_hand, "nor was a decision lost"
    assert done["killed"] >= KILLS / 2, done
    assert done["behind"] >= KILLS // CERTAIN, done


def champion(model: RegisteredModel) -> list[str]:
    return [aliases_of_model(model.client, model.name)["champion"]]


def moves(ledger: Ledger) -> list[str]:
    """The champions one after the other, as the ledger has them."""
    return ["1", *(record.champion or "" for record in ledger.records() if record.moves)]


def agree(model: RegisteredModel) -> None:
    """Alias and tags say what the ledger says, which has neither gaps nor two pasts."""
    records = model.ledger.records()
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert champion(model) == moves(model.ledger)[-1:]
    before = "1"
    latest: dict[str, Record] = {}
    for record in records:
        assert record.outcome != "abandoned"
        if record.champion is not None:
            assert record.champion_before in (before, None)
            before = record.champion
        if record.challenger is not None:
            latest[record.challenger] = record
    for version, record in latest.items():
        tags = model.client.get_model_version(model.name, version).tags
        assert tags["rlhpo.gate.decision"] == f"{record.outcome} (record {record.number})"
