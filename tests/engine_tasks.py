"""A small task for the engine's tests: no batch norm and no dropout unless asked for, so that parts add up."""

from __future__ import annotations

import numpy as np
import torch

from lesion_core.seeding import generator, seed_torch
from lesion_core.settings import Training

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


class Curve:
    """Regression of a made curve in float64, so that equality is not hidden by rounding.

    Args:
        dropout, norm: layers to add. row_keyed: see ``TrainingTask``. room: samples that "fit into memory": a larger
        part raises ``torch.cuda.OutOfMemoryError`` after its forward pass.
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
        room: int | None = None,
        fail_at: int = -1,
    ) -> None:
        seed_torch(0, "curve")
        norms = [torch.nn.BatchNorm1d(8)] if norm else []
        self.module = torch.nn.Sequential(
            torch.nn.Linear(3, 8), *norms, torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(8, 1)
        ).double()
        self.samples, self.row_keyed, self.room, self.fail_at = samples, row_keyed, room, fail_at
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
        if self.room is not None and len(batch["x"]) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (planted)")
        self.taken += batch["row"].tolist()
        return error, {"absolute": float(errors.detach().abs().mean())}

    def validate(self):
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
        return {"error": float((self.module(x) - x.sum(dim=1, keepdim=True).sin()).square().mean())}

    def state(self):
        return self.module.state_dict()

    def load_state(self, state):
        self.module.load_state_dict(state)


def difference(one: Curve, two: Curve) -> float:
    """Largest difference between two tasks' states."""
    pairs = zip(one.state().values(), two.state().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
