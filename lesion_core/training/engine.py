"""The training loop: deterministic, resumable bit for bit on the CPU, selection on validation images only.

A plain loop and not Lightning: importing lightning_fabric costs 4.5 s, more than the smoke profile's trainings. All
randomness is a function of (seed, epoch, step): batches draw from keyed generators, and torch's own generator
(dropout) is seeded anew before each step, so a checkpoint needs no generator state.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lesion_core.errors import RunError
from lesion_core.files import canonical_json, sha256_text
from lesion_core.progress import LOG_SECONDS, say
from lesion_core.record.attempts import Attempts
from lesion_core.settings import Training
from lesion_core.training.batches import batches
from lesion_core.training.checkpoint import copied, folder_lock, load_checkpoint, save_checkpoint
from lesion_core.training.device import autocast, resolve_device, resolve_precision
from lesion_core.training.distributed import HelperFinished, from_first, world
from lesion_core.training.history import HISTORY, HISTORY_START, write_history
from lesion_core.training.oom import is_out_of_memory
from lesion_core.training.task import FitResult, TrainingTask
from lesion_core.training.updater import Updater

__all__ = [
    "CHECKPOINT",
    "HISTORY",
    "HISTORY_START",
    "FitResult",
    "TrainingTask",
    "fit",
    "resolve_device",
    "resolve_precision",
]

CHECKPOINT = "checkpoint.pt"
# They change what is written or kept in memory, not what is computed.
NO_IDENTITY = ("checkpoint_steps", "activation_checkpointing", "tensorboard")


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
    resumed: int = 0
    seconds: float = 0.0


def fit(
    task: TrainingTask,
    training: Training,
    run_dir: Path,
    *,
    seed: int,
    device: str,
    identity: str = "",
    attempts: Attempts | None = None,
) -> FitResult:
    """Train ``task``; resume from ``run_dir/checkpoint.pt`` if it is of the same job; load the best epoch's state.

    A step takes ``batch_size * accumulation`` samples, of which ``batch_size`` are in memory at once; several
    processes (``distributed.process_group``) share each step's samples between them. The last batch of an epoch is
    left out if it is not full (unless it is the only one); the order changes each epoch, so no sample is left out for
    good. With ``ema_decay`` the moving average is what is validated and kept. ``checkpoint.pt`` stays: the caller
    deletes it once its outputs are written.

    Args:
        task: model and data.
        training: optimisation. ``patience`` > 0 ends the training after so many epochs without a better selection
            metric. With 0 epochs, or nothing trainable, only the header of history.csv is written.
        run_dir: history.csv, checkpoint.pt and the lock go there.
        seed: of dropout.
        device: ``cpu`` or ``cuda``.
        identity: whatever else the result depends on (hashes of inputs): a checkpoint of other data is left.
        attempts: kept with the checkpoint; afterwards it knows what earlier attempts did.

    Raises:
        RunError: no training samples, fewer samples in a batch than processes or than the network needs, a loss,
            gradient or selection metric that is not finite, a broken checkpoint, too little memory for one sample.
        SettingsError: activation checkpointing is asked for, and nothing in the model offers it.
        HelperFinished: at the end, in every process but the first.
    """
    attempts = attempts or Attempts(Path(run_dir))
    with folder_lock(Path(run_dir)):
        result = _Fit(task, training, Path(run_dir), seed, device, identity).run(attempts)
    if world()[0] > 0:
        raise HelperFinished
    return result


class _Fit:
    def __init__(
        self, task: TrainingTask, training: Training, run_dir: Path, seed: int, device: str, identity: str
    ) -> None:
        self.task, self.training, self.run_dir, self.device = task, training, run_dir, device
        self.clock = time.monotonic()
        self.precision = resolve_precision(training.precision, device)
        self.first_process = world()[0] == 0
        parameters = dict(sorted(task.trainable().items()))
        self.epochs = training.epochs if parameters else 0
        self.at = _Progress()
        if not self.epochs:
            return
        self._count_samples()
        self.updater = Updater(
            task, training, parameters, seed=seed, device=device, precision=self.precision, check=self._demand_finite
        )
        self.best: dict[str, Tensor] = {}
        rows = task.epoch_rows(0).tolist()
        shapes = [[name, list(item.shape)] for name, item in parameters.items()]
        settings = training.model_dump(exclude=set(NO_IDENTITY))
        self.identity = sha256_text(canonical_json([settings, seed, device, rows, shapes, identity]))

    def _count_samples(self) -> None:
        self.samples = len(self.task.epoch_rows(0))
        if self.samples == 0:
            raise RunError("There are no training samples", file=self.run_dir, remedy="check splits and train_on")
        self.batch_size = min(self.training.batch_size * self.training.accumulation, self.samples)
        processes, smallest = world()[1], getattr(self.task.module, "smallest_batch", 1)
        if self.training.batch_size < smallest or self.batch_size // processes < smallest > 1:
            raise RunError(
                f"Each process and pass needs {smallest} samples: a batch norm of this network sees one value per "
                f"channel of an image; there are {self.samples} training samples, {self.batch_size} in a batch, and "
                f"{processes} process{'es' if processes > 1 else ''}",
                file=self.run_dir,
                remedy=f"raise training.batch_size to {smallest * processes} or more (and lower training.accumulation "
                "by as much), or lower compute.processes",
            )
        if self.batch_size < processes:
            raise RunError(
                f"A batch of {self.batch_size} samples cannot be shared by {processes} processes",
                file=self.run_dir,
                remedy="raise training.batch_size, or lower compute.processes",
            )
        self.steps_per_epoch = self.samples // self.batch_size
        self.total = self.epochs * self.steps_per_epoch

    def run(self, attempts: Attempts) -> FitResult:
        self.attempts = attempts
        if not self.epochs:
            if self.first_process:
                write_history(self.run_dir, [])
            self._say("nothing to train")
            return FitResult(0, 0, math.nan, False, self.precision, [])
        if self.precision != self.training.precision:
            self._say(f"computing in {self.precision}, {self.training.precision} needs a GPU that has it")
        self._resume()
        stopped = self._stopped_early()
        while self.at.epoch < self.epochs and not stopped:
            self._train_epoch()
            self._validate()
            stopped = self._stopped_early()
        at = self.at
        if self.first_process:
            self.task.load_state(self.best)
            self._write_history()
        self.task.module.eval()
        if stopped:
            self._say(f"stopped early, no better epoch in {self.training.patience}")
        self._say(f"best epoch {at.best_epoch}, {self.task.selection_metric} {at.best_value:.4f}")
        self._spend()
        fitted = (at.epoch, at.best_epoch, at.best_value, stopped, self.precision, at.history)
        return FitResult(*fitted, at.resumed, at.seconds)

    def _say(self, text: str) -> None:
        if self.first_process:
            say(f"{self.run_dir.name}: {text}")

    def _stopped_early(self) -> bool:
        patience = self.training.patience
        return 0 < patience <= self.at.epoch - self.at.best_epoch and self.at.position == 0

    def _train_epoch(self) -> None:
        at, task = self.at, self.task
        rows = task.epoch_rows(at.epoch)
        if len(rows) != self.samples:
            raise RunError(f"Epoch {at.epoch + 1} has {len(rows)} samples instead of {self.samples}")
        task.module.train()
        shown = time.monotonic()
        todo = range(at.position, self.steps_per_epoch)
        for batch in batches(task, rows, self.batch_size, epoch=at.epoch, steps=todo, step=at.step, device=self.device):
            self._step(batch)
            if time.monotonic() - shown >= LOG_SECONDS:
                shown = time.monotonic()
                mean = at.sums["train_loss"] / at.position
                place = f"epoch {at.epoch + 1} of {self.epochs}, step {at.position} of {self.steps_per_epoch}"
                self._say(f"{place}, loss {mean:.4f}")
            # After the last step of an epoch the checkpoint waits for the validation.
            if at.step % self.training.checkpoint_steps == 0 and at.position < self.steps_per_epoch:
                self._save()

    def _step(self, batch: dict[str, Tensor]) -> None:
        at = self.at
        means = self.updater.step(batch, at.step, self.total, self.batch_size)
        for name, value in means.items():
            key = name if name.startswith("train_") else f"train_{name}"
            at.sums[key] = at.sums.get(key, 0.0) + value
        at.position += 1
        at.step += 1

    def _demand_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise RunError(
                f"The {what} is not finite at step {self.at.step} (epoch {self.at.epoch + 1}) of {self.run_dir.name}",
                file=self.run_dir,
                remedy="lower training.learning_rate, or set training.precision to fp32",
            )

    def _validate(self) -> None:
        """Validate and select; the first process alone computes, the others learn the selection metric."""
        at, task = self.at, self.task
        task.module.eval()
        metrics: dict[str, float] = {}
        state: dict[str, Tensor] = {}
        with self.updater.averaged():
            if self.first_process:
                metrics = self._validation_metrics()
                state = copied(task.state())
        (value,) = from_first([metrics.get(task.selection_metric, math.nan)], self.device)
        self._demand_finite(value, f"selection metric {task.selection_metric}")
        row = dict(zip(HISTORY_START, (at.epoch + 1, at.step, self.updater.rate), strict=True))
        row |= {name: at.sums[name] / at.position for name in sorted(at.sums)}
        row |= {f"val_{name}": float(metrics[name]) for name in sorted(metrics)}
        at.history.append(row)
        at.epoch, at.position, at.sums = at.epoch + 1, 0, {}
        better = value > at.best_value if task.selection_mode == "max" else value < at.best_value
        # Strictly better: of equal epochs the first is kept.
        if at.best_epoch == 0 or better:
            at.best_epoch, at.best_value = at.epoch, value
            self.best = state
        if self.updater.validated(value):
            self._say(f"no better epoch: learning rate {self.updater.plateau.rate:g} from now on")
        self._save()
        if self.first_process:
            self._write_history()
        shown = ", ".join(f"{name} {row[name]:.4f}" for name in row if name.startswith(("train_loss", "val_")))
        self._say(f"epoch {at.epoch} of {self.epochs}: {shown}")

    def _validation_metrics(self) -> dict[str, float]:
        try:
            with torch.no_grad(), autocast(self.precision):
                return self.task.validate()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            smallest = getattr(self.task.module, "smallest_batch", 1)
            least = f" (to no less than {smallest})" if smallest > 1 else ""
            raise RunError(
                f"Out of memory while validating after epoch {self.at.epoch + 1} of {self.run_dir.name}",
                file=self.run_dir,
                remedy=f"lower training.batch_size{least} and raise training.accumulation by as much: a step takes the "
                "same samples",
            ) from error

    def _write_history(self) -> None:
        write_history(self.run_dir, self.at.history, tensorboard=self.training.tensorboard)

    def _spend(self) -> None:
        """Add the seconds since the last call to those of all attempts."""
        now = time.monotonic()
        self.at.seconds, self.clock = self.at.seconds + now - self.clock, now

    def _save(self) -> None:
        if not self.first_process:
            return
        self._spend()
        save_checkpoint(
            self.run_dir / CHECKPOINT,
            {
                "identity": self.identity,
                "progress": vars(self.at),
                "attempts": self.attempts.state(),
                "state": copied(self.task.state()),
                "best": self.best,
                **self.updater.state_dict(),
            },
        )

    def _resume(self) -> None:
        saved: dict[str, Any] | None = load_checkpoint(self.run_dir / CHECKPOINT, identity=self.identity)
        if saved is None:
            return
        self.at = _Progress(**saved["progress"])
        self.at.resumed += 1
        self.attempts.resume(saved.get("attempts"))
        self.task.load_state(saved["state"])
        self.best = saved["best"]
        self.updater.load_state_dict(saved)
        self._say(f"resumed after {self.at.step} of {self.total} steps")
