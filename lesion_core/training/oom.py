"""Running out of memory: how it is recognised."""

from __future__ import annotations

import torch

# Of torch's CPU allocator, of the CUDA runtime where it allocates for itself, and of NVIDIA's libraries where their own
# workspace finds no room: RuntimeErrors, not torch.OutOfMemoryError.
WORDS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a GPU (``torch.cuda.OutOfMemoryError``) or the CPU has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def release_memory() -> None:
    """Give the GPU's cached blocks back, so that pieces of another size find room."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
