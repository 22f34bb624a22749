from __future__ import annotations

import pytest

from rlhpo_core.study.cluster_settings import in_bytes


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        ("512", 512),
        ("8K", 8000),
        ("8Ki", 8192),
        ("2G", 2 * 10**9),
        ("3Gi", 3 * 2**30),
        ("700Mi", 700 * 2**20),
        ("1T", 10**12),
    ],
)
def test_memory_as_kubernetes_reads_it(memory: str, size: int) -> None:
    assert in_bytes(memory) == size
