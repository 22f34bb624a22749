"""A first study file for a table or for images: what ``rlhpo init`` writes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rlhpo_core.data.files import TableFile, holds_parts, read_file
from rlhpo_core.data.images.dataset import Images, load_images
from rlhpo_core.data.images.sources import holds_images
from rlhpo_core.data.labelled import Labelled
from rlhpo_core.data.profile import ColumnLine, copies, profiled, telling
from rlhpo_core.data.table import Table, load_table
from rlhpo_core.errors import UserError, suggestion
from rlhpo_core.evaluators.kinds import CLASSES, build_evaluator
from rlhpo_core.evaluators.protocol import Baseline
from rlhpo_core.space.search_space import builtin_names
from rlhpo_core.strict_yaml import parse_yaml, to_yaml
from rlhpo_core.study.evaluator_specs import template_for
from rlhpo_core.study.spec import DataSpec, StudySpec

#: Below this share of the rarest class, accuracy rewards a model that never predicts it.
_RARE = 0.2
#: Columns that are listed whatever they hold; of wider tables, those that are not plain numbers.
_LISTED = 60
#: Rows by which the baseline is measured at most.
_BASELINE_ROWS = 20_000

_DROP = "  # drop: [id]             # columns that are not to be used\n"
#: Where the template's space begins, with what is said of it.
_SPACE = re.compile(r"(?m)^(?:#.*\n)*space:")

_TEMPLATE = """\
# yaml-language-server: $schema=rlhpo.schema.json
# A study for rlhpo: what to tune, on what data, within what budget.
# Run it:  rlhpo tune {file}
{problems}
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
{baseline}
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


@dataclass(frozen=True)
class FirstStudy:
    """A study file that is to be read over."""

    text: str
    summary: str
    """Lines about the data: what it is, what was converted or dropped, and what a model has to beat."""
    problems: tuple[str, ...] = ()
    """All that keeps the study from running as it is written."""


def study_file(data: DataSpec, folder: Path, space: str | None = None, address: str | None = None) -> FirstStudy:
    """A study file for a table or images.

    Args:
        data: The path of a table (CSV, Parquet or NPZ), or of images (a folder of class folders, Parquet or NPZ), and
            what is known of it. The target may be ``None`` for an NPZ file and for a folder.
        folder: Where the study file will lie; the data's path is written relative to it.
        space: Name of a space that comes with rlhpo; ``None`` for that of the kind of data, written out.
        address: Where the data comes from; ``None`` if it lies at its path.

    Raises: UserError if there are no rows that could be looked at, or no such space.
    """
    # Those of libraries that a function of the user calls need more than data.
    known = [name for name in builtin_names() if name.split("-")[0] in CLASSES]
    if space is not None and space not in known:
        raise UserError(f"--space: no space is called {space!r}; there are {', '.join(known)}")
    place = address or os.path.relpath(data.path.resolve(), folder.resolve())
    shown = address or str(data.path)
    if holds_images(data.path) and not holds_parts(data.path):
        images = load_images(data, seed=0)
        summary = f"{shown}: {len(images)} {_described(images)}"
        return FirstStudy(_text(data, place, images, [], (), None, "", space), summary)
    if data.path.suffix == ".npz":
        table = load_table(data, seed=0)
        summary = f"{shown}: {len(table)} {_described(table)}"
        return FirstStudy(_text(data, place, table, [], (), None, "", space), summary)
    return _of_table(data, place, shown, space)


