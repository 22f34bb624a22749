from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

from rlhpo_core import tensor_document

DOCUMENT = {"format_version": 3, "name": "größe", "list": [1, 2.5, None, True]}
TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(1.5, dtype=torch.float64), "none": torch.zeros(0, 4)}


def test_there_and_back() -> None:
    document, tensors = tensor_document.read("kind", tensor_document.write("kind", DOCUMENT, TENSORS))
    assert document == DOCUMENT
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_equal_contents_give_equal_bytes_whatever_their_order_and_layout() -> None:
    columns = TENSORS["b"].T.contiguous().T
    assert not columns.is_contiguous()
    backwards = {name: TENSORS[name] for name in reversed(TENSORS)} | {"b": columns.requires_grad_()}
    assert tensor_document.write("kind", DOCUMENT, backwards) == tensor_document.write("kind", DOCUMENT, TENSORS)


@pytest.mark.parametrize("length", [0, 7, 8, 50, -1])
def test_what_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library's own words
        tensor_document.read("kind", tensor_document.write("kind", DOCUMENT, TENSORS)[:length])


def test_another_kind_and_a_document_without_a_version_are_refused() -> None:
    with pytest.raises(ValueError, match="'other'"):
        tensor_document.read("other", tensor_document.write("kind", DOCUMENT, TENSORS))
    with pytest.raises(ValueError, match="__metadata__"):
        tensor_document.read("kind", save(TENSORS))
    with pytest.raises(ValueError, match="no format version"):
        tensor_document.read("kind", tensor_document.write("kind", {"name": "x"}, TENSORS))


def test_a_glance_gives_the_document_and_of_other_bytes_nothing() -> None:
    data = tensor_document.write("kind", DOCUMENT, TENSORS)
    document = tensor_document.glance(data)
    assert document is not None
    assert document.items() >= DOCUMENT.items()
    for other in (b"", data[:50], save(TENSORS), save(TENSORS, metadata={"kind": "1"}), b"\xff" * 90):
        assert tensor_document.glance(other) is None
