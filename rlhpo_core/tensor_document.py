"""A JSON document with tensors in one file: the format of a tuner's state and of a prior.

The file is a safetensors file; the document is a string in its header. As one file it is replaced in one atomic step
and travels as one artifact. Nothing in it is executable. Equal contents give equal bytes, and tensors that are read
back give bit for bit the same results. The document carries a checksum over itself and the tensors, so a file in which
a bit has changed on a disk or on its way is refused.

The document has a ``format_version``, a number that belongs to the kind of document (``FORMAT_VERSION`` in
``state_file`` and in ``prior``). To change a format:

1. Raise that ``FORMAT_VERSION``.
2. Rewrite the files of that kind in the repository: ``priors/builtin``, ``tests/fixtures``.
3. If a release has written the old version, keep a reader for it, as a function from its document and tensors to those
   of the next version, and a file of the old version in ``tests/fixtures``. A version that no release has written needs
   no reader: it is refused with a message.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

# Whoever takes a glance at a document is spared the import of torch.
if TYPE_CHECKING:
    from torch import Tensor

#: Name of the checksum in the document of a file.
_DIGEST = "sha256"


def write(kind: str, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The file's content.

    Args:
        kind: What the document is, such as ``rlhpo-prior``; the file's header has it under this name.
        document: What JSON can hold, with a ``format_version``.
        tensors: By name, in any order and layout.
    """
    from safetensors.torch import save

    contiguous = {name: tensor.detach().contiguous() for name, tensor in sorted(tensors.items())}
    signed = {**document, _DIGEST: _digest(document, contiguous)}
    # One entry only: safetensors writes several in any order.
    return save(contiguous, metadata={kind: json.dumps(signed)})


def read(kind: str, data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document and the tensors of a file's content.

    Args:
        kind: As the file was written with.
        data: The whole file.

    Raises: ValueError if the content is damaged, of another kind, or has no ``format_version`` or checksum.
    """
    from safetensors.torch import load

    try:
        tensors = load(data)
        document = json.loads(_metadata(data)[kind])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(document, dict) or "format_version" not in document:
        raise ValueError("it says no format version")
    if (digest := document.pop(_DIGEST, None)) is None:
        raise ValueError("it has no checksum: it was written before there were any, or changed by hand")
    if digest != _digest(document, tensors):
        raise ValueError("its content does not match its checksum")
    # Clones: what lies anywhere in a buffer may be summed in another order than what torch has aligned.
    return document, {name: tensor.clone() for name, tensor in tensors.items()}


def glance(data: bytes) -> dict[str, Any] | None:
    """The document alone, whatever it is, without a look at its checksum; ``None`` if there is none.

    Args:
        data: As for ``read``.
    """
    try:
        (text,) = _metadata(data).values()
        document = json.loads(text)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return document if isinstance(document, dict) else None


def _metadata(data: bytes) -> dict[str, str]:
    """Of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata


def _digest(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 in hexadecimal of the document, and of each tensor's name, type, shape and bytes."""
    import torch

    found = hashlib.sha256(json.dumps(document).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
