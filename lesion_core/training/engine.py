"""The training loop: deterministic, resumable bit for bit on the CPU, selection on validation images only.

All randomness is a function of (seed, epoch, step): batches draw from keyed generators, and torch's own generator
(dropout) is seeded anew before each step, so a checkpoint needs no generator state. Precision and several processes
are Lightning Fabric's.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lesion_core.errors import RunError
from lesion_core.files import canonical_json, sha256_text
from lesion_core.progress import LOG_SECONDS, say
from lesion_core.record.attempts import Attempts
from lesion_core.record.observe import resident_mb
from lesion_core.settings import Training
from lesion_core.training.batches import batches
from lesion_core.training.checkpoint import copied, load_checkpoint, save_checkpoint
from lesion_core.training.device import resolve_precision, start_fabric
from lesion_core.training.history import HISTORY_START, write_history
from lesion_core.training.step import Stepper
from lesion_core.training.task import TrainingTask

CHECKPOINT = "checkpoint.pt"
TIMED_STEPS = 20
ALLOCATION = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes")
# They change what is written or kept in memory, not what is computed.
NO_IDENTITY = ("checkpoint_steps", "activation_checkpointing", "tensorboard")


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
        resumed: how often it went on from a checkpoint.
        seconds: of training, over all attempts; what was done after an attempt's last checkpoint was done again.
        step_seconds: of one step, the median of the last ones, waiting for its batch included; NaN without any.
        forward_flop: operations of a step's forward passes, counted in a rehearsal.
    """

    epochs: int
    best_epoch: int
    best_value: float
    stopped_early: bool
    precision: str
    history: list[dict[str, float]]
    resumed: int = 0
    seconds: float = 0.0
    step_seconds: float = math.nan
    forward_flop: float = 0.0


class StoppedOnce(Exception):
    """A rehearsal has saved its first checkpoint, from which it goes on when it is called again."""


