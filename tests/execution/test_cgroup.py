"""CPUs and memory by control groups, as a container's /sys/fs/cgroup shows them."""

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
    lay_out(tmp_path, files)
    assert cgroup.cpus(tmp_path) == cpus


def lay_out(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "limit", "used"),
    [
        ({"memory.max": "2000000000\n", "memory.current": "900\n"}, 2_000_000_000, 900),
        ({"memory.max": "max\n", "memory.current": "900\n", "memory.stat": "anon 500\nfile 400\n"}, None, 900),
        (
            {"memory.current": "900\n", "memory.stat": "anon 500\nactive_file 100\ninactive_file 250\nshmem 50\n"},
            None, 550,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "1000000\n", "memory/memory.usage_in_bytes": "800\n",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 200\ntotal_active_file 100\n",
            },
            1_000_000, 500,
        ),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None, None),
        ({"memory.max": "nonsense", "memory.current": ""}, None, None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_the_memory_of_a_group(tmp_path: Path, files: dict[str, str], limit: int | None, used: int | None) -> None:
    lay_out(tmp_path, files)
    assert (cgroup.memory_limit(tmp_path), cgroup.memory_used(tmp_path)) == (limit, used)


@pytest.mark.parametrize(("limit", "cores"), [(None, 64), (0.5, 1), (1.5, 1), (8.0, 8), (100.0, 64)])
def test_cores_are_those_of_the_container(monkeypatch: pytest.MonkeyPatch, limit: float | None, cores: int) -> None:
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(cgroup, "cpus", lambda: limit)
    assert resources.cores() == cores
    assert resources.workers(ExecutionSpec()) * resources.threads(ExecutionSpec()) == cores
