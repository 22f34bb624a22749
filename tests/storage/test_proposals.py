"""A round's proposals, as they were made first."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.errors import UserError
from rlhpo_core.storage import proposals
from rlhpo_core.storage.object_store import open_store
from rlhpo_core.trial import Proposal


def proposal(index: int, x: float) -> Proposal:
    return Proposal(
        trial_id=f"t{index}", number=index, round=3, index=index, config={"x": x, "n": 4}, actions=(x / 3, None)
    )


def test_the_first_to_propose_has_the_round(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert proposals.read(store, 3) is None
    first = [proposal(0, 0.1), proposal(1, 1 / 3)]
    assert proposals.claim(store, 3, first) == first
    assert proposals.claim(store, 3, [proposal(0, 0.2)]) == first, "another processor has come to others"
    assert proposals.read(store, 3) == first
    assert proposals.read(store, 4) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("proposals/000003.json", b'[{"trial_id": 1}]')
    with pytest.raises(UserError, match=r"proposals/000003\.json is damaged; remove it"):
        proposals.read(store, 3)
