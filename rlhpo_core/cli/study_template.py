"""A first study file for a table or for images: what ``rlhpo init`` writes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from rlhpo_core.data.files import read_file
from rlhpo_core.data.images.dataset import Images, load_images
from rlhpo_core.data.images.sources import holds_images
from rlhpo_core.data.labelled import Labelled
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.errors import UserError
from rlhpo_core.strict_yaml import to_yaml
from rlhpo_core.study.evaluator_specs import template_for
from rlhpo_core.study.spec import DataSpec

#: Below this share of the rarest class, accuracy rewards a model that never predicts it.
_RARE = 0.2

_TEMPLATE = """\
# A study for rlhpo: what to tune, on what data, within what budget.
# Run it:  rlhpo tune {file}

name: {name}
seed: 0                    # the same seed gives the same trials, on one kind of machine

data:
  path: {path}             # taken relative to this file
{columns}\
  task: {task}
  validation: 0.2          # of all rows; scores the trials
  holdout: 0.2             # of all rows; no trial sees it, it scores the winner once
{more}\
  # max_rows: 10000        # a stratified draw, for a first try on much data

objective: {metric:<15} # also: {others}

{evaluator}
budget:                    # the study ends at whichever comes first
  trials: 50
  # wall_time: 2h
  # patience: 30           # trials without improvement
  # failures: 10           # failed trials in a row, if none has succeeded yet
  # cost: {{limit: 20, per_trial_hour: 0.5}}

# stopping: median         # stop trials that do poorly early; docs/guide.md has the rules

execution:
  trial_timeout: {timeout:<10} # a trial that takes longer counts as failed
  # workers: 2             # trials at once; default: one for each core
  # trial_memory_mb: 4000
  # device: cuda

# tracking:
#   uri: http://mlflow.example:5000   # default: MLFLOW_TRACKING_URI, else a local database
registry:
  model: {name}            # the winner is registered under this name
"""


def study_file(data: Path, target: str | None, folder: Path) -> tuple[str, str]:
    """The text of a study file, and a line about the data that it is for.

    Args:
        data: A table (CSV, Parquet or NPZ), or images (a folder of class folders, Parquet or NPZ).
        target: The column to predict; ``None`` for an NPZ file, which has it under a name of its own, and for a folder.
        folder: Where the study file will lie; the data's path is written relative to it.

    Raises: UserError if the data cannot be used as it is.
    """
    images = holds_images(data)
    spec = DataSpec(path=data, target=target)
    if target is None and data.suffix != ".npz" and not data.is_dir() and data.suffix != ".zip":
        names = ", ".join(read_file(spec).frame)
        raise UserError(f"--target: which column is to be predicted? {data} has {names}")
    loaded: Table | Images = load_images(spec, seed=0) if images else load_table(spec, seed=0)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", data.resolve().name.split(".")[0]).strip("-._") or "study"
    metric, others = _metrics(loaded)
    text = _TEMPLATE.format(
        file="study.yaml",
        name=name,
        path=_scalar(os.path.relpath(data.resolve(), folder.resolve())),
        columns="" if target is None else f"  target: {_scalar(target)}\n",
        more="" if images else "  # drop: [id]             # columns that are not to be used\n",
        task=loaded.task,
        metric=metric,
        others=", ".join(others),
        evaluator=template_for("images" if images else "table"),
        timeout="1h" if images else "10m",
    )
    return text, f"{data}: {len(loaded)} {_described(loaded)}, so {loaded.task} by {metric}"


def _described(data: Table | Images) -> str:
    values = f"{len(data.classes)} classes" if data.classes else "a number"
    if isinstance(data, Images):
        height, width, channels = data.shape
        return f"images of {width} × {height} pixels, {'grey' if channels == 1 else 'colour'}; there are {values}"
    columns = f"{data.features.shape[1]} columns, {len(data.categories)} of them categorical"
    return f"rows, {columns}; {data.target_name!r} is {values}"


def _metrics(data: Labelled) -> tuple[str, list[str]]:
    """The metric to start with, and the others."""
    if data.task == "regression":
        return "rmse", ["mae", "r2"]
    rarest = np.bincount(data.target.astype(np.int64)).min() / len(data)
    names = ["accuracy", "balanced_accuracy", "auc", "log_loss"]
    first = "balanced_accuracy" if rarest < _RARE / max(1, len(data.classes) - 1) else "accuracy"
    return first, [name for name in names if name != first]


def _scalar(text: str) -> str:
    """A string as YAML writes it on one line."""
    return to_yaml(text).removesuffix("\n").removesuffix("\n...").strip()
