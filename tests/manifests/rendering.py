"""The manifests as data: the files, and what kustomize makes of the overlays."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).parent.parent.parent / "manifests"
COMPONENTS = ("several-users", "recurring-retune")
#: Overlays, and the production overlay with all that can be added to it.
RENDERED = ("test-cluster", "production", "production-with-all")


def files() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object that a file holds, with where it stands."""
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        if path.name in ("kustomization.yaml", "study.yaml"):
            continue
        for number, document in enumerate(yaml.safe_load_all(path.read_text())):
            yield f"{path.relative_to(MANIFESTS)}:{number}", document


@functools.cache
def rendered(name: str, image: str | None = None) -> tuple[dict[str, Any], ...]:
    """What would be applied. Skips the test if there is no kustomize.

    ``image``: NAME@DIGEST, as ``kustomize edit set image rlhpo=…`` puts it into the overlay.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(MANIFESTS, Path(folder) / "manifests"))
        overlay = root / "overlays" / name.removesuffix("-with-all")
        file = overlay / "kustomization.yaml"
        settings = yaml.safe_load(file.read_text())
        if name.endswith("-with-all"):
            settings["components"] = [f"../../components/{one}" for one in COMPONENTS]
        if image is not None:
            new, _, digest = image.partition("@")
            others = [one for one in settings["images"] if one["name"] != "rlhpo"]
            settings["images"] = [*others, {"name": "rlhpo", "newName": new, "digest": digest}]
        file.write_text(yaml.safe_dump(settings))
        done = subprocess.run([*_kustomize(), str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


@functools.cache
def _kustomize() -> tuple[str, ...]:
    for command in (("kustomize", "build"), ("kubectl", "kustomize")):
        found = shutil.which(command[0])
        if found is None:
            continue
        # kubectl before 1.21 carries a kustomize that knows no components.
        version = subprocess.run(
            [found, "version", *(["--client"] if command[0] == "kubectl" else [])],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if command[0] == "kustomize" or "Kustomize Version: v5" in version:
            return (found, command[1])
    pytest.skip("needs kustomize 5 or kubectl 1.27 or newer")


def templates(objects: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, metadata and spec of every pod that would be made."""
    for one in objects:
        spec = one.get("spec") or {}
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield f"{one['kind']}/{one['metadata']['name']}", spec["template"]["metadata"], spec["template"]["spec"]


def named(objects: tuple[dict[str, Any], ...], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}
