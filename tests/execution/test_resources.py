"""Cores are shared between the trials of a study."""

from __future__ import annotations

import pytest

from rlhpo_core.execution import resources
from rlhpo_core.execution.resources import cores, threads, workers
from rlhpo_core.study.spec import ExecutionSpec


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, (8, 1)),
        ({"workers": 2}, (2, 4)),
        ({"workers": 3}, (3, 2)),
        ({"workers": 16}, (16, 1)),
        ({"threads": 4}, (2, 4)),
        ({"threads": 16}, (1, 16)),
        ({"workers": 5, "threads": 3}, (5, 3)),
    ],
)
def test_workers_and_threads_use_each_core_once_unless_they_are_set(
    settings: dict[str, int], wanted: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 8)
    execution = ExecutionSpec.model_validate(settings)
    assert (workers(execution), threads(execution)) == wanted


def test_only_cores_that_the_process_may_use_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert cores() == 3
