"""An epoch's batches in their order, from where it stands; on a GPU made ahead by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from lesion_core.training.device import share
from lesion_core.training.task import TrainingTask

MAX_WORKERS = 8


def batches(
    task: TrainingTask,
    rows: np.ndarray,
    size: int,
    rank: int = 0,
    processes: int = 1,
    *,
    epoch: int,
    steps: range,
    step: int,
    device: str,
) -> Iterator[dict[str, Tensor]]:
    """This process's share of each batch of one epoch.

    Args:
        task: makes the samples.
        rows: the epoch's rows in order.
        size: samples of a batch, over all processes.
        rank, processes: which of how many takes its share.
        epoch: 0-based.
        steps: positions in the epoch that are to come.
        step: global step of the first of them.
        device: threads prepare ahead for ``cuda``; on a CPU the step itself keeps all cores busy.
    """
    todo = [(rows[place * size : (place + 1) * size], step + index) for index, place in enumerate(steps)]

    def make(chosen: np.ndarray, number: int) -> dict[str, Tensor]:
        part = share(len(chosen), rank, processes)
        if task.row_keyed:
            return task.batch(chosen[part], epoch, number)
        # A sample's randomness may hang on its place in the batch, so the whole is made and a part of it taken.
        return {name: value[part] for name, value in task.batch(chosen, epoch, number).items()}

    def make_pinned(chosen: np.ndarray, number: int) -> dict[str, Tensor]:
        # Only from pinned memory does a copy to the GPU run beside its work.
        return {name: value.pin_memory() for name, value in make(chosen, number).items()}

    if device != "cuda":
        yield from (make(*item) for item in todo)
        return
    workers = max(1, min(MAX_WORKERS, (os.cpu_count() or 2) - 1))
    # A thread starts on the first GPU, where it would take memory from the process that owns it.
    own = (torch.cuda.current_device(),)
    with ThreadPoolExecutor(workers, initializer=torch.cuda.set_device, initargs=own) as pool:
        ahead: deque[Future] = deque()
        try:
            for item in todo:
                ahead.append(pool.submit(make_pinned, *item))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
