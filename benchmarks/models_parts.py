"""What the sections of `make bench-models` share: a row of its table, random models, inputs, one step's gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor

from benchmarks.stopwatch import Taken
from benchmarks.turns import goal
from lesion_core.models.sam import segmenter as built
from lesion_core.models.sam.network import build_sam
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.seeding import generator, seed_torch
from lesion_core.training.losses import dice_loss

VARIANT = "sam_vit_b"
HEADINGS = ("What", "Published, s", "Ours, s", "Wall ratio", "CPU ratio", "Published, MB", "Ours, MB", "Error")


@dataclass
class Row:
    """One line of the table: two sides of a ratio, what they gave, and what is wanted."""

    name: str
    published: Taken
    ours: Taken
    error: float
    wanted: float
    memory: float | None = None

    def cells(self) -> tuple[str, ...]:
        wall, cpu = self.published.wall / self.ours.wall, self.published.cpu / self.ours.cpu
        saved = f"{self.ours.megabytes:.0f}"
        if self.memory is not None:
            saved += f" ({goal(self.published.megabytes / max(self.ours.megabytes, 1e-9), self.memory)})"
        return (
            self.name,
            f"{self.published.wall:.2f}",
            f"{self.ours.wall:.2f}",
            goal(wall, self.wanted),
            f"{cpu:.2f}",
            f"{self.published.megabytes:.0f}",
            saved,
            f"{self.error:.1e}",
        )


def random_sam(variant: str, size: int) -> torch.nn.Module:
    """Random weights with tables and biases that are not zero; time does not depend on what they are."""
    seed_torch("bench", variant)
    sam = build_sam(variant, image_size=size)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return sam


def pixels(count: int, size: int) -> Tensor:
    """Images (count, 3, size, size) in 0..255."""
    return torch.from_numpy(generator("bench", size).integers(0, 256, (count, 3, size, size))).float()


def relative(ours: Tensor, published: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((ours - published).abs().max() / published.abs().max())


def adapted(sam: torch.nn.Module, *, published: bool = False, **options: str | int) -> SamSegmenter:
    """A copy of ``sam`` with random adapters, the same ones for every call; in our attention or the published one."""
    seed_torch("bench", "adapters")
    with mock.patch.object(built, "use_attention") if published else nullcontext():
        return SamSegmenter(copy.deepcopy(sam), **options)


def gradients(segmenter: SamSegmenter, forward: Callable[[], Tensor]) -> Tensor:
    """One training step without the optimizer: the gradients of all that is learnt, in one vector."""
    for _, parameter in segmenter.trainable_parameters():
        parameter.grad = None
    logits = forward()
    target = torch.zeros_like(logits)
    target[..., logits.shape[-1] // 4 : logits.shape[-1] // 2, :] = 1.0
    dice_loss(logits, target).mean().backward()
    return torch.cat([parameter.grad.flatten() for _, parameter in segmenter.trainable_parameters()])
