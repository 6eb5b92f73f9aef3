"""A run's training as a job: processes, threads and lock before it, reference histogram and outputs after it."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lesion_core.models.trained import REFERENCE_KEY
from lesion_core.paths import Layout
from lesion_core.pixels.reference import read_reference
from lesion_core.progress import say
from lesion_core.record.attempts import Attempts
from lesion_core.record.provenance import write_provenance
from lesion_core.seeding import make_deterministic
from lesion_core.settings import Training
from lesion_core.settings.run import Run
from lesion_core.training.checkpoint import folder_lock, input_identity, write_safetensors
from lesion_core.training.device import check_processes, first_process
from lesion_core.training.engine import CHECKPOINT, FitResult, StoppedOnce, fit
from lesion_core.training.task import TrainingTask


@dataclass(frozen=True)
class Job:
    """One run's training.

    Attributes:
        run, run_dir: the run, and its folder, where outputs and checkpoints go.
        layout: the results that it reads.
        device: ``cpu`` or ``cuda``.
        attempts: this one and the earlier ones whose work it goes on with.
    """

    run: Run
    run_dir: Path
    layout: Layout
    device: str
    attempts: Attempts

    def reference(self) -> tuple[dict[str, Tensor], list[Path]]:
        """The reference histogram as a tensor to keep with the weights, and its file; nothing if the run used none."""
        if self.run.harmonization.histogram == "none":
            return {}, []
        path = self.layout.reference(self.run.pixels)
        return {REFERENCE_KEY: torch.from_numpy(read_reference(path))}, [path]

    def fit(self, task: TrainingTask, training: Training, inputs: list[Path], stage: str = "") -> FitResult:
        """Train ``task``; see ``engine.fit``. ``inputs`` decide whether a checkpoint is this job's; ``stage``: a folder
        of its own."""
        return fit(
            task,
            training,
            self.run_dir / stage,
            seed=self.run.seed,
            device=self.device,
            identity=input_identity(self.run, inputs),
            attempts=self.attempts,
        )

    def finish(self, tensors: dict[str, Tensor], inputs: list[Path], extra: dict[str, Any]) -> None:
        """Write settings.yaml, weights.safetensors and provenance.json; the first process alone.

        The checkpoints stay: Snakemake removes the outputs of a job that was stopped, those of its finished runs too,
        which are then written again from their last checkpoints.
        """
        if not first_process():
            return
        run, run_dir = self.run, self.run_dir
        run.save(run_dir)
        write_safetensors(run_dir / "weights.safetensors", tensors)
        write_provenance(run_dir, run, inputs=inputs, device=self.device, attempts=self.attempts, extra=extra)


@contextmanager
def started(run: Run, run_dir: Path, root: Path, device: str) -> Iterator[Job]:
    """The job, under the run's number of threads, deterministic kernels, and the lock of its folder.

    Raises:
        RunError: not as many processes were started as the run's settings say.
    """
    job = Job(run, Path(run_dir), Layout(Path(root)), device, Attempts(root))
    check_processes(run.processes)
    make_deterministic(run.threads)
    with folder_lock(job.run_dir):
        yield job


def parameter_counts(model: torch.nn.Module, learnt: dict[str, torch.nn.Parameter]) -> dict[str, Any]:
    """``parameters`` and ``trainable_parameters``, for the provenance."""
    return {
        "parameters": sum(item.numel() for item in model.parameters()),
        "trainable_parameters": sum(item.numel() for item in learnt.values()),
    }


def fit_extra(task: TrainingTask, result: FitResult, metric: str, best: float | None) -> dict[str, Any]:
    """What is worth knowing of a fit, for the provenance; ``best`` is the ``metric`` of the selected epoch."""
    return {
        **parameter_counts(task.module, task.trainable()),
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        f"best_validation_{metric}": best,
        "precision": result.precision,
        "resumed": result.resumed,
        "training_seconds": round(result.seconds, 3),
        "step_seconds": None if math.isnan(result.step_seconds) else round(result.step_seconds, 4),
    } | ({"step_forward_tflop": round(result.forward_flop / 1e12, 4)} if result.forward_flop else {})


def delete_checkpoints(run_dirs: Iterable[Path]) -> None:
    """Delete the checkpoints of a job's runs, all of which are done; the first process only."""
    if first_process():
        for checkpoint in (path for run_dir in run_dirs for path in run_dir.rglob(CHECKPOINT)):
            checkpoint.unlink()


def train_on(train: Callable[[], None]) -> None:
    """Call ``train`` until it is done: a rehearsal stops at its first checkpoint, as if killed, and goes on from it."""
    while True:
        try:
            return train()
        except StoppedOnce as stopped:
            say(f"{stopped}: stopped at its first checkpoint, as each training of a rehearsal is")
        gc.collect()  # the stopped training's network