def _of_table(data: DataSpec, place: str, shown: str, space: str | None) -> FirstStudy:
    file = read_file(data)
    for name in data.drop:
        if name not in file.frame:
            hint = suggestion(name, map(str, file.frame.columns))
            raise UserError(f"--drop: {shown} has no column {name!r}{hint}")
        if name == data.target:
            raise UserError(f"--drop: {name!r} is the target (--target); name one that is not to be used")
    lines = profiled(file, data)
    problems = [f"column {line.name!r} {line.why}" for line in lines if line.treatment == "refused"]
    table, measured = None, None
    if data.target is None:
        names = ", ".join(map(str, file.frame.columns))
        problems.insert(0, f"--target: which column is to be predicted? {shown} has {names}")
    else:
        try:
            lines = _without_copies(data, lines)
            table = load_table(_usable(data, lines), seed=0)
            measured = _measured(_usable(data, lines), table)
        except UserError as error:
            problems.append(str(error))
    told = [*file.notes, *(f"column {line.name!r} is {line.treatment}: {line.why}" for line in lines if _is_said(line))]
    if table is not None:
        told += [
            f"column {name!r}: {why}; is it known before the target? If not: --drop"
            for name, why in telling(table.features, table.target, len(table.classes)).items()
        ]
    head = f"{shown}: {len(file.frame)} " + ("rows" if table is None else _described(table))
    summary = "\n".join([head, *told, *([] if measured is None else [measured.text])])
    text = _text(data, place, table, lines, problems, measured, _form(data, file), space)
    return FirstStudy(text, summary, tuple(problems))


def _is_said(line: ColumnLine) -> bool:
    return line.treatment in ("converted", "dropped")


def _usable(data: DataSpec, lines: Sequence[ColumnLine]) -> DataSpec:
    """With what the study file will say of each column."""
    unused = tuple(line.name for line in lines if line.treatment in ("dropped", "refused"))
    used = {line.name: _declared(line) for line in lines if line.name not in unused and line.kind != "empty"}
    fields = {**data.model_dump(exclude_unset=True), "drop": unused, "columns": used}
    return DataSpec.model_validate(fields)


def _without_copies(data: DataSpec, lines: list[ColumnLine]) -> list[ColumnLine]:
    """With columns that are the target over again dropped."""
    table = load_table(_usable(data, lines), seed=0)
    copied = copies(table.features, table.target, len(table.classes))
    return [
        replace(line, treatment="dropped", why=f"it gives the target away: {copied[line.name]}")
        if line.name in copied and line.name not in data.columns
        else line
        for line in lines
    ]


def _measured(data: DataSpec, table: Table) -> Baseline | None:
    """What a model has to beat; ``None`` if it cannot be had, such as for a class too rare to be divided."""
    fields = parse_yaml(template_for("table"))
    assert isinstance(fields, dict)
    wanted = {
        **data.model_dump(exclude_unset=True),
        **({"max_rows": _BASELINE_ROWS} if len(table) > _BASELINE_ROWS else {}),
    }
    spec = StudySpec.model_validate({**fields, "name": "baseline", "data": wanted, "objective": _metrics(table)[0]})
    try:
        return build_evaluator(spec, os.cpu_count() or 1).baseline()
    except UserError:
        return None


def _text(
    data: DataSpec,
    place: str,
    loaded: Table | Images | None,
    lines: Sequence[ColumnLine],
    problems: Sequence[str],
    measured: Baseline | None,
    form: str,
    space: str | None,
) -> str:
    images = isinstance(loaded, Images)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", data.path.resolve().name.split(".")[0]).strip("-._") or "study"
    metric, others = _metrics(loaded) if loaded is not None else ("accuracy", ["rmse"])
    target = "" if data.target is None else f"  target: {_scalar(data.target)}\n"
    if data.target is None and problems:
        target = "  target: COLUMN           # which column is to be predicted?\n"
    evaluator = template_for("images" if images else "table")
    if space is not None:
        evaluator = f"{_SPACE.split(evaluator)[0]}space: {space}\n"
    listed = "".join(f"# {line}\n" for problem in problems for line in problem.splitlines())
    return _TEMPLATE.format(
        file="study.yaml",
        name=name,
        problems=f"#\n# To be mended before it runs:\n{listed}" if problems else "",
        path=_scalar(place),
        columns=target + form + _columns(lines),
        more="" if images else _split(lines) if lines else _DROP,
        task="auto" if loaded is None else loaded.task,
        metric=metric,
        others=", ".join(others),
        baseline="" if measured is None else f"# {measured.text}\n",
        evaluator=evaluator,
        timeout="1h" if images else "10m",
    )


