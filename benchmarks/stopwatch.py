"""Wall-clock, processor time and peak memory of several calls, in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

# A turn lasts at least so many seconds, in which a short call is repeated, as it would be in a training: what the other
# side left behind, cold caches and pages given back to the kernel, is not the short call's own.
SHORTEST = 1.0

# Calls what it is given; says what came back and the extra megabytes.
Watch = Callable[[Callable[[], Any]], tuple[Any, float]]


@dataclass
class Taken:
    """What a call costs: seconds on the wall and of this process's processors; megabytes at its peak."""

    wall: float
    cpu: float
    megabytes: float


def take_turns(
    calls: Mapping[str, Callable[[], torch.Tensor]],
    rounds: int,
    watch: Watch,
    shortest: float = SHORTEST,
) -> tuple[dict[str, torch.Tensor], dict[str, Taken]]:
    """Result and memory of a first call each; the fastest of ``rounds`` turns after it, in which nothing watches."""
    results: dict[str, torch.Tensor] = {}
    taken: dict[str, Taken] = {}
    for name, call in calls.items():
        results[name], taken[name] = once(call, watch)
    for lap in range(rounds):
        for name, call in calls.items():
            gc.collect()
            _, wall, cpu = _turn(call, shortest)
            if lap:
                wall, cpu = min(wall, taken[name].wall), min(cpu, taken[name].cpu)
            taken[name] = Taken(wall, cpu, taken[name].megabytes)
    return results, taken


def once(call: Callable[[], torch.Tensor], watch: Watch) -> tuple[torch.Tensor, Taken]:
    """Result and costs of one call, of what cannot be called again as if for the first time."""
    (result, wall, cpu), megabytes = watch(lambda: _turn(call, 0.0))
    return result.detach(), Taken(wall, cpu, megabytes)


def _turn(call: Callable[[], torch.Tensor], shortest: float) -> tuple[torch.Tensor, float, float]:
    """What a call gave; seconds of one, on the wall and of the processors: the mean of as many as fill the turn."""
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while not count or time.perf_counter() - wall < shortest:
        result = call()
        count += 1
    return result, (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count
