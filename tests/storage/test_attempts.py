"""Marks of trials that are being trained: which of them are deaths."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.storage import attempts
from rlhpo_core.storage.attempts import Attempt, died_of, marked
from rlhpo_core.storage.object_store import FolderStore, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FolderStore(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "EXPIRY", 2.0)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept; nobody does."""
    found: list[float] = []
    monkeypatch.setattr(attempts.time, "sleep", found.append)
    return found


def leave(store: Store, number: int, expires: float, memory: str = "2G") -> None:
    """A mark of a process that was killed."""
    mark = Attempt(began=0.0, expires=expires, memory=memory)
    store.write(f"attempts/t/{number:04d}.json", mark.model_dump_json().encode())


def test_an_attempt_that_ends_in_an_orderly_way_leaves_nothing(store: Store) -> None:
    with marked(store, "t", "2G"):
        assert store.keys("attempts/") == ["attempts/t/0001.json"]
    for end in (UserError("no table"), SystemExit(143)):
        with pytest.raises(type(end)), marked(store, "t", "2G"):
            raise end
    assert store.keys("attempts/") == []
    assert not died_of(store, "t", "2G")


def test_two_deaths_are_enough_and_one_is_not(store: Store, naps: list[float]) -> None:
    leave(store, 1, expires=1.0)
    assert not died_of(store, "t", "2G")
    leave(store, 2, expires=2.0)
    assert died_of(store, "t", "2G")
    assert not died_of(store, "another", "2G")
    assert sum(naps) == 0, "both are dead since long"


def test_deaths_under_another_limit_do_not_count(store: Store) -> None:
    for number, memory in enumerate(("2G", "2G", "4G")):
        leave(store, number, 1.0, memory)
    assert died_of(store, "t", "2G")
    assert not died_of(store, "t", "4G")


@pytest.mark.usefixtures("quick")
def test_who_lives_has_not_died_however_many_train_the_same(store: Store) -> None:
    with ExitStack() as living:
        for _ in range(3):
            living.enter_context(marked(store, "t", "2G"))
        time.sleep(2.2)
        assert not died_of(store, "t", "2G")
        leave(store, 9, expires=1.0)
        assert not died_of(store, "t", "2G"), "one death"
        leave(store, 10, expires=1.0)
        assert died_of(store, "t", "2G")
    assert store.keys("attempts/t/") == ["attempts/t/0009.json", "attempts/t/0010.json"]


def test_of_those_that_have_just_died_it_is_waited_until_that_is_sure(store: Store, naps: list[float]) -> None:
    leave(store, 1, expires=1.0)
    leave(store, 2, expires=time.time() + 50)
    assert not died_of(store, "t", "2G"), "nobody really slept: it may live"
    (nap,) = naps
    assert 45 < nap <= 50


def test_what_is_no_mark_is_left_alone(store: Store) -> None:
    store.write("attempts/t/note", b"somebody's")
    leave(store, 1, expires=1.0)
    assert not died_of(store, "t", "2G")
