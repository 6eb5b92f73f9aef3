"""How jobs use the machine, and how a run is optimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lesion_core.settings.augmentation import Augmentation
from lesion_core.settings.base import Count, Fraction, NotNegative, Positive, Strict, Whole


class Compute(Strict):
    """How jobs use the machine; in a run's identity are ``threads`` and ``processes`` alone (sums depend on them).

    ``rehearsal``: a rehearsal.csv, whose measured memory and time jobs that train ask a scheduler for.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: Count
    processes: Count = 1
    runs_per_job: Count | None = None
    gpu_memory_mb: Count
    memory_mb: Count
    runtime_minutes: Count
    rehearsal: str | None = None


class Training(Strict):
    """One run's optimisation.

    ``rehearsed_steps``: of a rehearsal, which takes so many steps and stops once at a checkpoint.
    """

    epochs: Whole
    batch_size: Count
    optimizer: Literal["adamw", "sgd"]
    learning_rate: Positive
    weight_decay: NotNegative
    momentum: Fraction
    schedule: Literal["cosine", "constant", "step", "plateau"]
    warmup_fraction: Fraction
    step_epochs: Count = 10
    step_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    plateau_patience: Whole = 10
    min_learning_rate: NotNegative = 0.0
    gradient_clip: NotNegative
    precision: Literal["fp32", "bf16", "fp16"]
    checkpoint_steps: Count
    patience: Whole
    accumulation: Count = 1
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    activation_checkpointing: bool = False
    tensorboard: bool = False
    rehearsed_steps: Count | None = None

    @model_validator(mode="after")
    def _plateau_can_act(self) -> Training:
        if self.schedule == "plateau":
            if self.min_learning_rate > self.learning_rate:
                raise ValueError("min_learning_rate must not exceed learning_rate")
            if 0 < self.patience <= self.plateau_patience:
                raise ValueError("patience would end the training before plateau_patience lowers the learning rate")
        return self


class Pretrain(Strict):
    """The embedded foundation model: ``images`` synthetic scenes are trained on, ``validation_images`` are held out."""

    seed: int
    images: Count
    validation_images: Count
    image_size: Annotated[int, Field(ge=64)]
    training: Training
    augmentation: Augmentation
