"""A first study file for a table: what ``rlhpo init`` writes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from rlhpo_core.data.table import Table, load_table, read_frame
from rlhpo_core.errors import UserError
from rlhpo_core.strict_yaml import to_yaml
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
{target}\
  task: {task}
  validation: 0.2          # of all rows; scores the trials
  holdout: 0.2             # of all rows; no trial sees it, it scores the winner once
  # drop: [id]             # columns that are not to be used
  # max_rows: 10000        # a stratified draw, for a first try on a large table

evaluator:
  kind: xgboost
  # folds: 5               # cross-validation instead of one validation part
  # early_stopping_rounds: 50

objective: {metric:<15} # also: {others}

# Ten hyperparameters of XGBoost in the ranges of Wu, Chen, Liu (2020), table 1. Narrow, widen or take out what you
# like; `log: true` searches by orders of magnitude.
space:
  max_depth: {{type: int, low: 1, high: 25}}
  learning_rate: {{type: float, low: 0.001, high: 0.1}}
  n_estimators: {{type: int, low: 50, high: 1200}}
  gamma: {{type: float, low: 0.05, high: 0.9}}
  min_child_weight: {{type: int, low: 1, high: 9}}
  subsample: {{type: float, low: 0.5, high: 1.0}}
  colsample_bytree: {{type: float, low: 0.5, high: 1.0}}
  colsample_bylevel: {{type: float, low: 0.5, high: 1.0}}
  reg_alpha: {{type: float, low: 0.1, high: 0.9}}
  reg_lambda: {{type: float, low: 0.01, high: 0.1}}

budget:                    # the study ends at whichever comes first
  trials: 50
  # wall_time: 2h
  # patience: 30           # trials without improvement
  # failures: 10           # failed trials in a row, if none has succeeded yet
  # cost: {{limit: 20, per_trial_hour: 0.5}}

# stopping: median         # stop trials that do poorly early; docs/guide.md has the rules

execution:
  trial_timeout: 10m       # a trial that takes longer counts as failed
  # workers: 2             # trials at once; default: one for each core
  # trial_memory_mb: 4000
  # device: cuda

# tracking:
#   uri: http://mlflow.example:5000   # default: MLFLOW_TRACKING_URI, else a local database
registry:
  model: {name}            # the winner is registered under this name
"""


def study_file(data: Path, target: str | None, folder: Path) -> tuple[str, str]:
    """The text of a study file, and a line about the table that it is for.

    Args:
        data: The table: CSV, Parquet or NPZ.
        target: The column to predict; ``None`` for an NPZ file, which has it under a name of its own.
        folder: Where the study file will lie; the table's path is written relative to it.

    Raises: UserError if the table cannot be used as it is.
    """
    spec = DataSpec(path=data, target=target)
    if target is None and data.suffix != ".npz":
        names = ", ".join(map(str, read_frame(data).columns))
        raise UserError(f"--target: which column is to be predicted? {data} has {names}")
    table = load_table(spec, seed=0)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", data.name.split(".")[0]).strip("-._") or "study"
    metric, others = _metrics(table)
    text = _TEMPLATE.format(
        file="study.yaml",
        name=name,
        path=_scalar(os.path.relpath(data.resolve(), folder.resolve())),
        target="" if target is None else f"  target: {_scalar(target)}\n",
        task=table.task,
        metric=metric,
        others=", ".join(others),
    )
    kinds = len(table.categories)
    values = f"{len(table.classes)} classes" if table.classes else "a number"
    columns = f"{table.features.shape[1]} columns, {kinds} of them categorical"
    return text, f"{data}: {len(table)} rows, {columns}; {table.target_name!r} is {values}, so {table.task} by {metric}"


def _metrics(table: Table) -> tuple[str, list[str]]:
    """The metric to start with, and the others."""
    if table.task == "regression":
        return "rmse", ["mae", "r2"]
    rarest = np.bincount(table.target.astype(np.int64)).min() / len(table)
    names = ["accuracy", "balanced_accuracy", "auc", "log_loss"]
    first = "balanced_accuracy" if rarest < _RARE / max(1, len(table.classes) - 1) else "accuracy"
    return first, [name for name in names if name != first]


def _scalar(text: str) -> str:
    """A string as YAML writes it on one line."""
    return to_yaml(text).removesuffix("\n").removesuffix("\n...").strip()
