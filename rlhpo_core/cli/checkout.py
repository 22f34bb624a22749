"""What lies beside the package in a checkout and in the image, and within it in a wheel: pipelines and examples."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

from rlhpo_core.errors import UserError

#: The package, and the folder in it that a wheel has and a checkout has not.
_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = _PACKAGE / "shipped"


def _beside() -> Path:
    """The folder that holds ``pipelines``, ``components`` and ``examples``."""
    return _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parent


def pipelines_module(name: str) -> ModuleType:
    """A module of ``pipelines``. Raises: UserError if it is not there."""
    place = _beside()
    if importlib.util.find_spec("pipelines") is None and (place / "pipelines").is_dir():
        sys.path.append(str(place))
    try:
        return importlib.import_module(f"pipelines.{name}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"the pipeline cannot be imported ({error}); install rlhpo from its wheel or its checkout, or use the image"
        ) from error


def copy_examples(folder: Path) -> list[Path]:
    """Copy the examples, with their data, into a folder, which is made; returns the study files.

    Raises: UserError if there are none to copy, or if one of their names is taken there.
    """
    source = _beside() / "examples"
    if not source.is_dir():
        raise UserError("this installation has no examples; install rlhpo from its wheel or its checkout")
    for file in source.rglob("*"):
        target = folder / file.relative_to(source)
        if file.is_file() and "__pycache__" not in file.parts and target.exists():
            raise UserError(f"{target} exists; choose another folder")
    try:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    except OSError as error:
        raise UserError(f"cannot copy the examples to {folder}: {error}") from error
    return sorted(folder.glob("[0-9]*.yaml"))
