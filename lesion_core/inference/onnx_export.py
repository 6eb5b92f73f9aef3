"""A segmenter as an ONNX file: normalisation and upsampling inside, checked against torch on real images."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion_core.errors import SettingsError
from lesion_core.inference.expected_dice import expected_dice_of
from lesion_core.inference.exported import IMAGES, PROBABILITY, ExportedSegmenter
from lesion_core.inference.onnx_file import CALIBRATED, CHECKED, Export, spread, write_export
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.models.trained import LoadedSegmenter, load_segmenter
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized, combine
from lesion_core.settings import SegmentationMethod
from lesion_core.settings.run import Run

MEASURED = 200  # images, at most
BINARY = 128


class _Graph(nn.Module):
    """uint8 (1, S, S, 3) -> float32 (1, S, S)."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images.permute(0, 3, 1, 2).float(), None)
        if logits.shape[-1] != self.size:
            logits = functional.interpolate(logits, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return torch.sigmoid(logits.float())[:, 0]


def export_segmenter(run_dir: Path, out: Path, *, int8: bool = False) -> dict[str, float]:
    """Write ``out`` (.onnx), which `lesion predict --onnx` reads without torch.

    Args:
        run_dir: a segmentation or joint run's folder in its results, whose harmonized images are used for the checks.
        int8: in 8 bits, where the mean Dice on validation images at the model's size stays.

    Returns:
        See ``write_export``; the measure is ``dice``.

    Raises:
        SettingsError: the run needs prompts, or SAM's padded frame, which the graph does not hold.
        RunError: see ``write_export``; or the images are not there.
    """
    segmenter, run_id = load_segmenter(run_dir, device="cpu"), Run.load(run_dir).run_id
    if segmenter.prompt != "none" or segmenter.settings.frame != "resized":
        raise SettingsError(
            f"{segmenter.run.run_id} learnt with boxes or in SAM's padded frame; the graph is of an image alone",
            remedy="export a run whose model.prompt is none and whose model.frame is resized",
        )
    data, size, expected = _images(segmenter, run_dir), segmenter.size, expected_dice_of(run_dir)
    training, validation = data.rows("train"), data.rows("val", with_mask=True)
    export = Export(
        run_id=run_id,
        graph=_Graph(segmenter.model, size),
        inputs={IMAGES: torch.zeros(1, size, size, 3, dtype=torch.uint8)},
        outputs=[PROBABILITY],
        about={
            "run": segmenter.run.model_dump(mode="json"),
            "made_from": run_id,
            "reference": None if segmenter.reference is None else segmenter.reference.tolist(),
            "expected_dice": None if expected is None else expected.stored(),
        },
        difference=lambda file: _difference(segmenter, ExportedSegmenter(file), data, validation[:CHECKED]),
        calibration=lambda: [{IMAGES: data.image(row)[None]} for row in spread(training, CALIBRATED)],
        measures=lambda file: {"dice": _dice(ExportedSegmenter(file), data, spread(validation, MEASURED))},
        describes=(
            f"| `{IMAGES}` | uint8 (1, {size}, {size}, 3), RGB, harmonized as `lesion predict` does |",
            f"| `{PROBABILITY}` | float32 (1, {size}, {size}), probability of lesion |",
        ),
    )
    return write_export(export, run_dir, out, int8=int8)


def _images(segmenter: LoadedSegmenter, run_dir: Path) -> Harmonized:
    layout, spec = Layout.of_run(run_dir), cast(SegmentationMethod, segmenter.run.spec)
    folders = [layout.pixels(segmenter.run.pixels, name, segmenter.size) for name in spec.train_on]
    return combine([Harmonized.open(folder) for folder in folders])


def _difference(segmenter: LoadedSegmenter, exported: ExportedSegmenter, data: Harmonized, rows: np.ndarray) -> float:
    images = np.stack([data.image(row) for row in rows])
    sizes = [(segmenter.size, segmenter.size)] * len(rows)
    return float(np.abs(segmenter.maps(images, sizes) - exported.maps(images, sizes)).max())


def _dice(exported: ExportedSegmenter, data: Harmonized, rows: np.ndarray) -> float:
    threshold, scores = exported.run.extraction.threshold, []
    for row in rows:
        mask = exported.maps(data.image(row)[None], [])[0] >= threshold
        scores.append(float(dice(confusion(mask, data.soft_mask(row) >= BINARY))))
    return float(np.mean(scores))
