"""The engine's view of pretraining a SAM on scenes: every step teaches no prompt, a box, a click, and corrections.

The recipe follows SAM (Kirillov et al. 2023, section 3 and appendix A): several prompts per image, since the decoder is
cheap beside the encoder; further clicks where the prediction is wrong; one click teaches the best of three masks; the
IoU head learns the IoU reached by squared error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lesion_core.acquire.synthetic.scenes import OBJECTS
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.models.sam.prompts import Prompts, box_of, oracle_box, oracle_clicks, oracle_correction
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.models.trainable import finish
from lesion_core.pixels.augment import Augmenter
from lesion_core.seeding import generator
from lesion_core.settings import Pretrain
from lesion_core.training.losses import bce_loss, dice_loss, resize_target
from lesion_core.training.scenes import Scenes
from lesion_core.training.segmentation_task import BINARY, BOX_JITTER
from lesion_core.training.task import TrainingTask

KINDS = ("none", "box", "box_corrected", "click", "click_corrected")
SESSIONS = ("box", "click")
CORRECTIONS = 2  # further clicks after a box or a click
SMALLEST = 64  # pixels: what augmentation leaves less of is not asked for
THRESHOLD = 0.5


class PromptableTask(TrainingTask):
    """Scenes, prompts, losses and validation.

    Without a prompt the first object of a scene is meant. A box means its object. One click means the outermost object
    under it, and mask 0 is taught that; the best of masks 1 to 3 is taught the object that was asked for, which may
    be nested in it, and further clicks then say which one is meant. Selection is by the mean Dice over ``KINDS``.
    """

    selection_metric = "dice"
    selection_mode: Literal["min", "max"] = "max"
    row_keyed = True
    module: Any

    def __init__(self, model: SamSegmenter, data: Scenes, settings: Pretrain, *, device: str) -> None:
        self.module = model.to(device)
        self.data, self.settings, self.device = data, settings, device
        self.augment = Augmenter(settings.augmentation)
        self.train_rows, self.val_rows = np.arange(data.training), np.arange(data.training, len(data.images))

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """The training rows in an order that depends on (seed, epoch) alone."""
        return generator(self.settings.seed, "order", epoch).permutation(self.train_rows)

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """Augmented scenes with what is asked of them; all of a sample depends on (seed, epoch, row) alone.

        Returns:
            ``images`` uint8 (B, 3, S, S); ``first`` uint8 (B, S, S) soft mask; for the two sessions, by a box and by a
            click, ``asked`` and ``outermost`` uint8 (B, 2, S, S), ``boxes`` (B, 4), ``points`` (B, 1, 2),
            ``point_labels`` (B, 1), ``keys`` int64 (B, 2) of the corrections.
        """
        seed = self.settings.seed
        scenes = (
            self.augment(self.data.images[row], self.data.masks(row), seed, "augment", epoch, int(row)) for row in rows
        )
        return _stacked(
            _sample(*scene, generator(seed, "ask", epoch, int(row)), BOX_JITTER)
            for scene, row in zip(scenes, rows, strict=True)
        )

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean over no prompt and the two sessions of Dice + BCE, and of the IoU head's squared error."""
        losses: dict[str, list[Tensor]] = {"none": [], "box": [], "click": []}
        errors = []
        for kind, logits, predicted, asked, outermost in self._decoded(batch):
            targets = torch.stack([outermost] + [asked] * (logits.shape[1] - 1), dim=1).float() / 255.0
            targets = resize_target(targets, (logits.shape[-2], logits.shape[-1]))
            each = dice_loss(logits, targets) + bce_loss(logits, targets)
            loss = each[:, 0].mean()
            if kind == "click":
                # One click is ambiguous: only the best of the three alternatives is taught, as in SAM.
                loss = loss + each[:, 1:].min(dim=1).values.mean()
            with torch.no_grad():
                guess, truth = logits > 0, targets >= 0.5
                reached = (guess & truth).sum(dim=(-2, -1)) / (guess | truth).sum(dim=(-2, -1)).clamp(min=1)
            errors.append((predicted - reached).square().mean())
            losses[kind.removesuffix("_corrected")].append(loss)
        error = torch.stack(errors).mean()
        means = {name: torch.stack(parts).mean() for name, parts in losses.items()}
        parts = {f"loss_{name}": float(value.detach()) for name, value in means.items()}
        total = torch.stack(list(means.values())).mean() + error
        return total, parts | {"iou_head_error": float(error.detach())}

    def validate(self) -> dict[str, float]:
        """Mean Dice per scene of mask 0 at image size: of each of ``KINDS``, and ``dice``, their mean.

        Corrected masks are those after the last click.
        """
        scores: dict[str, list[float]] = {kind: [] for kind in KINDS}
        size, seed = self.settings.training.batch_size, self.settings.seed
        for start in range(0, len(self.val_rows), size):
            rows = self.val_rows[start : start + size]
            batch = _stacked(
                _sample(self.data.images[row], self.data.masks(row), generator(seed, "validation", int(row)))
                for row in rows
            )
            last: dict[str, tuple[np.ndarray, Tensor]] = {}
            with torch.no_grad():
                for kind, logits, _, _, outermost in self._decoded({k: v.to(self.device) for k, v in batch.items()}):
                    last[kind] = finish(logits[:, :1], outermost.shape[-1]) >= THRESHOLD, outermost
            for kind, (found, truth) in last.items():
                masks = truth.cpu().numpy() >= BINARY
                scores[kind] += [float(dice(confusion(*pair))) for pair in zip(found, masks, strict=True)]
        means = {f"dice_{kind}": float(np.mean(found)) for kind, found in scores.items()}
        return {"dice": float(np.mean(list(means.values()))), **means}

    def _decoded(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, Tensor, Tensor]]:
        """Kind, logits (B, 4, h, w), estimated IoU (B, 4), soft masks (B, S, S) asked for and meant by mask 0."""
        embeddings = self.module.encode(batch["images"].float())
        yield "none", *self.module.decode_all(embeddings), batch["first"], batch["first"]
        starts = {
            "box": Prompts(boxes=batch["boxes"]),
            "click": Prompts(points=batch["points"], point_labels=batch["point_labels"]),
        }
        for number, session in enumerate(SESSIONS):
            prompts, asked = starts[session], batch["asked"][:, number]
            logits, predicted = self.module.decode_all(embeddings, prompts)
            yield session, logits, predicted, asked, batch["outermost"][:, number]
            for turn in range(CORRECTIONS):
                prompts = _corrected(prompts, logits, asked, batch["keys"][:, number], turn)
                logits, predicted = self.module.decode_all(embeddings, prompts)
                yield f"{session}_corrected", logits, predicted, asked, asked


