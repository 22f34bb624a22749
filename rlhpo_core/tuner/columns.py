"""Many small records as columns of tensors: what grows with a study stays out of a document's JSON.

A record maps names to values and may lack some. The values of one name are a column: ``floats`` or ``integers`` if all
are of that type, else ``codes`` into ``words``, the distinct values as JSON. A column that some records lack says in
``rows`` which ones have it. What is read back has the same values, of the same types.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhpo_core.trial import Value

#: Integers that a tensor can hold.
_LEAST, _MOST = -(2**63), 2**63 - 1


def to_columns(
    records: Sequence[Mapping[str, Value]], names: Sequence[str] = ()
) -> tuple[list[str], dict[str, Tensor]]:
    """The records' columns.

    Args:
        records: N of them.
        names: Those that come first, in this order, as far as there are any; the others follow as they are met.

    Returns: the columns' names, and tensors by ``<position of the name>/<part>``, with the parts of the module's
    docstring.
    """
    columns: dict[str, tuple[list[int], list[Value]]] = {name: ([], []) for name in names}
    for row, record in enumerate(records):
        for name, value in record.items():
            rows, values = columns.setdefault(name, ([], []))
            rows.append(row)
            values.append(value)
    present = {name: column for name, column in columns.items() if column[0]}
    tensors: dict[str, Tensor] = {}
    for position, (rows, values) in enumerate(present.values()):
        parts = _parts(values)
        if len(rows) < len(records):
            parts["rows"] = torch.tensor(rows, dtype=torch.int64)
        tensors |= {f"{position}/{part}": tensor for part, tensor in parts.items()}
    return list(present), tensors


def from_columns(count: int, names: Sequence[str], tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The records whose ``to_columns`` this was.

    Args:
        count: N, the number of records.

    Raises: KeyError, ValueError or IndexError if the columns do not fit together.
    """
    records: list[dict[str, Any]] = [{} for _ in range(count)]
    for position, name in enumerate(names):
        rows = tensors[f"{position}/rows"].tolist() if f"{position}/rows" in tensors else range(count)
        for row, value in zip(rows, _values(tensors, position), strict=True):
            records[row][name] = value
    return records


def _parts(values: Sequence[Value]) -> dict[str, Tensor]:
    kinds = {type(value) for value in values}
    if kinds == {float}:
        return {"floats": torch.tensor(values, dtype=torch.float64)}
    if kinds == {int} and all(_LEAST <= value <= _MOST for value in values if isinstance(value, int)):
        return {"integers": torch.tensor(values, dtype=torch.int64)}
    # 1, 1.0 and True are equal, and yet not the same.
    words = {(type(value), value): value for value in values}
    codes = {key: code for code, key in enumerate(words)}
    return {
        "words": torch.from_numpy(np.frombuffer(json.dumps(list(words.values())).encode(), np.uint8).copy()),
        "codes": torch.tensor([codes[type(value), value] for value in values], dtype=torch.int64),
    }


def _values(tensors: Mapping[str, Tensor], position: int) -> list[Value]:
    for part in ("floats", "integers"):
        if f"{position}/{part}" in tensors:
            numbers: list[Value] = tensors[f"{position}/{part}"].tolist()
            return numbers
    words: list[Value] = json.loads(tensors[f"{position}/words"].numpy().tobytes())
    return [words[code] for code in tensors[f"{position}/codes"].tolist()]
