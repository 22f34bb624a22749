"""Environments that hold some packages, with what these bring along, and nothing else; made without installing any."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def linked(folder: Path, *names: str) -> Path:
    """A folder of links to the packages of this environment, with all that they require."""
    folder.mkdir()
    for distribution in _closure(names):
        for file in distribution.files or ():
            top = file.parts[0]
            link, there = folder / top, Path(str(distribution.locate_file(top)))
            # What lies elsewhere are scripts, and files that start Python otherwise.
            if top not in ("..", "__pycache__") and not top.endswith(".pth") and not link.is_symlink():
                link.symlink_to(there)
    return folder


def run_with(site: Path, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script where there are only these packages: neither PYTHONPATH nor this environment's own are seen."""
    path = f"import sys; sys.path.append({str(site.resolve())!r})\n"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", path + script],
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, check=False,
    )  # fmt: skip


def _closure(names: tuple[str, ...]) -> list[metadata.Distribution]:
    """The packages with those that they require, without extras."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return list(found.values())
