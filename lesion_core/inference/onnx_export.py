"""A segmentation run as one ONNX file: normalisation and upsampling inside, checked against torch on real images."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from torch.nn import functional

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import sha256_file, write_bytes, write_text
from lesion_core.inference.exported import INPUT, KEY, OUTPUT, ExportedSegmenter
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.models.trained import LoadedSegmenter, load_segmenter
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized, combine
from lesion_core.settings import SegmentationMethod

TOLERANCE = 1e-4  # of a probability, against torch
INT8_TOLERANCE = 0.002  # of the mean Dice on validation images
CHECKED, CALIBRATED, MEASURED = 16, 64, 200  # images, at most
BINARY = 128
OPSET = 20


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
        run_dir: a segmentation run's folder in its results, whose harmonized images are used for the checks.
        int8: weights and activations in 8 bits (static quantisation, calibrated on training images).

    Returns:
        ``difference``: largest difference of a probability from torch's on validation images; with ``int8`` also
        ``dice`` and ``dice_int8``, means on validation images at the model's size.

    Raises:
        SettingsError: the run needs prompts, or SAM's padded frame, which the graph does not hold.
        RunError: the graph's numbers are not torch's, int8 costs too much Dice, or the images are not there. Nothing
            is written then.
    """
    segmenter = load_segmenter(run_dir, device="cpu")
    if segmenter.prompt != "none" or segmenter.settings.frame != "resized":
        raise SettingsError(
            f"{segmenter.run.run_id} learnt with boxes or in SAM's padded frame; the graph is of an image alone",
            remedy="export a run whose model.prompt is none and whose model.frame is resized",
        )
    data = _images(segmenter, run_dir)
    training, validation = data.rows("train"), data.rows("val", with_mask=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        _write(segmenter, plain)
        exported = ExportedSegmenter(plain)
        found = {"difference": _difference(segmenter, exported, data, validation[:CHECKED])}
        if found["difference"] > TOLERANCE:
            raise RunError(
                f"The exported graph differs from torch by {found['difference']:.2g} (allowed: {TOLERANCE})",
                ids=[segmenter.run.run_id],
                remedy="report it with the versions of torch and onnx",
            )
        best = plain
        if int8:
            best = Path(folder) / "int8.onnx"
            _quantise(plain, best, [data.image(row) for row in _spread(training, CALIBRATED)])
            rows = _spread(validation, MEASURED)
            found |= {"dice": _dice(exported, data, rows), "dice_int8": _dice(ExportedSegmenter(best), data, rows)}
            if abs(found["dice"] - found["dice_int8"]) > INT8_TOLERANCE:
                raise RunError(
                    f"In 8 bits the mean Dice on {len(rows)} validation images is {found['dice_int8']:.4f} instead of"
                    f" {found['dice']:.4f} (allowed: {INT8_TOLERANCE})",
                    ids=[segmenter.run.run_id],
                    remedy="export it without --int8",
                )
        write_bytes(out, best.read_bytes())
    write_text(out.with_name(out.name + ".md"), _card(segmenter, run_dir, out, found))
    return found


def _card(segmenter: LoadedSegmenter, run_dir: Path, out: Path, found: dict[str, float]) -> str:
    own = Layout.of_run(run_dir).run_card(segmenter.run.run_id)
    model = own.read_text("utf-8") if own.is_file() else f"# Model card: {segmenter.run.run_id}\n"
    lines = [
        f"| `{INPUT}` | uint8 (1, {segmenter.size}, {segmenter.size}, 3), RGB, harmonized as `lesion predict` does |",
        f"| `{OUTPUT}` | float32 (1, {segmenter.size}, {segmenter.size}), probability of lesion |",
        *(f"| {name} | {value:.6f} |" for name, value in found.items()),
        f"| SHA-256 of {out.name} | {sha256_file(out)} |",
    ]
    note = "`difference`: largest from torch's probabilities; Dice: means on validation images at this size."
    return "\n".join([model, "## Export", "", "| | |", "|---|---|", *lines, "", note, ""])


def _images(segmenter: LoadedSegmenter, run_dir: Path) -> Harmonized:
    layout, spec = Layout.of_run(run_dir), cast(SegmentationMethod, segmenter.run.spec)
    folders = [layout.pixels(segmenter.run.pixels, name, segmenter.size) for name in spec.train_on]
    return combine([Harmonized.open(folder) for folder in folders])


def _write(segmenter: LoadedSegmenter, path: Path) -> None:
    graph = _Graph(segmenter.model, segmenter.size).eval()
    example = torch.zeros(1, segmenter.size, segmenter.size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own internals
        torch.onnx.export(
            graph, (example,), str(path), input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET,
            dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    model: Any = onnx.load(path)
    reference = segmenter.reference
    about = {
        "run": segmenter.run.model_dump(mode="json"),
        "reference": None if reference is None else reference.tolist(),
    }
    onnx.helper.set_model_props(model, {KEY: json.dumps(about)})
    onnx.save(model, path)


def _difference(segmenter: LoadedSegmenter, exported: ExportedSegmenter, data: Harmonized, rows: np.ndarray) -> float:
    images = np.stack([data.image(row) for row in rows])
    sizes = [(segmenter.size, segmenter.size)] * len(rows)
    return float(np.abs(segmenter.maps(images, sizes) - exported.maps(images, sizes)).max())


class _Reader(CalibrationDataReader):
    def __init__(self, images: list[np.ndarray]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


def _quantise(plain: Path, out: Path, images: list[np.ndarray]) -> None:
    prepared = plain.with_name("prepared.onnx")
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(out), _Reader(images), quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
    )  # fmt: skip


def _dice(exported: ExportedSegmenter, data: Harmonized, rows: np.ndarray) -> float:
    threshold, scores = exported.run.extraction.threshold, []
    for row in rows:
        mask = exported.maps(data.image(row)[None], [])[0] >= threshold
        scores.append(float(dice(confusion(mask, data.soft_mask(row) >= BINARY))))
    return float(np.mean(scores))


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, evenly taken."""
    return rows[:: -(-len(rows) // most) or 1]
