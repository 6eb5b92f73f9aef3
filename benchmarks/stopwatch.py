"""Wall-clock, processor time and peak memory of several calls, in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass
class Taken:
    """The fastest turn of a call: seconds on the wall and of this process's processors; megabytes at its peak."""

    wall: float
    cpu: float
    megabytes: float


def take_turns(
    calls: Mapping[str, Callable[[], torch.Tensor]],
    rounds: int,
    watch: Callable[[Callable[[], object]], tuple[object, float]],
) -> tuple[dict[str, torch.Tensor], dict[str, Taken]]:
    """Each call ``rounds`` times, one after the other; their last results and what they took.

    ``watch`` calls what it is given and says the extra megabytes.
    """
    results: dict[str, torch.Tensor] = {}
    taken: dict[str, Taken] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            result, megabytes = watch(call)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            results[name] = result.detach()
            before = taken.get(name, Taken(wall, cpu, megabytes))
            taken[name] = Taken(min(wall, before.wall), min(cpu, before.cpu), max(megabytes, before.megabytes))
    return results, taken
