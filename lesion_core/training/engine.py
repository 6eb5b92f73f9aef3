"""The training loop: deterministic, resumable bit for bit on the CPU, selection on validation images only.

A plain loop and not Lightning: importing lightning_fabric costs 4.5 s, more than the smoke profile's trainings. All
randomness is a function of (seed, epoch, step): batches draw from keyed generators, and torch's own generator
(dropout) is seeded anew before each step, so a checkpoint needs no generator state.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lesion_core.errors import RunError
from lesion_core.files import canonical_json, sha256_text, write_csv
from lesion_core.progress import LOG_SECONDS, say
from lesion_core.seeding import seed_torch
from lesion_core.settings import Training
from lesion_core.training.checkpoint import folder_lock, load_checkpoint, save_checkpoint
from lesion_core.training.optim import build_optimizer, learning_rate_at, set_learning_rate

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
HISTORY_START = ("epoch", "step", "lr")
MAX_WORKERS = 8


class TrainingTask(Protocol):
    """What a training needs to know of its model and data."""

    selection_metric: str
    """Key of ``validate``'s dict by which the best epoch is chosen."""
    selection_mode: str
    """``max`` or ``min``."""
    module: torch.nn.Module
    """Put into train and eval mode by the engine."""

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """What is learnt: name -> parameter, sorted by name."""

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers in the order of 0-based ``epoch``; a function of (seed, epoch) only, of constant length."""

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """The augmented samples ``rows`` at global 0-based ``step``; stateless, may run in another thread."""

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss, and what else of the batch belongs into the history."""

    def validate(self) -> dict[str, float]:
        """Metrics on validation images only."""

    def state(self) -> dict[str, Tensor]:
        """All that training changes: trainable parameters and needed buffers."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put a ``state`` back, in place."""


@dataclass(frozen=True)
class FitResult:
    """Outcome of a training; the task holds the best state.

    Attributes:
        epochs: epochs trained, over all resumptions.
        best_epoch: 1-based epoch that was selected; 0 if nothing was trained.
        best_value: its selection metric; NaN if nothing was trained.
        stopped_early: whether patience ended the training.
        precision: what was computed in: fp32, bf16 or fp16.
        history: the rows of history.csv.
    """

    epochs: int
    best_epoch: int
    best_value: float
    stopped_early: bool
    precision: str
    history: list[dict[str, float]]


@dataclass
class _Progress:
    """Where a training stands; with tensors' state, this is the checkpoint."""

    epoch: int = 0
    position: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = math.nan


def resolve_device(name: str) -> str:
    """``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``; auto takes a GPU if torch sees one.

    Raises:
        RunError: cuda is asked for and there is none.
    """
    available = torch.cuda.is_available() if name != "cpu" else False
    if name == "cuda" and not available:
        raise RunError("No GPU is available", remedy="set compute.device to auto or cpu")
    return "cuda" if available else "cpu"


def resolve_precision(precision: str, device: str) -> str:
    """``precision`` on a GPU, fp32 on a CPU, where the half types are many times slower than fp32."""
    return precision if device.startswith("cuda") else "fp32"


def fit(
    task: TrainingTask, training: Training, run_dir: Path, *, seed: int, device: str, identity: str = ""
) -> FitResult:
    """Train ``task``; resume from ``run_dir/checkpoint.pt`` if it is of the same job; load the best epoch's state.

    The last batch of an epoch is left out if it is not full (unless it is the only one); the order changes each epoch,
    so no sample is left out for good. ``checkpoint.pt`` stays: the caller deletes it once its outputs are written.

    Args:
        task: model and data.
        training: optimisation. ``patience`` > 0 ends the training after so many epochs without a better selection
            metric. With 0 epochs, or nothing trainable, only the header of history.csv is written.
        run_dir: history.csv, checkpoint.pt and the lock go there.
        seed: of dropout.
        device: ``cpu`` or ``cuda``.
        identity: whatever else the result depends on (hashes of inputs), so that a checkpoint of other data is not
            continued.

    Raises:
        RunError: no training samples, a loss, gradient or selection metric that is not finite, a broken checkpoint.
    """
    with folder_lock(Path(run_dir)):
        return _Fit(task, training, Path(run_dir), seed, device, identity).run()


