"""Where and in which precision a job computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from lesion_core.errors import RunError
from lesion_core.training.gpus import take_gpus


def resolve_device(name: str) -> str:
    """``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``; auto takes a GPU if torch sees one.

    On a machine with several, this process gets one that no other job of ours has (``gpus.take_gpus``).

    Raises:
        RunError: cuda is asked for and there is none.
    """
    if name != "cpu":
        take_gpus(1)  # before torch looks, which it does once
    available = torch.cuda.is_available() if name != "cpu" else False
    if name == "cuda" and not available:
        raise RunError("No GPU is available", remedy="set compute.device to auto or cpu")
    return "cuda" if available else "cpu"


def resolve_precision(precision: str, device: str) -> str:
    """``precision`` on a GPU, fp32 on a CPU, where the half types are many times slower than fp32.

    fp16 for bf16 on a GPU that has no units for it (before NVIDIA's Ampere) and would emulate it.
    """
    if not device.startswith("cuda"):
        return "fp32"
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp16"
    return precision


def autocast(precision: str) -> AbstractContextManager:
    """Mixed precision on a GPU for bf16 and fp16; nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast("cuda", torch.bfloat16 if precision == "bf16" else torch.float16)