def _form(data: DataSpec, file: TableFile) -> str:
    """How the file is written, where it is not as usual."""
    decimal = data.decimal or (file.decimal if file.decimal == "," else None)
    separator = data.separator or (file.separator if file.separator not in (None, ",") else None)
    encoding = data.encoding or (file.encoding if file.encoding not in (None, "utf-8", "utf-8-sig") else None)
    named = {"separator": separator, "decimal": decimal, "encoding": encoding}
    return "".join(f"  {key}: {_quoted(value)}\n" for key, value in named.items() if value is not None)


def _columns(lines: Sequence[ColumnLine]) -> str:
    """``drop`` and ``columns``: what was found out about each column, for a person to correct."""
    dropped = [line for line in lines if line.treatment == "dropped"]
    text = ""
    if dropped:
        text += "  drop:                    # columns that are not used\n"
        text += "".join(f"    - {_scalar(line.name)}  # {_comment(line.text)}\n" for line in dropped)
    used = [line for line in lines if line.treatment != "dropped"]
    plain = [line for line in used if line.kind == "number" and line.treatment == "kept"]
    skipped = len(plain) if len(used) > _LISTED else 0
    if not used or skipped == len(used):
        return text
    text += "  columns:                 # number, boolean, category, time, or drop; correct what is wrong\n"
    written = 0
    for line in used:
        if skipped and line in plain:
            continue
        if line.treatment == "refused":
            text += f"    # {_scalar(line.name)}: {_comment(line.text)}\n"
        elif line.kind == "empty":
            text += f"    # {_scalar(line.name)}: blank throughout\n"
        else:
            text += f"    {_scalar(line.name)}: {_flow(_declared(line))}  # {_comment(line.text)}\n"
            written += 1
    text += f"    # and {skipped} columns of numbers\n" if skipped else ""
    return text if written else text.replace("  columns: ", "  # columns: ", 1)


def _split(lines: Sequence[ColumnLine]) -> str:
    """By what rows may be divided, where there are times."""
    times = [line.name for line in lines if line.kind == "time" and line.treatment != "dropped"]
    column = _scalar(times[0]) if times else "COLUMN"
    by = "time" if times else "group"
    said = "the holdout has the latest rows" if times else "rows with one value, such as a customer, stay together"
    return f"  # split: {{by: {by}, column: {column}}}  # {said}\n"


def _declared(line: ColumnLine) -> dict[str, str]:
    """What ``data.columns`` says of a column."""
    declared = {"kind": str(line.kind)}
    if line.schema is None:
        return declared
    if line.schema.time is not None and "%" in line.schema.time.format:
        declared["format"] = line.schema.time.format
    if line.schema.number is not None and line.schema.number.decimal == ",":
        declared["decimal"] = ","
    return declared


def _described(data: Table | Images) -> str:
    metric = _metrics(data)[0]
    values = f"{len(data.classes)} classes" if data.classes else "a number"
    goal = f"so {data.task} by {metric}"
    if isinstance(data, Images):
        height, width, channels = data.shape
        colour = "grey" if channels == 1 else "colour"
        return f"images of {width} × {height} pixels, {colour}; there are {values}, {goal}"
    columns = f"{data.features.shape[1]} columns, {len(data.categories)} of them categorical"
    return f"rows, {columns}; {data.target_name!r} is {values}, {goal}"


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


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'


def _flow(value: dict[str, str]) -> str:
    if len(value) == 1:
        return value["kind"]
    return "{" + ", ".join(f"{key}: {item if key == 'kind' else _quoted(item)}" for key, item in value.items()) + "}"


def _comment(text: str) -> str:
    return " ".join(text.split())
