"""The engine's view of a segmenter's training: samples, prompts, loss, validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lesion_core.errors import RunError
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.models.sam.prompts import Prompts, click_draws, click_session, oracle_prompts
from lesion_core.models.trainable import Segmenter, finish
from lesion_core.pixels.augment import Augmenter
from lesion_core.pixels.datasets import Harmonized
from lesion_core.seeding import generator
from lesion_core.settings import SegmentationMethod
from lesion_core.training.embeddings import EmbeddingCache, read_embeddings
from lesion_core.training.losses import segmentation_loss
from lesion_core.training.task import TrainingTask

# A training box is never exact, so that boxes from elsewhere work at test time.
BOX_JITTER = 0.1
# The refined masks are soft, 0..255; this is where the binary mask has its edge.
BINARY = 128
PARTS = ("boxes", "points", "point_labels")
LOSS_UPSAMPLING = 2


def prompt_tensors(
    kind: str, masks: np.ndarray, *, jitter: float, seed: int, keys: Sequence[int | str]
) -> dict[str, Tensor]:
    """What a batch needs for its prompts; empty for ``none``.

    Args:
        kind: a ``settings.TrainingPrompt``.
        masks: soft, uint8 (B, S, S).
        jitter, seed, keys: see ``oracle_prompts``.

    Returns:
        ``boxes``, or ``points`` and ``point_labels`` (the first click); for a session of clicks also ``click_draws``
        (B, K - 1), since the later clicks depend on the model.
    """
    if kind == "none":
        return {}
    prompts = oracle_prompts(masks >= BINARY, kind, jitter=jitter, seed=seed, keys=keys)
    tensors = {name: getattr(prompts, name) for name in PARTS if getattr(prompts, name) is not None}
    draws = click_draws(kind, seed=seed, keys=keys)
    return tensors | ({"click_draws": torch.from_numpy(draws)} if draws.size else {})


def batch_prompts(module: Any, embeddings: Tensor, batch: Mapping[str, Tensor], threshold: float) -> Prompts | None:
    """A batch's prompts, from ``prompt_tensors``; of a session of clicks all of them.

    The predictions before a session's last click only place clicks, without gradients.

    Args:
        module: a segmenter that can ``decode`` the ``embeddings`` (B, C, g, g).
        batch: ``masks`` (B, 1, S, S) in 0..255, and ``prompt_tensors``.
        threshold: of the probability, 0..1, where a session's predictions are cut.
    """
    parts = {name: batch[name] for name in PARTS if name in batch}
    if not parts:
        return None
    if "click_draws" not in batch:
        return Prompts(**parts)
    masks = batch["masks"][:, 0].cpu().numpy() >= BINARY

    def predict(given: Prompts) -> np.ndarray:
        with torch.no_grad():
            return finish(module.decode(embeddings.detach(), given), masks.shape[-1]) >= threshold

    return click_session(Prompts(**parts), masks, batch["click_draws"].cpu().numpy(), predict)


def batch_logits(module: Any, batch: Mapping[str, Tensor], threshold: float) -> Tensor:
    """The segmenter's logits (B, 1, s, s) for a batch.

    Args:
        module: a segmenter; for prompts or for stored embeddings it must ``encode`` and ``decode``.
        batch: ``images`` (B, 3, S, S) in 0..255 or, in their place, ``embeddings`` (B, C, g, g); see ``batch_prompts``.
        threshold: see ``batch_prompts``.
    """
    if "embeddings" in batch:
        embeddings = batch["embeddings"].float()
    elif any(name in batch for name in PARTS):
        embeddings = module.encode(batch["images"].float())
    else:
        return module(batch["images"].float(), None)
    return module.decode(embeddings, batch_prompts(module, embeddings, batch, threshold))


class SegmentationTask(TrainingTask):
    """The engine's view of a segmenter's training.

    Validation is the mean per-image Dice at the model's input size, with the run's threshold, on validation images.

    Args:
        model: maps images (B, 3, S, S) in 0..255 to logits (B, 1, s, s).
        data: harmonized images and soft masks of size S.
        spec: prompt, loss, augmentation, batch size.
        threshold: of the probability, 0..1.
        seed: of order, augmentation and prompts.
        cache: of image embeddings, where the method trains on stored ones.

    Raises:
        RunError: no training or no validation image has a mask.
    """

    selection_metric = "dice"
    selection_mode: Literal["min", "max"] = "max"
    row_keyed = True
    module: Any
    spec: Any

    def __init__(
        self,
        model: Segmenter,
        data: Harmonized,
        spec: SegmentationMethod,
        *,
        threshold: float,
        seed: int,
        device: str,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.module = model.to(device)
        self.data, self.spec = data, spec
        self.augment = Augmenter(spec.augmentation)
        self.threshold, self.seed, self.device = threshold, seed, device
        self.train_rows = data.rows("train", with_mask=True)
        self.val_rows = data.rows("val", with_mask=True)
        for split, rows in (("training", self.train_rows), ("validation", self.val_rows)):
            if not len(rows):
                raise RunError(f"No {split} image of {data.name} has a mask", remedy="check the splits and train_on")
        self.embeddings = None if cache is None else cache.fill(data, np.concatenate([self.train_rows, self.val_rows]))

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """The training rows in an order that depends on (seed, epoch) alone."""
        return generator(self.seed, "order", epoch).permutation(self.train_rows)

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """Augmented samples: images and masks uint8 (B, 3, S, S) and (B, 1, S, S), and the prompts' tensors.

        A sample's augmentation depends on (seed, epoch, row) alone. With a cache, ``embeddings`` stand for the images.
        """
        changed = [self._augmented(int(row), epoch) for row in rows]
        masks = np.stack([mask for _, mask in changed])
        prompts = self._prompts(masks, rows, f"epoch {epoch}", BOX_JITTER)
        return self._inputs([image for image, _ in changed], masks, rows) | prompts

    def _augmented(self, row: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.data.image(row), self.data.soft_mask(row)
        if self.embeddings is not None:
            return image, mask
        return self.augment(image, mask, self.seed, "augment", epoch, row)

    def _inputs(self, images: list[np.ndarray], masks: np.ndarray, rows: np.ndarray) -> dict[str, Tensor]:
        """Pixels (or stored embeddings) and masks of a batch as tensors."""
        given = {"masks": torch.from_numpy(masks)[:, None]}
        if self.embeddings is not None:
            return given | {"embeddings": read_embeddings(self.embeddings[int(row)] for row in rows)}
        return given | {"images": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """L_seg of a batch.

        Logits coarser than the image are upsampled twice, not to the full size: the loss then sees the edges between
        coarse pixels, as the final upsampling will show them, at a quarter (SAM) of the full size's cost; below that,
        the area average of the soft mask says how much lesion a pixel holds.
        """
        logits = batch_logits(self.module, batch, self.threshold)
        size = batch["masks"].shape[-1]
        side = min(size, LOSS_UPSAMPLING * logits.shape[-1])
        if side != logits.shape[-1]:
            logits = functional.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
        return segmentation_loss(logits, batch["masks"].float() / 255.0, self.spec.loss)

    def validate(self) -> dict[str, float]:
        """``dice``: mean per-image Dice of the validation images (both masks empty: 1)."""
        scores = []
        size = self.spec.training.batch_size
        for start in range(0, len(self.val_rows), size):
            rows = self.val_rows[start : start + size]
            masks = np.stack([self.data.soft_mask(row) for row in rows])
            batch = self._inputs([self.data.image(row) for row in rows], masks, rows)
            batch |= self._prompts(masks, rows, "validation", 0.0)
            with torch.no_grad():
                logits = batch_logits(
                    self.module, {name: value.to(self.device) for name, value in batch.items()}, self.threshold
                )
            lesions = finish(logits, masks.shape[-1]) >= self.threshold
            scores += [
                float(dice(confusion(lesion, mask >= BINARY))) for lesion, mask in zip(lesions, masks, strict=True)
            ]
        return {"dice": float(np.mean(scores))}

    def _prompts(self, masks: np.ndarray, rows: np.ndarray, when: str, jitter: float) -> dict[str, Tensor]:
        """The oracle prompts that the method trains with, from soft masks (B, S, S)."""
        entries = [self.data.index[int(row)] for row in rows]
        keys = [f"{when}/{entry['dataset']}/{entry['image_id']}" for entry in entries]
        return prompt_tensors(self.spec.model.prompt, masks, jitter=jitter, seed=self.seed, keys=keys)
