"""Where a network is trained: threads of the CPU, or a GPU; and what makes the same seed give the same weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rlhpo_core.errors import UserError

#: The images stay on the GPU if they take at most this share of its free memory.
_SHARE = 0.5


def find(name: str) -> torch.device:
    """The device that a study asks for. Raises: UserError if it is a GPU and there is none."""
    if name == "cuda":
        # By default cuBLAS may add in another order each time; it reads this when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if not torch.cuda.is_available():
            raise UserError("execution.device: cuda, but PyTorch finds no GPU here; check nvidia-smi, or set cpu")
    return torch.device(name)


@contextmanager
def settled(device: torch.device, threads: int) -> Iterator[None]:
    """Inside, at most so many threads are used, and the same computation gives the same bits on the same device."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warned, tuned = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    # Only a warning where a GPU has no such algorithm: the study is then less repeatable, and not refused.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warned)
        torch.backends.cudnn.benchmark = tuned


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the device has no room. Only of one allocator of several has PyTorch its own class."""
    signs = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def placed(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device if they fit there beside a network; else in memory that it can fetch batches from."""
    if device.type != "cuda":
        return images
    free, _ = torch.cuda.mem_get_info(device)
    if images.nbytes <= _SHARE * free:
        return images.to(device)
    return images.pin_memory()


def half_precision(device: torch.device) -> torch.autocast:
    """A context that computes in bfloat16 where a GPU can; it needs no scaling of the loss. On the CPU, nothing."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)
