"""Running out of memory: how it is recognised."""

from __future__ import annotations

import torch

# What torch's CPU allocator says; it raises a plain RuntimeError.
CPU_WORDS = "can't allocate memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a GPU (``torch.cuda.OutOfMemoryError``) or the CPU has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_WORDS in str(error)


def release_memory() -> None:
    """Give the GPU's cached blocks back, so that pieces of another size find room."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
