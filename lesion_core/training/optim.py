"""Optimizers, and the learning rate as a pure function of the step (so that resuming needs no scheduler state)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch


def build_optimizer(
    parameters: Mapping[str, torch.nn.Parameter],
    *,
    name: str,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) or SGD with Nesterov-free momentum.

    Weight decay acts on matrices and kernels only: on biases, norms and gates it would pull towards a wrong prior.

    Args:
        parameters: name -> parameter; the order of names is the order of the optimizer's state.
        name: ``adamw`` or ``sgd``.

    Raises:
        ValueError: another name.
    """
    ordered = [parameters[key] for key in sorted(parameters)]
    groups = [
        {"params": [item for item in ordered if item.ndim >= 2], "weight_decay": weight_decay},
        {"params": [item for item in ordered if item.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)
    raise ValueError(f"unknown optimizer {name!r}; known: adamw, sgd")


def learning_rate_at(step: int, total: int, *, base: float, warmup_fraction: float, schedule: str) -> float:
    """Learning rate of 0-based optimizer step ``step`` of ``total``.

    Linear warm-up over the first ``warmup_fraction`` of the steps (the first step already moves), then constant or
    half a cosine down to zero at ``total`` (SGDR, Loshchilov & Hutter 2017, one cycle).

    Raises:
        ValueError: an unknown schedule.
    """
    warmup = round(warmup_fraction * total)
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "constant":
        return base
    if schedule == "cosine":
        done = (step - warmup) / max(1, total - warmup)
        return base * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    raise ValueError(f"unknown schedule {schedule!r}; known: cosine, constant")


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value