@dataclass
class _Progress:
    """Where a training stands; with tensors' state, this is the checkpoint."""

    epoch: int = 0
    position: int = 0
    step: int = 0
    rate: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = math.nan
    resumed: int = 0
    seconds: float = 0.0
    timed: list[float] = field(default_factory=list)
    forward_flop: int = 0


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

    A step takes ``batch_size * accumulation`` samples, of which ``batch_size`` are in memory at once; processes that
    torchrun started share each step's samples between them. The last batch of an epoch is left out if it is not full
    (unless it is the only one); the order changes each epoch, so no sample is left out for good. With ``ema_decay`` the
    moving average is what is validated and kept. ``checkpoint.pt`` stays: whoever runs the job deletes it once all
    runs of the job are done. The caller holds the folder's lock.

    Args:
        task: model and data.
        training: optimisation. ``patience`` > 0 ends the training after so many epochs without a better selection
            metric. With 0 epochs, or nothing trainable, only the header of history.csv is written.
        run_dir: history.csv and checkpoint.pt go there.
        seed: of dropout.
        identity: whatever else the result depends on (hashes of inputs): a checkpoint of other data is left.
        attempts: kept with the checkpoint; afterwards it knows what earlier attempts did.

    Raises:
        RunError: no training samples, fewer samples in a batch than processes or than the network needs, a loss,
            gradient or selection metric that is not finite, a broken checkpoint, too little memory.
        SettingsError: activation checkpointing is asked for, and nothing in the model offers it.
        StoppedOnce: with ``rehearsed_steps``, after the first checkpoint.
    """
    attempts = attempts or Attempts(Path(run_dir))
    smallest = getattr(task.module, "smallest_batch", 1)
    try:
        return _Fit(task, training, Path(run_dir), seed, device, identity, attempts).run()
    except RuntimeError as error:
        asked = ALLOCATION.search(str(error))  # of a CPU, torch has no class of its own
        if asked is None and not isinstance(error, torch.OutOfMemoryError):
            raise
        need = "" if asked is None else f", which needs {resident_mb() + int(asked[1]) / 2**20:.0f} MiB or more"
        least = f" (to no less than {smallest})" if smallest > 1 else ""
        raise RunError(
            f"Out of memory with {training.batch_size} samples of {Path(run_dir).name} in a micro-batch{need}",
            file=run_dir,
            remedy=f"lower training.batch_size{least} and raise training.accumulation by as much (a step takes the "
            "same samples), set training.activation_checkpointing: true for SAM, or choose a smaller model.image_size",
        ) from error


class _Fit:
    def __init__(
        self,
        task: TrainingTask,
        training: Training,
        run_dir: Path,
        seed: int,
        device: str,
        identity: str,
        attempts: Attempts,
    ) -> None:
        self.task, self.training, self.run_dir, self.device = task, training, run_dir, device
        self.attempts, self.clock = attempts, time.monotonic()
        self.precision = resolve_precision(training.precision, device)
        self.fabric = start_fabric(device, self.precision)
        parameters = dict(sorted(task.trainable().items()))
        self.epochs = training.epochs if parameters else 0
        self.at = _Progress()
        if not self.epochs:
            return
        self._count_samples()
        self.stepper = Stepper(
            task,
            training,
            parameters,
            self.epochs * self.steps_per_epoch,
            fabric=self.fabric,
            seed=seed,
            device=device,
            check=self._check_finite,
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
        processes, smallest = self.fabric.world_size, getattr(self.task.module, "smallest_batch", 1)
        if min(self.training.batch_size, self.batch_size // processes) < smallest:
            why = ": a batch norm of this network sees one value per channel of an image" if smallest > 1 else ""
            raise RunError(
                f"{processes} process{'es' if processes > 1 else ''} cannot share a batch of {self.batch_size} of "
                f"{self.samples} training samples, each micro-batch of which needs {smallest}{why}",
                file=self.run_dir,
                remedy=f"raise training.batch_size to {smallest * processes} or more (and lower training.accumulation "
                "by as much), or lower compute.processes",
            )
        self.steps_per_epoch = self.samples // self.batch_size
        self.steps = self.training.rehearsed_steps or self.epochs * self.steps_per_epoch

    def run(self) -> FitResult:
        if not self.epochs:
            if self.fabric.is_global_zero:
                write_history(self.run_dir, [])
            self._say("nothing to train")
            return FitResult(0, 0, math.nan, False, self.precision, [])
        if self.precision != self.training.precision:
            self._say(f"computing in {self.precision}, {self.training.precision} needs a GPU that has it")
        self._resume()
        while self.at.step < self.steps and not self._stopped_early():
            self._train_epoch()
            self._validate()
        at, stopped = self.at, self._stopped_early()
        self.task.load_state(self.fabric.broadcast(self.best))
        if self.fabric.is_global_zero:
            self._write_history()
        self.task.module.eval()
        if stopped:
            self._say(f"stopped early, no better epoch in {self.training.patience}")
        self._say(f"best epoch {at.best_epoch}, {self.task.selection_metric} {at.best_value:.4f}")
        self._spend()
        fitted = (at.epoch, at.best_epoch, at.best_value, stopped, self.precision, at.history)
        timed = median(at.timed) if at.timed else math.nan
        return FitResult(*fitted, at.resumed, at.seconds, timed, at.forward_flop / max(1, at.step))

    def _say(self, text: str) -> None:
        if self.fabric.is_global_zero:
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
        began = shown = time.monotonic()
        last = min(self.steps_per_epoch, at.position + self.steps - at.step)
        todo = range(at.position, last)
        given: dict[str, Any] = {"epoch": at.epoch, "steps": todo, "step": at.step, "device": self.device}
        for batch in batches(task, rows, self.batch_size, self.fabric.global_rank, self.fabric.world_size, **given):
            self._step(batch)
            # The first one after a start or a validation waits longer for its batch and for memory.
            if at.position - 1 > todo.start or not at.timed:
                at.timed = [*at.timed[1 - TIMED_STEPS :], time.monotonic() - began]
            if time.monotonic() - shown >= LOG_SECONDS:
                shown = time.monotonic()
                mean = at.sums["train_loss"] / at.position
                place = f"epoch {at.epoch + 1} of {self.epochs}, step {at.position} of {self.steps_per_epoch}"
                self._say(f"{place}, loss {mean:.4f}")
            # After the last step of an epoch the checkpoint waits for the validation.
            if at.step % self.training.checkpoint_steps == 0 and at.position < last:
                self._save()
            began = time.monotonic()

    def _step(self, batch: dict[str, Tensor]) -> None:
        at = self.at
        at.rate = self.stepper.rate
        means = self.stepper.step(batch, at.step, self.batch_size)
        for name, value in means.items():
            key = name if name.startswith("train_") else f"train_{name}"
            at.sums[key] = at.sums.get(key, 0.0) + value
        at.forward_flop += self.stepper.forward_flop
        at.position += 1
        at.step += 1

    def _check_finite(self, value: float, what: str) -> None:
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
        with self.stepper.averaged():
            if self.fabric.is_global_zero:
                with torch.no_grad(), self.fabric.autocast():
                    metrics = task.validate()
                state = copied(task.state())
        value = float(self.fabric.broadcast(metrics.get(task.selection_metric, math.nan)))
        self._check_finite(value, f"selection metric {task.selection_metric}")
        row = dict(zip(HISTORY_START, (at.epoch + 1, at.step, at.rate), strict=True))
        row |= {name: at.sums[name] / at.position for name in sorted(at.sums)}
        row |= {f"val_{name}": float(metrics[name]) for name in sorted(metrics)}
        at.history.append(row)
        at.epoch, at.position, at.sums = at.epoch + 1, 0, {}
        better = value > at.best_value if task.selection_mode == "max" else value < at.best_value
        # Strictly better: of equal epochs the first is kept.
        if at.best_epoch == 0 or better:
            at.best_epoch, at.best_value = at.epoch, value
            self.best = state
        if self.stepper.validated(value):
            self._say(f"no better epoch: learning rate {self.stepper.rate:g} from now on")
        self._save()
        if self.fabric.is_global_zero:
            self._write_history()
        shown = ", ".join(f"{name} {row[name]:.4f}" for name in row if name.startswith(("train_loss", "val_")))
        self._say(f"epoch {at.epoch} of {self.epochs}: {shown}")

    def _write_history(self) -> None:
        write_history(self.run_dir, self.at.history, tensorboard=self.training.tensorboard)

    def _spend(self) -> None:
        """Add the seconds since the last call to those of all attempts."""
        now = time.monotonic()
        self.at.seconds, self.clock = self.at.seconds + now - self.clock, now

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
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
                "stepper": self.stepper.state_dict(),
            },
        )
        if self.training.rehearsed_steps and not self.at.resumed:
            raise StoppedOnce(self.run_dir.name)

    def _resume(self) -> None:
        saved: dict[str, Any] | None = load_checkpoint(self.run_dir / CHECKPOINT, identity=self.identity)
        if saved is None:
            return
        self.at = _Progress(**saved["progress"])
        self.at.resumed += 1
        self.attempts.resume(saved["attempts"])
        self.task.load_state(saved["state"])
        self.best = saved["best"]
        self.stepper.load_state_dict(saved["stepper"])
        self._say(f"resumed after {self.at.step} of {self.steps} steps")
