"""What lies in the checkout and in the image, and not in the wheel: the pipelines."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from rlhpo_core.errors import UserError


def pipelines_module(name: str) -> ModuleType:
    """A module of ``pipelines``. Raises: UserError if it is not there."""
    root = Path(__file__).resolve().parents[2]
    if importlib.util.find_spec("pipelines") is None and (root / "pipelines").is_dir():
        sys.path.append(str(root))
    try:
        return importlib.import_module(f"pipelines.{name}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"the pipeline cannot be imported ({error}); "
            "use a checkout of rlhpo, installed with pip install --editable, or the image"
        ) from error
