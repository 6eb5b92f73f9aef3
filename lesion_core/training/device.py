"""Where and in which precision a job computes: alone, or as one of several processes that torchrun started."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from lesion_core.errors import RunError
from lesion_core.progress import say

PRECISIONS: dict[str, Literal["bf16-mixed", "16-mixed"]] = {"bf16": "bf16-mixed", "fp16": "16-mixed"}
LOCK_SECONDS = 1.0
# The others wait for the first process while it validates.
TIMEOUT = timedelta(days=1)


def launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def first_process() -> bool:
    """Whether this process writes the results: the only one, or torchrun's first."""
    return not launched() or os.environ["RANK"] == "0"


def check_processes(processes: int) -> None:
    """
    Raises:
        RunError: not as many processes were started as the run's settings say (sums depend on their number).
    """
    started = int(os.environ["WORLD_SIZE"]) if launched() else 1
    if started != processes:
        command = (
            "lesion" if processes == 1 else f"torchrun --standalone --nproc-per-node {processes} -m lesion_core.cli"
        )
        raise RunError(
            f"{started} process{'es were' if started > 1 else ' was'} started for a run of {processes}",
            remedy=f"start it with: {command} train ..., or set compute.processes to {started}",
        )


def resolve_device(name: str) -> str:
    """``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``; auto takes a GPU if torch sees one.

    Raises:
        RunError: cuda is asked for and there is none.
    """
    available = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not available:
        raise RunError("No GPU is available", remedy="set compute.device to auto or cpu")
    return "cuda" if available else "cpu"


def job_device(name: str) -> str:
    """``resolve_device`` for a job; on a machine with several GPUs it computes on one that no other job of ours has.

    Raises:
        RunError: see ``resolve_device``; or fewer GPUs than processes.
    """
    device = resolve_device(name)
    if device == "cuda":
        torch.cuda.set_device(_own_gpu()[0])
    return device


@cache
def _own_gpu() -> tuple[int, FileLock | None]:
    """Number of a GPU, and its lock, which is held until this process ends (the kernel drops it, however it ends).

    Chosen from those that CUDA_VISIBLE_DEVICES shows; waits until one is free. A process of torchrun takes the GPU of
    its local rank.
    """
    count = torch.cuda.device_count()
    numbers = [int(os.environ["LOCAL_RANK"])] if launched() else list(range(count))
    if numbers[-1] >= count:
        raise RunError(
            f"Process {numbers[-1] + 1} on this machine finds {count} GPUs",
            remedy="lower compute.processes, or ask the scheduler for as many GPUs",
        )
    if count == 1:
        return 0, None
    folder = Path(tempfile.gettempdir()) / f"lesion-gpus-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"{torch.cuda.get_device_properties(number).uuid}.lock") for number in numbers]
    wait = 0.0
    while True:
        for number, lock in zip(numbers, locks, strict=True):
            try:
                lock.acquire(timeout=wait / len(locks))
                return number, lock
            except Timeout:
                continue
        if not wait:
            say(f"waiting: none of {count} GPUs is free")
        wait = LOCK_SECONDS


def resolve_precision(precision: str, device: str) -> str:
    """``precision`` on a GPU, fp32 on a CPU, where the half types are many times slower than fp32.

    fp16 for bf16 on a GPU that has no units for it (before NVIDIA's Ampere) and would emulate it.
    """
    if device != "cuda":
        return "fp32"
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp16"
    return precision


class Autocast(MixedPrecision):
    """Half precision of operations; what comes in stays as it is, since bfloat16 cannot hold a pixel's 0..255."""

    def convert_input(self, data: Any) -> Any:
        """``data``."""
        return data


def start_fabric(device: str, precision: str) -> Fabric:
    """Lightning Fabric for ``cpu`` or ``cuda`` in fp32, bf16 or fp16: one process, or torchrun's with DDP."""
    plugins: list[Any] = [TorchElasticEnvironment() if launched() else LightningEnvironment()]
    if precision in PRECISIONS:
        plugins.append(Autocast(PRECISIONS[precision], device))
    if not launched():
        devices = [torch.cuda.current_device()] if device == "cuda" else 1
        return Fabric(accelerator=device, devices=devices, plugins=plugins)
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=int(os.environ["WORLD_SIZE"]) // local,
        # SegMAE's two kinds of step each leave a branch without gradient.
        strategy=DDPStrategy(timeout=TIMEOUT, find_unused_parameters=True),
        plugins=plugins,
    )
    fabric.launch()
    return fabric


def share(count: int, rank: int, size: int) -> slice:
    """The consecutive samples of ``count`` that ``rank`` of ``size`` takes: each once, sizes differ by at most one."""
    return slice(count * rank // size, count * (rank + 1) // size)
