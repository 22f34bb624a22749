"""Whether each component could be handed in to kubeflow/pipelines-components.

The rules are those of its scripts/validate_metadata (as of 2026, its script and its JSON schema together), put here in
our own words. One is left out, since such a test fails by itself after a while: that ``lastVerified`` lies within the
last year.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from components.__main__ import FOLDER, names

#: In this order; the optional ones may stand anywhere.
REQUIRED = ("name", "stability", "dependencies", "lastVerified")
OPTIONAL = ("tags", "ci", "links")
STABILITIES = ("alpha", "beta", "stable")
#: Semantic versioning with all three numbers, after an operator or none.
VERSION = re.compile(
    r"(==|>=|<=)?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
)


def problems(folder: Path) -> list[str]:
    """Which rules a component's folder breaks."""
    owners, metadata = folder / "OWNERS", folder / "metadata.yaml"
    found = [] if owners.is_file() else ["no OWNERS"]
    if owners.is_file() and not _has_approver(owners.read_text()):
        found.append("OWNERS: the line after `approvers:` names nobody")
    if not metadata.is_file():
        return [*found, "no metadata.yaml"]
    return [*found, *_metadata_problems(yaml.safe_load(metadata.read_text()))]


def _has_approver(text: str) -> bool:
    return any(
        re.match(r"approvers:", line) and re.match(r"\s*-\s*\w", after) for line, after in pairwise(text.split("\n"))
    )


def _metadata_problems(metadata: dict[str, Any]) -> Iterator[str]:
    if (fields := tuple(key for key in metadata if key not in OPTIONAL)) != REQUIRED:
        yield f"fields are {fields}, not {REQUIRED} in this order"
        return
    if not isinstance(metadata["name"], str):
        yield "name is no text"
    if metadata["stability"] not in STABILITIES:
        yield f"stability is none of {STABILITIES}"
    verified = metadata["lastVerified"]
    if not (isinstance(verified, datetime) and verified.tzinfo == UTC):
        yield "lastVerified is not of the form 2026-01-31T00:00:00Z"
    tags = metadata.get("tags", [])
    if not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        yield "tags is no list of texts"
    ci = metadata.get("ci", {"skip_dependency_probe": False})
    if not (
        isinstance(ci, dict) and set(ci) == {"skip_dependency_probe"} and isinstance(ci["skip_dependency_probe"], bool)
    ):
        yield "ci holds something other than skip_dependency_probe: true or false"
    if not isinstance(metadata.get("links", {}), dict):
        yield "links is no mapping"
    yield from _dependency_problems(metadata["dependencies"])


def _dependency_problems(dependencies: Any) -> Iterator[str]:
    if not isinstance(dependencies, dict) or not {"kubeflow"} <= set(dependencies) <= {"kubeflow", "external_services"}:
        yield "dependencies holds something other than kubeflow and external_services"
        return
    for group, services in dependencies.items():
        if not isinstance(services, list):
            yield f"dependencies.{group} is no list"
            return
        for service in services:
            if not {"name", "version"} <= set(service):
                yield f"dependencies.{group}: no name, or no version"
            elif not (isinstance(service["version"], str) and VERSION.fullmatch(service["version"])):
                yield f"dependencies.{group}: {service['version']!r} is no semantic version"
    if not any(service.get("name") == "Pipelines" for service in dependencies["kubeflow"]):
        yield "dependencies.kubeflow does not name Pipelines"


@pytest.mark.parametrize("name", names())
def test_a_component_keeps_the_rules(name: str) -> None:
    assert problems(FOLDER / name) == []
    assert yaml.safe_load((FOLDER / name / "metadata.yaml").read_text())["name"] == name


def test_the_folder_of_components_has_owners() -> None:
    """A folder with several components needs them as well as each component."""
    assert _has_approver((FOLDER / "OWNERS").read_text())


def _set(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda metadata: {**metadata, **fields}


def _without(field: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda metadata: {key: value for key, value in metadata.items() if key != field}


def _kubeflow(*parts: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return _set(dependencies={"kubeflow": list(parts)})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_without("lastVerified"), "fields are"),
        (_set(description="what it does"), "fields are"),
        (lambda metadata: dict(reversed(metadata.items())), "fields are"),
        (_set(name=2), "name"),
        (_set(stability="finished"), "stability"),
        (_set(lastVerified="yesterday"), "lastVerified"),
        (_set(lastVerified=datetime(2026, 1, 31)), "lastVerified"),
        (_set(tags="training"), "tags"),
        (_set(tags=[2]), "tags"),
        (_set(ci={"skip": True}), "ci"),
        (_set(ci={"skip_dependency_probe": "yes"}), "ci"),
        (_set(links="https://example.com"), "links"),
        (_set(dependencies=[]), "dependencies"),
        (_set(dependencies={"kubeflow": [], "pip": []}), "dependencies"),
        (_set(dependencies={"kubeflow": "Pipelines"}), "is no list"),
        (_kubeflow({"name": "Trainer", "version": "1.0.0"}), "does not name Pipelines"),
        (_kubeflow({"name": "Pipelines"}), "no version"),
        (_kubeflow({"name": "Pipelines", "version": "2.17"}), "no semantic version"),
        (_kubeflow({"name": "Pipelines", "version": ">=2.17.0, <3"}), "no semantic version"),
    ],
)
def test_a_broken_rule_is_found(
    change: Callable[[dict[str, Any]], dict[str, Any]], problem: str, tmp_path: Path
) -> None:
    folder = copytree(FOLDER / "data_prep", tmp_path / "component")
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    (folder / "metadata.yaml").write_text(yaml.safe_dump(change(metadata), sort_keys=False))
    (message,) = problems(folder)
    assert problem in message


@pytest.mark.parametrize(
    "owners", ["", "approvers:\n", "approver:\n  - somebody\n", "reviewers:\n  - somebody\n", None]
)
def test_a_component_needs_an_approver(owners: str | None, tmp_path: Path) -> None:
    folder = copytree(FOLDER / "data_prep", tmp_path / "component")
    if owners is None:
        (folder / "OWNERS").unlink()
    else:
        (folder / "OWNERS").write_text(owners)
    (message,) = problems(folder)
    assert "OWNERS" in message
