"""The CPUs that this process's control group may use: in a pod or container, its limit, and not the node's cores."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def cpus(root: Path = _ROOT) -> float | None:
    """How many CPUs' time the group is given; ``None`` if it has no limit, or if that cannot be told."""
    # Version 2: "max 100000", or "50000 100000", in microseconds.
    if (text := _read(root / "cpu.max")) is not None:
        quota, _, period = text.partition(" ")
        return _ratio(quota, period)
    # Version 1: -1 for no limit.
    for folder in (root / "cpu", root / "cpu,cpuacct"):
        quota, period = (_read(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
        if quota:
            return _ratio(quota, period)
    return None


def _ratio(quota: str, period: str) -> float | None:
    try:
        share = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
