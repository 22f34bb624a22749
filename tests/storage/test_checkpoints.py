from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.errors import Outage
from rlhpo_core.retries import patiently
from rlhpo_core.storage.checkpoints import CHECKPOINTS, StoredCheckpoint, clear_all
from rlhpo_core.storage.object_store import FolderStore


class Away(FolderStore):
    """A store that is away."""

    def read(self, key: str) -> bytes | None:
        raise Outage("away")

    def write(self, key: str, data: bytes) -> None:
        raise Outage("away")

    def delete(self, key: str) -> None:
        raise Outage("away")

    def keys(self, prefix: str = "") -> list[str]:
        raise Outage("away")


def test_each_trial_has_its_own(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    one, other = (StoredCheckpoint(lambda: store, name) for name in ("one", "other"))
    assert one.read() is None
    one.write(b"first")
    one.write(b"second")
    other.write(b"other")
    assert (one.read(), other.read()) == (b"second", b"other")
    one.clear()
    one.clear()
    assert (one.read(), other.read()) == (None, b"other")
    store.write("trials/x.json", b"")
    clear_all(store)
    assert store.keys() == ["trials/x.json"]
    assert CHECKPOINTS == "checkpoints/"


def test_what_a_process_left_that_was_killed_while_it_wrote_is_cleared_with_them(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    checkpoint = StoredCheckpoint(lambda: store, "one")
    assert not checkpoint.exists()
    checkpoint.write(b"first")
    StoredCheckpoint(lambda: store, "one-more").write(b"other")
    left = tmp_path / CHECKPOINTS / ".one.rlhpo-0123456789abcdef"
    left.write_bytes(b"second")
    assert checkpoint.exists()
    checkpoint.clear()
    assert not checkpoint.exists()
    clear_all(store)
    assert list((tmp_path / CHECKPOINTS).iterdir()) == []


def test_a_store_that_is_away_costs_the_checkpoint_and_no_more(tmp_path: Path) -> None:
    checkpoint = StoredCheckpoint(lambda: Away(tmp_path), "one")
    with patiently(600):
        assert checkpoint.read() is None
        assert not checkpoint.exists()
        checkpoint.write(b"data")
        checkpoint.clear()
        clear_all(Away(tmp_path))


def test_the_store_is_opened_when_it_is_needed(tmp_path: Path) -> None:
    checkpoint = StoredCheckpoint(lambda: pytest.fail("opened"), "one")
    assert checkpoint.trial_id == "one"
