"""torch's optimizers, learning rates and the moving average, as a run's ``Training`` settings ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR, StepLR

from lesion_core.settings import Training


def build_optimizer(parameters: Mapping[str, Tensor], training: Training) -> Optimizer:
    """AdamW, or SGD with momentum. Weight decay is of matrices and kernels only: biases, norms and gates have none."""
    ordered = [parameters[name] for name in sorted(parameters)]
    groups = [
        {"params": [item for item in ordered if item.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [item for item in ordered if item.ndim < 2], "weight_decay": 0.0},
    ]
    if training.optimizer == "sgd":
        return SGD(groups, lr=training.learning_rate, momentum=training.momentum)
    return AdamW(groups, lr=training.learning_rate)


def build_schedule(optimizer: Optimizer, training: Training, total: int) -> LRScheduler:
    """Learning rate of each of ``total`` steps.

    Linear warm-up over the first ``warmup_fraction`` of the steps (the first step already moves), then constant or half
    a cosine down to zero at ``total`` (SGDR, Loshchilov & Hutter 2017, one cycle). ``step`` has no warm-up: the rate
    times ``step_factor`` after each ``step_epochs`` of the ``epochs`` that ``total`` steps are.
    """
    if training.schedule == "step":
        return StepLR(optimizer, max(1, total * training.step_epochs // training.epochs), training.step_factor)
    warmup = round(training.warmup_fraction * total)
    cosine = training.schedule == "cosine"
    if cosine and warmup == 0:
        return CosineAnnealingLR(optimizer, total)
    rise = LinearLR(optimizer, start_factor=1 / max(1, warmup), total_iters=max(0, warmup - 1))
    if not cosine:
        return rise
    fall = CosineAnnealingLR(optimizer, max(1, total - warmup))
    return SequentialLR(optimizer, [rise, fall], milestones=[warmup])


def build_plateau(optimizer: Optimizer, training: Training, mode: Literal["min", "max"]) -> ReduceLROnPlateau | None:
    """For the schedule ``plateau``: the rate times a factor after epochs without a better selection metric."""
    if training.schedule != "plateau":
        return None
    return ReduceLROnPlateau(
        optimizer,
        mode,
        factor=training.plateau_factor,
        patience=training.plateau_patience,
        min_lr=training.min_learning_rate,
    )


class MovingAverage:
    """average <- d_t average + (1 - d_t) value after each step, d_t = min(decay, (1 + t) / (10 + t)), t from 0.

    The young average forgets the start quickly (the warm-up of TensorFlow's ExponentialMovingAverage).

    Args:
        tensors: name -> parameter or floating buffer; the average starts as their copy.
        decay: 0..1, both excluded.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.names = sorted(tensors)
        self.values = [tensors[name] for name in self.names]
        self.average = [value.detach().clone() for value in self.values]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the values after 0-based ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [value.detach() for value in self.values], 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average in the values' place; they come back at the end to the bit."""
        kept = [value.detach().clone() for value in self.values]
        self._put(self.average)
        try:
            yield
        finally:
            self._put(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies on the CPU, by name."""
        return {name: value.to("cpu", copy=True) for name, value in zip(self.names, self.average, strict=True)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put a ``state_dict`` back."""
        for name, value in zip(self.names, self.average, strict=True):
            value.copy_(state[name])

    @torch.no_grad()
    def _put(self, tensors: list[Tensor]) -> None:
        for value, new in zip(self.values, tensors, strict=True):
            value.copy_(new)
