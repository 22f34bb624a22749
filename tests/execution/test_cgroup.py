"""CPUs by control groups, as a container's /sys/fs/cgroup shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhpo_core.execution import cgroup, resources
from rlhpo_core.study.spec import ExecutionSpec


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "200000 100000\n"}, 2.0),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1.5),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_limit_of_a_group(tmp_path: Path, files: dict[str, str], cpus: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cgroup.cpus(tmp_path) == cpus


@pytest.mark.parametrize(("limit", "cores"), [(None, 64), (0.5, 1), (1.5, 1), (8.0, 8), (100.0, 64)])
def test_cores_are_those_of_the_container(monkeypatch: pytest.MonkeyPatch, limit: float | None, cores: int) -> None:
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(cgroup, "cpus", lambda: limit)
    assert resources.cores() == cores
    assert resources.workers(ExecutionSpec()) * resources.threads(ExecutionSpec()) == cores