def _sample(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator, jitter: float = 0.0) -> dict[str, Any]:
    """One scene with the objects that its two sessions ask for; see ``PromptableTask.batch``.

    Args:
        image: uint8 (S, S, 3).
        masks: uint8 (S, S, 4), soft; of an object that the scene lacks, empty.
        jitter: of the box, see ``oracle_box``.
    """
    objects = np.moveaxis(masks, -1, 0)
    binary = objects >= BINARY
    seen = [number for number in range(OBJECTS) if binary[number].sum() >= SMALLEST] or [0]
    box, click = rng.choice(seen, 2)
    inner = binary[click].sum()
    outermost = 0 if 2 * (binary[click] & binary[0]).sum() > inner else click
    points, labels = oracle_clicks(binary[click], 1, rng)
    return {
        "images": np.moveaxis(image, -1, 0),
        "first": objects[0],
        "asked": objects[[box, click]],
        "outermost": objects[[box, outermost]],
        "boxes": oracle_box(binary[box], jitter, rng) if jitter else box_of(binary[box]),
        "points": points,
        "point_labels": labels,
        "keys": rng.integers(1 << 62, size=len(SESSIONS)),
    }


def _stacked(samples: Iterator[dict[str, Any]]) -> dict[str, Tensor]:
    every = list(samples)
    return {name: torch.from_numpy(np.stack([sample[name] for sample in every])) for name in every[0]}


def _corrected(prompts: Prompts, logits: Tensor, asked: Tensor, keys: Tensor, turn: int) -> Prompts:
    """``prompts`` and one more click per image, where mask 0 of ``logits`` is wrong about the object asked for."""
    masks = asked.cpu().numpy() >= BINARY
    guesses = finish(logits.detach()[:, :1], masks.shape[-1]) >= THRESHOLD
    clicks = [
        oracle_correction(mask, guess, generator("correction", int(key), turn))
        for mask, guess, key in zip(masks, guesses, keys, strict=True)
    ]
    points = torch.from_numpy(np.stack([point for point, _ in clicks]))[:, None].to(asked.device)
    labels = torch.tensor([[label] for _, label in clicks], device=asked.device)
    if prompts.points is not None and prompts.point_labels is not None:
        points = torch.cat([prompts.points, points], dim=1)
        labels = torch.cat([prompts.point_labels, labels], dim=1)
    return Prompts(boxes=prompts.boxes, points=points, point_labels=labels)
