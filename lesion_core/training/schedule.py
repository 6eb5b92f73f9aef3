"""The learning rate: a pure function of the step (so that resuming needs no state), and reduction on a plateau."""

from __future__ import annotations

import math
from typing import Any

from lesion_core.training.optim import Optimizer


def learning_rate_at(step: int, total: int, *, base: float, warmup_fraction: float, schedule: str) -> float:
    """Learning rate of 0-based optimizer step ``step`` of ``total``.

    Linear warm-up over the first ``warmup_fraction`` of the steps (the first step already moves), then constant or
    half a cosine down to zero at ``total`` (SGDR, Loshchilov & Hutter 2017, one cycle). For ``plateau`` the ``base``
    is what ``Plateau`` has made of it.

    Raises:
        ValueError: an unknown schedule.
    """
    warmup = round(warmup_fraction * total)
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule in ("constant", "plateau"):
        return base
    if schedule == "cosine":
        done = (step - warmup) / max(1, total - warmup)
        return base * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    raise ValueError(f"unknown schedule {schedule!r}; known: cosine, constant, plateau")


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value


class Plateau:
    """Learning rate times ``factor`` after more than ``patience`` epochs without a better metric.

    The rules of ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with its defaults: better means by a relative 1e-4, no
    cooldown, and a reduction below 1e-8 is left out. Importing torch.optim would cost a job four seconds.

    Args:
        rate: learning rate at the start.
        mode: ``max`` or ``min``, of the metric.
        factor: 0..1, both excluded.
        patience: epochs.
        minimum: the rate never falls below.
    """

    THRESHOLD = 1e-4
    EPSILON = 1e-8

    def __init__(self, rate: float, *, mode: str, factor: float, patience: int, minimum: float) -> None:
        self.rate, self.mode, self.factor, self.patience, self.minimum = rate, mode, factor, patience, minimum
        self.best = -math.inf if mode == "max" else math.inf
        self.bad_epochs = 0

    def update(self, value: float) -> bool:
        """Take an epoch's metric; whether the rate was reduced."""
        if self.mode == "max":
            better = value > self.best * (1.0 + self.THRESHOLD)
        else:
            better = value < self.best * (1.0 - self.THRESHOLD)
        if better:
            self.best, self.bad_epochs = value, 0
            return False
        self.bad_epochs += 1
        if self.bad_epochs <= self.patience:
            return False
        self.bad_epochs = 0
        lower = max(self.rate * self.factor, self.minimum)
        if self.rate - lower <= self.EPSILON:
            return False
        self.rate = lower
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rate": self.rate, "best": self.best, "bad_epochs": self.bad_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a ``state_dict`` back."""
        self.rate, self.best, self.bad_epochs = state["rate"], state["best"], state["bad_epochs"]
