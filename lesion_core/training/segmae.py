"""Training of SegMAE (paper D, section 3.3): stage 1 reconstructs, stage 2 segments and reconstructs by turns."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lesion_core.errors import RunError
from lesion_core.models.segmae import SegMAE
from lesion_core.seeding import generator
from lesion_core.settings import Reconstruction
from lesion_core.training.losses import weighted_patches
from lesion_core.training.segmentation_task import SegmentationTask

STAGE_1 = "stage_1"


def kept_patches(patches: int, ratio: float, rng: np.random.Generator | None) -> np.ndarray:
    """Numbers of the patches that are seen, ascending: int64, at least one; ``ratio`` of them are masked.

    Drawn at random (paper D, section 3.2); without ``rng`` evenly spaced along the rows, always the same ones: ours for
    the deterministic mask of section 3.4, which the paper does not show.
    """
    seen = max(1, min(patches - 1, round(patches * (1.0 - ratio))))
    return np.arange(seen) * patches // seen if rng is None else np.sort(rng.permutation(patches)[:seen])


def reconstruction_loss(model: SegMAE, images: Tensor, keep: Tensor, settings: Reconstruction) -> Tensor:
    """Mean squared error of masked patches, weighted as the patch-wise loss (temperature 0: equally)."""
    predicted, true = model.reconstruct(images.float(), keep)
    return weighted_patches((predicted - true).square().mean(dim=-1), settings.temperature).mean()


class SegMAETask(SegmentationTask):
    """Stage 2: each cycle is a segmentation step and a reconstruction step on the same images.

    An epoch shows each training image once in either. Segmentation steps see every patch (masking them is ours to
    leave out: the upsampler needs a token at every place).
    """

    @property
    def reconstruction(self) -> Reconstruction:
        """The MAE branch's settings."""
        assert self.spec.reconstruction is not None
        return self.spec.reconstruction

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Each batch's rows twice in succession, so that step 2 k segments what step 2 k + 1 reconstructs."""
        rows = super().epoch_rows(epoch)
        size = self.spec.training.batch_size * self.spec.training.accumulation
        if len(rows) < size:
            raise RunError(
                f"{len(rows)} training images do not fill a batch of {size}: SegMAE's steps take turns over whole ones",
                remedy="lower training.batch_size",
            )
        whole = rows[: len(rows) // size * size].reshape(-1, size)
        return np.repeat(whole, 2, axis=0).ravel()

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """As for segmentation; at odd steps also ``keep`` (B, K) int64, the patches that are seen."""
        batch = super().batch(rows, epoch, step)
        if step % 2 == 0:
            return batch
        return batch | {"keep": self.keep(rows, f"epoch {epoch}")}

    def keep(self, rows: np.ndarray, when: str) -> Tensor:
        """Patches that are seen: drawn by (seed, when, row) alone, or those of every image."""
        settings = self.reconstruction
        designated = settings.masking == "designated"
        sources = [None if designated else generator(self.seed, "mask", when, int(row)) for row in rows]
        drawn = [kept_patches(self.module.patches, settings.mask_ratio, source) for source in sources]
        return torch.from_numpy(np.stack(drawn))

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """L_seg or the reconstruction loss, by the kind of step.

        The history's means are over all steps, of which each kind is a half: hence the 2.
        """
        if "keep" in batch:
            loss = reconstruction_loss(self.module, batch["images"], batch["keep"], self.reconstruction)
            return loss, {"reconstruction_loss": 2.0 * float(loss.detach())}
        loss, parts = super().loss(batch)
        return loss, {name: 2.0 * value for name, value in parts.items()}


class ReconstructionTask(SegMAETask):
    """Stage 1: encoder and MAE decoder learn from training images alone; no mask is looked at."""

    selection_metric = "reconstruction_loss"
    selection_mode: Literal["min", "max"] = "min"

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Encoder and MAE decoder."""
        return self.module.reconstruction_parameters()

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Training rows in an order of their own."""
        return generator(self.seed, "stage 1 order", epoch).permutation(self.train_rows)

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """Augmented ``images`` and the patches that are seen."""
        images = np.stack([self._augmented(int(row), epoch)[0] for row in rows])
        return {"images": torch.from_numpy(images).permute(0, 3, 1, 2), "keep": self.keep(rows, f"stage 1 {epoch}")}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The reconstruction loss."""
        return reconstruction_loss(self.module, batch["images"], batch["keep"], self.reconstruction), {}

    def validate(self) -> dict[str, float]:
        """``reconstruction_loss`` of the validation images, each with a mask of its own that never changes."""
        total, size = 0.0, self.spec.training.batch_size
        for start in range(0, len(self.val_rows), size):
            rows = self.val_rows[start : start + size]
            images = torch.from_numpy(np.stack([self.data.image(row) for row in rows])).permute(0, 3, 1, 2)
            keep = self.keep(rows, "validation").to(self.device)
            with torch.no_grad():
                loss = reconstruction_loss(self.module, images.to(self.device), keep, self.reconstruction)
            total += float(loss) * len(rows)
        return {"reconstruction_loss": total / len(self.val_rows)}
