"""What the engine needs to know of a model and its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor


class TrainingTask(ABC):
    """What a training needs to know of its model and data; what is learnt is the model's own word (``Trainable``).

    Attributes:
        module: put into train and eval mode by the engine. An attribute ``smallest_batch`` > 1 says that its forward
            pass in training needs so many samples.
        selection_metric, selection_mode: key of ``validate``'s dict by which the best epoch is chosen, and how.
        row_keyed: a sample's randomness depends on (seed, epoch, row) alone, not on its place in the batch, so that one
            of several processes need not make the samples of the others.
    """

    module: Any
    selection_metric: str
    selection_mode: Literal["min", "max"]
    row_keyed = False

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """What is learnt: name -> parameter."""
        return dict(self.module.trainable_parameters())

    @abstractmethod
    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers in the order of 0-based ``epoch``; a function of (seed, epoch) only, of constant length."""

    @abstractmethod
    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """The augmented samples ``rows`` at global 0-based ``step``, each tensor (len(rows), ...).

        Stateless; may run in another thread.
        """

    @abstractmethod
    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss, and what else of the batch belongs into the history; both are means over the samples.

        May be given a part of what ``batch`` made: consecutive samples.
        """

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Metrics on validation images only."""

    def state(self) -> dict[str, Tensor]:
        """All that training changes: trainable parameters and running statistics of their layers."""
        return self.module.trainable_state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put a ``state`` back, in place."""
        self.module.load_trainable_state(state)