class _Fit:
    def __init__(
        self, task: TrainingTask, training: Training, run_dir: Path, seed: int, device: str, identity: str
    ) -> None:
        self.task, self.training, self.run_dir = task, training, run_dir
        self.seed, self.device = seed, device
        self.precision = resolve_precision(training.precision, device)
        self.parameters = dict(sorted(task.trainable().items()))
        self.epochs = training.epochs if self.parameters else 0
        self.at = _Progress()
        if not self.epochs:
            return
        samples = len(task.epoch_rows(0))
        if samples == 0:
            raise RunError("There are no training samples", file=run_dir, remedy="check splits and train_on")
        self.samples = samples
        self.steps_per_epoch = max(1, samples // training.batch_size)
        self.total = self.epochs * self.steps_per_epoch
        self.optimizer = build_optimizer(
            self.parameters,
            name=training.optimizer,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            momentum=training.momentum,
        )
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == "fp16")
        self.best: dict[str, Tensor] = {}
        self.identity = self._identity(identity)

    def _identity(self, identity: str) -> str:
        """Hash of settings, seed, sample order, parameter shapes and what the caller adds."""
        rows = self.task.epoch_rows(0).tolist()
        shapes = [[name, list(item.shape)] for name, item in self.parameters.items()]
        settings = self.training.model_dump()
        # How often a checkpoint is written changes nothing in the result.
        settings.pop("checkpoint_steps")
        return sha256_text(canonical_json([settings, self.seed, self.device, rows, shapes, identity]))

    def run(self) -> FitResult:
        if not self.epochs:
            write_csv(self.run_dir / HISTORY, HISTORY_START, [])
            say(f"{self.run_dir.name}: nothing to train")
            return FitResult(0, 0, math.nan, False, self.precision, [])
        if self.precision != self.training.precision:
            say(f"{self.run_dir.name}: computing in {self.precision}, {self.training.precision} needs a GPU")
        self._resume()
        stopped = self._stopped_early()
        while self.at.epoch < self.epochs and not stopped:
            self._train_epoch()
            self._validate()
            stopped = self._stopped_early()
        self.task.load_state(self.best)
        self.task.module.eval()
        self._write_history()
        at = self.at
        if stopped:
            say(f"{self.run_dir.name}: stopped early, no better epoch in {self.training.patience}")
        say(f"{self.run_dir.name}: best epoch {at.best_epoch}, {self.task.selection_metric} {at.best_value:.4f}")
        return FitResult(at.epoch, at.best_epoch, at.best_value, stopped, self.precision, at.history)

    def _stopped_early(self) -> bool:
        patience = self.training.patience
        return 0 < patience <= self.at.epoch - self.at.best_epoch and self.at.position == 0

    def _train_epoch(self) -> None:
        at, module = self.at, self.task.module
        rows = self.task.epoch_rows(at.epoch)
        if len(rows) != self.samples:
            raise RunError(f"Epoch {at.epoch + 1} has {len(rows)} samples instead of {self.samples}")
        module.train()
        shown = time.monotonic()
        for batch in self._batches(rows):
            self._step(batch)
            at.position += 1
            at.step += 1
            if time.monotonic() - shown >= LOG_SECONDS:
                shown = time.monotonic()
                mean = at.sums["train_loss"] / at.position
                place = f"epoch {at.epoch + 1} of {self.epochs}, step {at.position} of {self.steps_per_epoch}"
                say(f"{self.run_dir.name}: {place}, loss {mean:.4f}")
            # After the last step of an epoch the checkpoint waits for the validation.
            if at.step % self.training.checkpoint_steps == 0 and at.position < self.steps_per_epoch:
                self._save()

    def _batches(self, rows: np.ndarray) -> Iterator[dict[str, Tensor]]:
        """The epoch's batches from where it stands; on a GPU made ahead by threads, in the same order."""
        size, at = self.training.batch_size, self.at
        todo = [
            (rows[index * size : (index + 1) * size], at.epoch, at.step + index - at.position)
            for index in range(at.position, self.steps_per_epoch)
        ]
        if not self.device.startswith("cuda"):
            # On a CPU the step itself keeps all cores busy.
            yield from (self.task.batch(*item) for item in todo)
            return
        workers = max(1, min(MAX_WORKERS, (os.cpu_count() or 2) - 1))
        with ThreadPoolExecutor(workers) as pool:
            ahead: deque[Future] = deque()
            try:
                for item in todo:
                    ahead.append(pool.submit(self.task.batch, *item))
                    if len(ahead) > workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _autocast(self) -> AbstractContextManager:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def _step(self, batch: dict[str, Tensor]) -> None:
        at, training = self.at, self.training
        seed_torch(self.seed, "step", at.step)
        rate = learning_rate_at(
            at.step,
            self.total,
            base=training.learning_rate,
            warmup_fraction=training.warmup_fraction,
            schedule=training.schedule,
        )
        set_learning_rate(self.optimizer, rate)
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        self.optimizer.zero_grad()
        with self._autocast():
            loss, parts = self.task.loss(batch)
        value = float(loss.detach())
        self._demand_finite(value, "loss")
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), training.gradient_clip or math.inf)
        if not self.scaler.is_enabled():
            self._demand_finite(float(norm), "gradient")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for name, part in {"loss": value, **parts}.items():
            key = name if name.startswith("train_") else f"train_{name}"
            at.sums[key] = at.sums.get(key, 0.0) + float(part)

    def _demand_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise RunError(
                f"The {what} is not finite at step {self.at.step} (epoch {self.at.epoch + 1}) of {self.run_dir.name}",
                file=self.run_dir,
                remedy="lower training.learning_rate, or set training.precision to fp32",
            )

    def _validate(self) -> None:
        at, task = self.at, self.task
        task.module.eval()
        with torch.no_grad(), self._autocast():
            metrics = task.validate()
        value = float(metrics[task.selection_metric])
        self._demand_finite(value, f"selection metric {task.selection_metric}")
        row = dict(zip(HISTORY_START, (at.epoch + 1, at.step, self.optimizer.param_groups[0]["lr"]), strict=True))
        row |= {name: at.sums[name] / at.position for name in sorted(at.sums)}
        row |= {f"val_{name}": float(metrics[name]) for name in sorted(metrics)}
        at.history.append(row)
        at.epoch, at.position, at.sums = at.epoch + 1, 0, {}
        better = value > at.best_value if task.selection_mode == "max" else value < at.best_value
        # Strictly better: of equal epochs the first is kept.
        if at.best_epoch == 0 or better:
            at.best_epoch, at.best_value = at.epoch, value
            self.best = _copy(task.state())
        self._save()
        self._write_history()
        shown = ", ".join(f"{name} {row[name]:.4f}" for name in row if name.startswith(("train_loss", "val_")))
        say(f"{self.run_dir.name}: epoch {at.epoch} of {self.epochs}: {shown}")

    def _write_history(self) -> None:
        write_csv(self.run_dir / HISTORY, list(self.at.history[0]), self.at.history)

    def _save(self) -> None:
        save_checkpoint(
            self.run_dir / CHECKPOINT,
            {
                "identity": self.identity,
                "progress": vars(self.at),
                "state": _copy(self.task.state()),
                "best": self.best,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            },
        )

    def _resume(self) -> None:
        saved: dict[str, Any] | None = load_checkpoint(self.run_dir / CHECKPOINT, identity=self.identity)
        if saved is None:
            return
        self.at = _Progress(**saved["progress"])
        self.task.load_state(saved["state"])
        self.best = saved["best"]
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        say(f"{self.run_dir.name}: resumed after {self.at.step} of {self.total} steps")


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
