from __future__ import annotations

import io

import pytest
from rich.console import Console

from rlhpo_core.cli import phases as module
from rlhpo_core.cli.phases import Phases


def test_phases_are_told_with_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.25, 10.0, 71.0, 80.0, 80.1, 90.0, 91.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    out = io.StringIO()
    phases = Phases(Console(file=out))
    with phases.phase("reading the data"):
        pass
    with phases.phase("tuning", quiet=True):
        pass
    with phases.phase("a moment"):
        pass
    with pytest.raises(ValueError, match="broken off"), phases.phase("reading the data"):
        raise ValueError("broken off")
    assert out.getvalue().splitlines() == ["reading the data: 2.2 s", "reading the data: 1.0 s"]
    assert phases.summary() == "reading the data 3.2 s, tuning 61 s"
