"""Pretraining of the embedded foundation model sam_vit_t: synthetic images only, with no prompt, boxes and clicks.

The recipe follows SAM (Kirillov et al. 2023, section 3 and appendix A): a prompt is simulated for each batch, the
single-mask token and the best of the three multi-mask tokens are trained with Dice + BCE, the IoU head with squared
error against the IoU reached.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lesion_core.acquire.synthetic import draw_batch
from lesion_core.errors import SettingsError
from lesion_core.files import canonical_json, read_json, sha256_file, sha256_text, write_csv, write_json
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.models.sam.network import VARIANTS, build_sam
from lesion_core.models.sam.prompts import Prompts, oracle_correction
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.models.trainable import finish
from lesion_core.pixels.datasets import INDEX_COLUMNS, Harmonized
from lesion_core.progress import say
from lesion_core.record.provenance import code_hash, computing_versions
from lesion_core.seeding import generator, make_deterministic, seed_torch
from lesion_core.settings import Pretrain
from lesion_core.training.checkpoint import folder_lock, write_safetensors
from lesion_core.training.engine import fit
from lesion_core.training.losses import bce_loss, dice_loss, resize_target
from lesion_core.training.segmentation_task import BINARY, SegmentationTask, batch_prompts, prompt_tensors

NAME = "sam_vit_t"
CHUNK_IMAGES = 50
SECOND_CLICK = 0.5
IOU_WEIGHT = 1.0
PROMPT_KINDS = ("none", "oracle_box", "oracle_click_1", "second_click")
BOX_JITTER = 0.1


def pretrain(settings: Pretrain, out: Path, work: Path, device: str, threads: int) -> None:
    """Train sam_vit_t from random weights and write it as fp16 safetensors, what is known of it as JSON beside it.

    Args:
        settings: images, optimisation, share of prompts.
        out: the weights, e.g. ``sam_vit_t.safetensors``; ``<out>.json`` is written beside it.
        work: synthetic images, checkpoint and history.csv.
        threads: torch threads; on the CPU the bytes depend on it.

    Raises:
        SettingsError: ``image_size`` is not the variant's.
        RunError: see ``engine.fit``.
    """
    if settings.image_size != VARIANTS[NAME].image_size:
        raise SettingsError(
            f"{NAME} is made for {VARIANTS[NAME].image_size} pixels, not {settings.image_size}",
            remedy="change pretrain.image_size",
        )
    make_deterministic(threads)
    with folder_lock(work):
        data = synthetic_dataset(settings, work / "images")
        task = PretrainTask(build(settings.seed), data, settings, device=device)
        made_by = [code_hash("lesion_core.training.pretrain"), computing_versions()]
        identity = sha256_text(canonical_json([settings.model_dump(), threads, *made_by]))
        result = fit(task, settings.training, work, seed=settings.seed, device=device, identity=identity)
        sam = task.module.sam
        half = {name: value.half() if value.is_floating_point() else value for name, value in sam.state_dict().items()}
        sam.load_state_dict(half)
        write_safetensors(out, half)
        write_json(
            out.with_name(out.name + ".json"),
            {
                "settings": settings.model_dump(),
                "threads": threads,
                "device": device,
                "epochs": result.epochs,
                "best_epoch": result.best_epoch,
                "scores": {name: round(value, 4) for name, value in task.validate().items()},
                "parameters": sum(item.numel() for item in sam.parameters()),
                "sha256": sha256_file(out),
                "torch": torch.__version__,
                "code": made_by[0],
            },
        )


def build(seed: int) -> SamSegmenter:
    """sam_vit_t at a random start, all of it learnt."""
    seed_torch(seed, "pretrain", "weights")
    model = SamSegmenter(build_sam(NAME), adapter="none")
    model.sam.requires_grad_(True)
    model.fix_trainable()
    return model


def synthetic_dataset(settings: Pretrain, folder: Path) -> Harmonized:
    """Synthetic images with masks as a harmonized dataset, drawn on the first call; the last are for validation."""
    size, count = settings.image_size, settings.images + settings.validation_images
    identity = canonical_json([settings.seed, settings.images, count, size, code_hash("lesion_core.acquire.synthetic")])
    done = folder / "images.json"
    if not (done.exists() and read_json(done, str) == identity):
        done.unlink(missing_ok=True)
        _draw_all(settings.seed, count, size, folder)
        blank = dict.fromkeys(INDEX_COLUMNS, "") | {"width": size, "height": size}
        rows = [
            blank | {"row": row, "mask_row": row, "image_id": f"synthetic_{row}", "split": split}
            for row, split in enumerate(["train"] * settings.images + ["val"] * settings.validation_images)
        ]
        write_csv(folder / "index.csv", INDEX_COLUMNS, rows)
        write_json(done, identity)
    return Harmonized.open(folder, "synthetic")


def _draw_all(seed: int, count: int, size: int, folder: Path) -> None:
    """Draw the images in worker processes; the bytes do not depend on how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, size, size, 3))
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, (count, size, size))
    chunks = [range(start, min(start + CHUNK_IMAGES, count)) for start in range(0, count, CHUNK_IMAGES)]
    workers = min(len(chunks), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        drawn = pool.map(draw_batch, [seed] * len(chunks), chunks, [size] * len(chunks))
        for chunk, (pixels, truth, _) in zip(chunks, drawn, strict=True):
            images[chunk.start : chunk.stop], masks[chunk.start : chunk.stop] = pixels, truth * 255
            say(f"synthetic images: {chunk.stop} of {count}")
    images.flush()
    masks.flush()


class PretrainTask(SegmentationTask):
    """The engine's view of pretraining; selection by the mean Dice over the kinds of prompt."""

    def __init__(self, model: SamSegmenter, data: Harmonized, settings: Pretrain, *, device: str) -> None:
        super().__init__(model, data, settings, threshold=0.5, seed=settings.seed, device=device)

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """Augmented ``images`` and ``masks`` (see ``SegmentationTask``) with the prompts of one kind, drawn by step."""
        changed = [self._augmented(int(row), epoch) for row in rows]
        masks = np.stack([mask for _, mask in changed])
        kind, keys = self.kind(step), [f"epoch {epoch}/{row}" for row in rows]
        return self._inputs([image for image, _ in changed], masks, rows) | self._given(kind, masks, keys, BOX_JITTER)

    def kind(self, step: int) -> str:
        """The kind of prompt at a step."""
        rng = generator(self.seed, "pretrain", "prompt", step)
        draw = rng.random()
        if draw < self.spec.prompt_none:
            return "none"
        if draw < self.spec.prompt_none + self.spec.prompt_box:
            return "oracle_box"
        return "second_click" if rng.random() < SECOND_CLICK else "oracle_click_1"

    def _given(self, kind: str, masks: np.ndarray, keys: list[str], jitter: float) -> dict[str, Tensor]:
        first = "oracle_click_1" if kind == "second_click" else kind
        prompts = prompt_tensors(first, masks, jitter=jitter, seed=self.seed, keys=keys)
        if kind == "second_click":
            seeds = [int(generator(self.seed, "second click", key).integers(1 << 62)) for key in keys]
            prompts["second_click"] = torch.tensor(seeds)
        return prompts

    def predict(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, 4, h, w) and estimated IoU (B, 4) under the batch's prompts."""
        model = self.module
        embeddings = model.encode(batch["images"].float())
        prompts = batch_prompts(model, embeddings, batch, self.threshold)
        if prompts is not None and "second_click" in batch:
            prompts = self._corrected(embeddings.detach(), prompts, batch)
        return model.decode_all(embeddings, prompts)

    def _corrected(self, embeddings: Tensor, first: Prompts, batch: dict[str, Tensor]) -> Prompts:
        """``first`` and one more click per image, where the prediction under ``first`` is wrong."""
        assert first.points is not None
        assert first.point_labels is not None
        masks = batch["masks"][:, 0].cpu().numpy() >= BINARY
        with torch.no_grad():
            guesses = finish(self.module.decode(embeddings, first), masks.shape[-1]) >= self.threshold
        clicks = [
            oracle_correction(mask, guess, generator(int(seed)))
            for mask, guess, seed in zip(masks, guesses, batch["second_click"], strict=True)
        ]
        points = torch.from_numpy(np.stack([point for point, _ in clicks]))[:, None].to(first.points.device)
        labels = torch.tensor([[label] for _, label in clicks], device=first.points.device)
        return Prompts(
            points=torch.cat([first.points, points], dim=1),
            point_labels=torch.cat([first.point_labels, labels], dim=1),
        )

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Dice + BCE of mask 0, under one click also of the best of the three others; squared error of the IoU head."""
        logits, predicted = self.predict(batch)
        target = resize_target(batch["masks"].float() / 255.0, (logits.shape[-2], logits.shape[-1])).expand_as(logits)
        each = dice_loss(logits, target) + bce_loss(logits, target)
        loss = each[:, 0].mean()
        if "points" in batch and "second_click" not in batch:
            # One click is ambiguous: only the best of the three alternatives is taught, as in SAM.
            loss = loss + each[:, 1:].min(dim=1).values.mean()
        with torch.no_grad():
            guess, truth = logits > 0, target >= 0.5
            reached = (guess & truth).sum(dim=(-2, -1)) / (guess | truth).sum(dim=(-2, -1)).clamp(min=1)
        error = (predicted - reached).square().mean()
        return loss + IOU_WEIGHT * error, {"iou_head_error": float(error.detach())}

    def validate(self) -> dict[str, float]:
        """Mean per-image Dice of mask 0 at image size: of each kind of prompt, and ``dice``, their mean."""
        scores: dict[str, list[float]] = {kind: [] for kind in PROMPT_KINDS}
        size = self.spec.training.batch_size
        for start in range(0, len(self.val_rows), size):
            rows = self.val_rows[start : start + size]
            masks = np.stack([self.data.soft_mask(row) for row in rows])
            inputs = self._inputs([self.data.image(row) for row in rows], masks, rows)
            for kind, found in scores.items():
                prompts = self._given(kind, masks, [f"validation/{row}" for row in rows], 0.0)
                with torch.no_grad():
                    batch = {name: value.to(self.device) for name, value in (inputs | prompts).items()}
                    lesions = finish(self.predict(batch)[0][:, :1], masks.shape[-1]) >= self.threshold
                found += [float(dice(confusion(*pair))) for pair in zip(lesions, masks >= BINARY, strict=True)]
        means = {f"dice_{kind}": float(np.mean(found)) for kind, found in scores.items()}
        return {"dice": float(np.mean(list(means.values()))), **means}
