"""All that changes the weights, with its state: optimizer, learning rate, steps in pieces, moving average."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lesion_core.errors import SettingsError
from lesion_core.settings import Training
from lesion_core.training.ema import MovingAverage
from lesion_core.training.optim import build_optimizer
from lesion_core.training.schedule import Plateau, learning_rate_at, set_learning_rate
from lesion_core.training.step import Stepper
from lesion_core.training.task import TrainingTask


class Updater:
    """Takes batches, changes weights.

    Args:
        task, training, seed, device: of the fit.
        parameters: what is learnt, by name.
        precision: computed in.
        check: called with a number and what it is; raises if it is not finite.

    Raises:
        SettingsError: activation checkpointing is asked for, and nothing in the model offers it.
    """

    def __init__(
        self,
        task: TrainingTask,
        training: Training,
        parameters: dict[str, Tensor],
        *,
        seed: int,
        device: str,
        precision: str,
        check: Callable[[float, str], None],
    ) -> None:
        self.training = training
        self.optimizer = build_optimizer(
            parameters,
            name=training.optimizer,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            momentum=training.momentum,
        )
        self.stepper = Stepper(
            task,
            training,
            parameters,
            self.optimizer,
            seed=seed,
            device=device,
            precision=precision,
            check=check,
        )
        self.plateau = Plateau(
            training.learning_rate,
            mode=task.selection_mode,
            factor=training.plateau_factor,
            patience=training.plateau_patience,
            minimum=training.min_learning_rate,
        )
        self.average: MovingAverage | None = None
        if training.ema_decay > 0:
            floating = {name: item for name, item in self.stepper.statistics.items() if item.is_floating_point()}
            self.average = MovingAverage({**parameters, **floating}, training.ema_decay)
        if training.activation_checkpointing:
            checkpoint_activations(task.module)

    @property
    def rate(self) -> float:
        """Learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def step(self, batch: dict[str, Tensor], number: int, total: int, samples: int) -> dict[str, float]:
        """Take 0-based step ``number`` of ``total`` with this process's share of ``samples`` samples.

        Returns:
            Means over the batch, ``loss`` among them.
        """
        rate = learning_rate_at(
            number,
            total,
            base=self.plateau.rate,
            warmup_fraction=self.training.warmup_fraction,
            schedule=self.training.schedule,
        )
        set_learning_rate(self.optimizer, rate)
        means = self.stepper.step(batch, number, samples)
        if self.average is not None:
            self.average.update(number)
        return means

    def validated(self, value: float) -> bool:
        """Take an epoch's selection metric; whether it lowered the learning rate."""
        return self.training.schedule == "plateau" and self.plateau.update(value)

    def averaged(self) -> AbstractContextManager:
        """The moving average in the weights' place, if there is one."""
        return nullcontext() if self.average is None else self.average.applied()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "pieces": self.stepper.pieces,
            "plateau": self.plateau.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a ``state_dict`` back."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.stepper.pieces = state["pieces"]
        self.plateau.load_state_dict(state["plateau"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def checkpoint_activations(module: torch.nn.Module) -> None:
    """Switch activation checkpointing on in all parts of ``module`` that offer it (attribute of that name).

    Raises:
        SettingsError: none does.
    """
    parts = [part for part in module.modules() if hasattr(part, "activation_checkpointing")]
    if not parts:
        raise SettingsError(
            "activation_checkpointing: nothing in this model can be computed twice",
            remedy="it is for SAM's image encoder; set it to false",
        )
    for part in parts:
        part.activation_checkpointing = True
