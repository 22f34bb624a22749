"""What this process's control group may use: in a pod or container, its limits, and not the node's CPUs and memory."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
#: Version 1 writes a number about as large as this for no limit.
_NO_LIMIT = 2**60
#: Its names for what is used, what that consists of, and the prefix of the counts of all that is below.
_V1_MEMORY = (("memory/memory.usage_in_bytes", "memory/memory.stat", "total_"),)


def cpus(root: Path = ROOT) -> float | None:
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


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes beyond which the kernel kills; ``None`` if the group has no limit, or if that cannot be told."""
    # Version 2: "max", or bytes; the group of the whole machine has no such file.
    text = _read(root / "memory.max") or _read(root / "memory" / "memory.limit_in_bytes")
    limit = _whole(text)
    return limit if limit is not None and 0 < limit < _NO_LIMIT else None


def memory_used(root: Path = ROOT) -> int | None:
    """Bytes that the group holds, without copies of files, which the kernel gives up first; ``None`` if not known."""
    for current, stat, prefix in (("memory.current", "memory.stat", ""), *_V1_MEMORY):
        if (used := _whole(_read(root / current))) is not None:
            counts = dict(line.split(" ", 1) for line in (_read(root / stat) or "").splitlines() if " " in line)
            files = (_whole(counts.get(f"{prefix}{kind}_file")) or 0 for kind in ("active", "inactive"))
            return max(0, used - sum(files))
    return None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


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
