"""A small task for the engine's tests: no batch norm and no dropout unless asked for, so that parts add up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lesion_core.files import read_csv
from lesion_core.seeding import generator, seed_torch
from lesion_core.settings import Training
from lesion_core.training.checkpoint import write_safetensors
from lesion_core.training.engine import fit
from lesion_core.training.task import TrainingTask

SETTINGS = {
    "epochs": 2,
    "batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 0.05,
    "weight_decay": 0.01,
    "momentum": 0.9,
    "schedule": "cosine",
    "warmup_fraction": 0.1,
    "gradient_clip": 1.0,
    "precision": "fp32",
    "checkpoint_steps": 2,
    "patience": 0,
}


def training(**changes) -> Training:
    return Training(**{**SETTINGS, **changes})


class Curve(TrainingTask):
    """Regression of a synthetic curve in float64, so that equality is not hidden by rounding.

    Args:
        dropout, norm: layers to add. row_keyed: see ``TrainingTask``. values: planted metrics of the validations.
        fail_at: the step whose batch is interrupted.
    """

    selection_metric = "error"
    selection_mode = "min"

    def __init__(
        self,
        *,
        samples: int = 18,
        dropout: float = 0.0,
        norm: bool = False,
        row_keyed: bool = False,
        values: list[float] | None = None,
        fail_at: int = -1,
    ) -> None:
        seed_torch(0, "curve")
        norms = [torch.nn.BatchNorm1d(8)] if norm else []
        self.module = torch.nn.Sequential(
            torch.nn.Linear(3, 8), *norms, torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(8, 1)
        ).double()
        self.samples, self.row_keyed, self.fail_at = samples, row_keyed, fail_at
        self.values = None if values is None else iter(values)
        self.asked: list[tuple[int, list[int]]] = []
        self.taken: list[int] = []
        self.parts: list[int] = []

    def trainable(self):
        return dict(self.module.named_parameters())

    def epoch_rows(self, epoch):
        return generator(0, "order", epoch).permutation(self.samples)

    def batch(self, rows, epoch, step):
        if step == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append((step, rows.tolist()))
        x = np.stack([generator("x", epoch, int(row)).standard_normal(3) for row in rows])
        y = np.sin(x.sum(axis=1, keepdims=True))
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(y), "row": torch.from_numpy(np.asarray(rows))}

    def loss(self, batch):
        self.parts.append(len(batch["x"]))
        errors = self.module(batch["x"]) - batch["y"]
        error = errors.square().mean()
        self.taken += batch["row"].tolist()
        return error, {"absolute": float(errors.detach().abs().mean())}

    def validate(self):
        assert not self.module.training
        if self.values is not None:
            return {"error": next(self.values)}
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
        return {"error": float((self.module(x) - x.sum(dim=1, keepdim=True).sin()).square().mean())}

    def state(self):
        return self.module.state_dict()

    def load_state(self, state):
        self.module.load_state_dict(state)


def run(task: Curve, folder: Path, seed: int = 1, **changes) -> Curve:
    """``task``, trained in ``folder``."""
    fit(task, training(**changes), folder, seed=seed, device="cpu")
    return task


def final_bytes(task: Curve, folder: Path) -> tuple[bytes, bytes]:
    """Of the weights and the history."""
    write_safetensors(folder / "end.safetensors", task.state())
    return (folder / "end.safetensors").read_bytes(), (folder / "history.csv").read_bytes()


def histories_agree(*folders: Path, tolerance: float) -> None:
    """Every number of two histories, up to rounding."""
    for one, two in zip(*(read_csv(folder / "history.csv") for folder in folders), strict=True):
        assert one.keys() == two.keys()
        assert all(abs(float(one[name]) - float(two[name])) <= tolerance for name in one)


def difference(one: Curve, two: Curve) -> float:
    """Largest difference between two tasks' states."""
    pairs = zip(one.state().values(), two.state().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
