"""Decoder-only training end to end (paper E): stored embeddings, made once, beside an encoder at every step."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.made import drawn
from benchmarks.memory import extra_peak
from benchmarks.models_parts import VARIANT, Row, adapted, random_sam, relative
from benchmarks.stopwatch import once
from lesion_core.files import write_csv
from lesion_core.pixels.datasets import INDEX_COLUMNS, Harmonized
from lesion_core.settings import SegmentationMethod
from lesion_core.settings import load as config
from lesion_core.training.checkpoint import write_safetensors
from lesion_core.training.embeddings import EmbeddingCache
from lesion_core.training.engine import fit
from lesion_core.training.segmentation_task import SegmentationTask

METHOD = "peft_medsam"
SPLITS = ("train", "val")
EPOCHS = 10
WANTED = 10.0


def end_to_end(size: int, variant: str = VARIANT) -> list[Row]:
    """Ten epochs of ``peft_medsam`` by the project's own engine, validation and checkpoints included.

    One side encodes every image at every step and every validation in the published attention; the other computes the
    embeddings once (in ours), stores them in fp16 and reads them back. The ratio does not depend on how many
    images there are. The error is that of the training losses, epoch by epoch.
    """
    sam, spec = random_sam(variant, size), method(size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = dataset(folder / "data", size)
        weights = folder / "weights.safetensors"
        write_safetensors(weights, sam.state_dict())
        sides = {
            "published": adapted(sam, adapter="decoder", published=True),
            "ours": adapted(sam, adapter="decoder"),
        }
        del sam

        def train(side: str) -> Tensor:
            model, cache = sides[side], None
            if side == "ours":
                cache = EmbeddingCache(folder / "embeddings", model, weights, "fp16", "cpu")
            task = SegmentationTask(model, data, spec, threshold=0.5, seed=0, device="cpu", cache=cache)
            result = fit(task, spec.training, folder / side, seed=0, device="cpu")
            return torch.tensor([row["train_loss"] for row in result.history], dtype=torch.float64)

        # Once: at a second time the embeddings would be there.
        (losses, published), (ours_losses, ours) = (once(partial(train, side), extra_peak) for side in sides)
    error = relative(ours_losses, losses)
    name = f"decoder-only training end to end, {size} px, {EPOCHS} epochs"
    return [Row(name, published, ours, error, WANTED)]


def method(size: int) -> SegmentationMethod:
    """The method as params.yaml has it, for ``EPOCHS`` epochs in batches of one."""
    spec = next(run.spec for run in config.expand(config.load("paper")).values() if run.method == METHOD)
    training = spec.training.model_copy(update={"epochs": EPOCHS, "batch_size": 1})
    return spec.model_copy(update={"training": training, "model": spec.model.model_copy(update={"image_size": size})})


def dataset(folder: Path, size: int) -> Harmonized:
    """Made lesions of ``size`` pixels in the harmonize stage's files."""
    folder.mkdir()
    pairs = [drawn(number, size, size) for number in range(len(SPLITS))]
    np.save(folder / "images.npy", np.stack([image for image, _ in pairs]))
    np.save(folder / "masks.npy", np.stack([np.where(mask > 0, 255, 0).astype(np.uint8) for _, mask in pairs]))
    blank = dict.fromkeys(INDEX_COLUMNS, "")
    rows = [
        {**blank, "row": row, "mask_row": row, "width": size, "height": size}
        | {"image_id": f"made_{row}", "group_id": f"made_{row}", "split": split}
        for row, split in enumerate(SPLITS)
    ]
    write_csv(folder / "index.csv", INDEX_COLUMNS, rows)
    return Harmonized.open(folder)
