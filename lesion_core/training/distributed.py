"""Several processes, one training: who am I, and sums over all.

Gradients are summed by one all-reduce of one flat vector after backward, not by DistributedDataParallel. DDP reduces
bucket by bucket during backward, so that a process which runs out of memory half-way leaves the others waiting for
ever, where here all agree first and repeat the step; it averages over processes, which is wrong for unequal shares of
a batch; and adapters' gradients are a few megabytes, so that there is nothing to hide behind backward.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from lesion_core.errors import RunError
from lesion_core.training.launch import RENDEZVOUS, launched, process_rank

# A process waits long for the first one to validate; who dies is noticed by the launcher, not by this.
TIMEOUT = timedelta(days=1)


class HelperFinished(Exception):
    """Raised at the end of ``fit`` in every process but the first, which alone writes results."""


def world() -> tuple[int, int]:
    """(rank, number of processes) of the running group; (0, 1) without one."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the group that the environment describes (``launch`` or torchrun); nothing for a single process.

    Gloo on the CPU, NCCL on GPUs, where this process takes the GPU of its local rank.

    Raises:
        RunError: there is no GPU for this process.
    """
    if not launched():
        yield
        return
    import torch.distributed as dist

    backend = "gloo"
    if device.startswith("cuda"):
        backend = "nccl"
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= there:
            raise RunError(
                f"Process {local + 1} on this machine finds {there} GPUs",
                remedy="lower compute.processes, or ask the scheduler for as many GPUs",
            )
        torch.cuda.set_device(local)
    count, meeting = int(os.environ["WORLD_SIZE"]), os.environ.get(RENDEZVOUS)
    if os.environ.get("LOCAL_WORLD_SIZE") == str(count):
        # On one machine they meet on loopback; torchrun leaves Gloo to look the machine's own name up, which may fail.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    where = f"file://{meeting}" if meeting else "env://"
    dist.init_process_group(backend, init_method=where, rank=process_rank(), world_size=count, timeout=TIMEOUT)
    try:
        yield
    except HelperFinished:
        pass
    finally:
        # Leaving an orderly group waits for the others, which after an error would not come.
        if sys.exc_info()[0] is None:
            dist.destroy_process_group()


def leave() -> None:
    """End this process if it is one of several, its work done; return if it is alone.

    Not by way of the interpreter's end: a thread of torch's that was still there then aborted a finished process once.
    """
    if launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def shard(count: int, rank: int, size: int) -> slice:
    """The consecutive samples of ``count`` that process ``rank`` of ``size`` takes: each sample once, sizes differ by
    at most one."""
    return slice(count * rank // size, count * (rank + 1) // size)


def any_process(flag: bool, device: str) -> bool:
    """Whether ``flag`` is set in any process."""
    if world()[1] == 1:
        return flag
    import torch.distributed as dist

    told = torch.tensor([float(flag)], device=device)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return bool(told.item())


def from_first(values: Sequence[float], device: str) -> list[float]:
    """The first process's numbers in every process, as float64; equal length everywhere."""
    if world()[1] == 1:
        return [float(value) for value in values]
    import torch.distributed as dist

    told = torch.tensor([float(value) for value in values], dtype=torch.float64, device=device)
    dist.broadcast(told, src=0)
    return told.tolist()


def from_all(value: Any) -> list[Any]:
    """Each process's value (anything that can be pickled), by rank, in every process."""
    if world()[1] == 1:
        return [value]
    import torch.distributed as dist

    told: list[Any] = [None] * world()[1]
    dist.all_gather_object(told, value)
    return told


def sum_numbers(values: Mapping[str, float], device: str) -> dict[str, float]:
    """Sum of each number over all processes, in float64; equal names everywhere."""
    if world()[1] == 1:
        return dict(values)
    import torch.distributed as dist

    names = sorted(values)
    told = torch.tensor([values[name] for name in names], dtype=torch.float64, device=device)
    dist.all_reduce(told)
    return dict(zip(names, told.tolist(), strict=True))


@torch.no_grad()
def sum_gradients(parameters: Sequence[Tensor], statistics: Sequence[Tensor]) -> None:
    """Sum the gradients over all processes and average normalisation statistics, in place, in one all-reduce.

    A parameter that no process has a gradient of keeps none. Afterwards all processes hold the same bits.

    Args:
        parameters: the same ones, in the same order, in every process.
        statistics: floating buffers that each process updates from its own samples (running means and variances).
    """
    count = world()[1]
    if count == 1:
        return
    import torch.distributed as dist

    device = parameters[0].device
    present = torch.tensor([float(item.grad is not None) for item in parameters], device=device)
    parts = [item.grad if item.grad is not None else torch.zeros_like(item) for item in parameters]
    parts = [part.flatten() for part in parts] + [item.flatten() / count for item in statistics]
    flat = torch.cat([*parts, present])
    dist.all_reduce(flat)
    sizes = [item.numel() for item in (*parameters, *statistics, present)]
    pieces = flat.split(sizes)
    for item, piece, seen in zip(parameters, pieces, pieces[-1].tolist(), strict=False):
        item.grad = piece.view_as(item).to(item.dtype) if seen else None
    for item, piece in zip(statistics, pieces[len(parameters) :], strict=False):
        item.copy_(piece.view_as(item))
