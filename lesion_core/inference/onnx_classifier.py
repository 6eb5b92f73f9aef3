"""A classifier as an ONNX file: normalisation, cutting out and temperature inside, checked against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lesion_core.errors import SettingsError
from lesion_core.inference.classify import RunClassifier
from lesion_core.inference.examples import masks_of
from lesion_core.inference.exported import CALIBRATED as CALIBRATED_OUTPUT
from lesion_core.inference.exported import IMAGES, MASKS, METADATA, PROBABILITY, ExportedClassifier
from lesion_core.inference.onnx_file import CALIBRATED, CHECKED, Export, spread, write_export
from lesion_core.metrics.calibration import log_probabilities, softmax
from lesion_core.metrics.classification import balanced_accuracy
from lesion_core.models.trained import LoadedClassifier
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.pixels.resize import resize_masks
from lesion_core.settings import CLASSES, NETWORKS
from lesion_core.settings.run import Run

MEASURED = 2000  # images of each dataset, at most: one answer of 200 would already move the accuracy by 0.005


class _Graph(nn.Module):
    """uint8 images (1, S, S, 3), then masks (1, S, S) and metadata (1, 3) where the model reads them.

    -> float32 (1, 7), and again at the temperature if there is one.
    """

    def __init__(self, classifier: RunClassifier) -> None:
        super().__init__()
        loaded = classifier.loaded
        self.masked, self.size = loaded.needs_masks, loaded.size
        self.model: Any = loaded.model
        self.temperature = classifier.temperature

    def forward(self, images: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        shown, rest = images.permute(0, 3, 1, 2).float(), list(more)
        masks = rest.pop(0)[:, None].float() / 255.0 if self.masked else torch.zeros(1, 1, self.size, self.size)
        logits = self.model(shown, masks, *rest).float()
        found: tuple[Tensor, ...] = (logits.softmax(dim=1),)
        return found if self.temperature is None else (*found, (logits / self.temperature).softmax(dim=1))


class _Shown(NamedTuple):
    """n labelled images as the run sees them.

    Attributes:
        images: uint8 (n, S, S, 3), harmonized.
        masks: uint8 (n, S, S), soft; None where the run looks at none.
        metadata: float32 (n, 3); None where the run reads none.
        truth: int64 (n,), positions in ``CLASSES``.
    """

    images: np.ndarray
    masks: np.ndarray | None
    metadata: np.ndarray | None
    truth: np.ndarray


def export_classifier(run_dir: Path, out: Path, *, int8: bool = False) -> dict[str, float]:
    """Write ``out`` (.onnx), which `lesion predict --classifier-onnx` reads without torch.

    Args:
        run_dir: a classification or joint run's folder in its results, whose harmonized images, and masks if it looks
            at any, are used for the checks.
        int8: in 8 bits, where accuracy and balanced accuracy on validation images stay.

    Returns:
        See ``write_export``; the measures are ``accuracy`` and ``balanced_accuracy``.

    Raises:
        SettingsError: the run is a classical baseline, which is no network.
        RunError: see ``write_export``; or the images are not there.
        MaskError: an image of the checks has no mask.
    """
    classifier, run_id = RunClassifier(run_dir), Run.load(run_dir).run_id
    loaded = classifier.loaded
    if loaded.run.classification.model.kind not in NETWORKS:
        raise SettingsError(
            f"{run_id} is a {loaded.run.classification.model.kind} baseline; only networks are exported",
            remedy="export a run whose model.kind is fusion or dual, or use this one with --classifier",
        )
    size, temperature = loaded.size, classifier.temperature
    inputs = {IMAGES: torch.zeros(1, size, size, 3, dtype=torch.uint8)}
    describes = [f"| `{IMAGES}` | uint8 (1, {size}, {size}, 3), RGB, harmonized as `lesion predict` does |"]
    if loaded.needs_masks:
        inputs[MASKS] = torch.zeros(1, size, size, dtype=torch.uint8)
        describes.append(f"| `{MASKS}` | uint8 (1, {size}, {size}), 255 times the segmenter's probability |")
    if loaded.vocabulary is not None:
        inputs[METADATA] = torch.zeros(1, 3)
        sexes, sites = (
            ", ".join(f"{code} {name}" for code, name in enumerate(("unknown", *names)))
            for names in (loaded.vocabulary.sexes, loaded.vocabulary.sites)
        )
        describes.append(
            f"| `{METADATA}` | float32 (1, 3): age in years (-1: unknown); sex ({sexes}); site ({sites}) |"
        )
    outputs = [PROBABILITY] if temperature is None else [PROBABILITY, CALIBRATED_OUTPUT]
    describes.append(f"| `{PROBABILITY}` | float32 (1, {len(CLASSES)}): {', '.join(CLASSES)} |")
    if temperature is not None:
        describes.append(f"| `{CALIBRATED_OUTPUT}` | the same at the temperature {temperature:.6f} |")
    vocabulary = None if loaded.vocabulary is None else loaded.vocabulary.to_bytes().tobytes().decode()
    export = Export(
        run_id=run_id,
        graph=_Graph(classifier),
        inputs=inputs,
        outputs=outputs,
        about={
            "run": loaded.run.model_dump(mode="json"),
            "made_from": run_id,
            "reference": None if loaded.reference is None else loaded.reference.tolist(),
            "temperature": temperature,
            "learnt_on": classifier.learnt_on,
            "vocabulary": vocabulary,
        },
        difference=lambda file: _difference(
            classifier, ExportedClassifier(file), _shown(loaded, run_dir, "val", CHECKED)
        ),
        calibration=lambda: _feeds(_shown(loaded, run_dir, "train", CALIBRATED)),
        measures=lambda file: _measures(ExportedClassifier(file), _shown(loaded, run_dir, "val", MEASURED)),
        describes=describes,
    )
    return write_export(export, run_dir, out, int8=int8)


def _shown(loaded: LoadedClassifier, run_dir: Path, split: str, most: int) -> _Shown:
    """At most so many images of a split of each dataset of training."""
    run, layout = Run.load(run_dir), Layout.of_run(run_dir)
    parts = []
    masks: np.ndarray | None
    for dataset in loaded.run.classification.train_on:
        data = Harmonized.open(layout.pixels(loaded.run.pixels, dataset, loaded.size))
        rows = spread(data.rows(split, with_label=True), most)
        if loaded.needs_masks and run.task == "classification" and run.segmenter_run is None:
            masks = np.stack([data.soft_mask(row) for row in rows])  # it learnt on true ones
        else:
            masks = masks_of(loaded, run_dir, run, layout, data, rows)
        images = np.stack([data.image(row) for row in rows])
        metadata = loaded.metadata([data.index[row] for row in rows])
        shown = None if masks is None else resize_masks(masks, loaded.size)
        parts.append(_Shown(images, shown, metadata, data.labels()[rows]))
    columns = zip(*parts, strict=True)
    joined: list[Any] = [None if column[0] is None else np.concatenate(column) for column in columns]
    return _Shown(*joined)


def _feeds(shown: _Shown) -> list[dict[str, np.ndarray]]:
    given = {IMAGES: shown.images, MASKS: shown.masks, METADATA: shown.metadata}
    there = {name: value for name, value in given.items() if value is not None}
    return [{name: value[[row]] for name, value in there.items()} for row in range(len(shown.images))]


def _difference(classifier: RunClassifier, exported: ExportedClassifier, shown: _Shown) -> float:
    """The largest difference of a probability, raw or at the run's temperature."""
    given = shown[:3]
    ours = classifier.probabilities(*given)
    pairs = [(ours, exported.probabilities(*given))]
    if classifier.temperature is not None:
        theirs = exported.probabilities(*given, output=CALIBRATED_OUTPUT)
        pairs.append((softmax(log_probabilities(ours), classifier.temperature), theirs))
    return max(float(np.abs(one - other).max()) for one, other in pairs)


def _measures(exported: ExportedClassifier, shown: _Shown) -> dict[str, float]:
    predicted = exported.probabilities(*shown[:3]).argmax(axis=1)
    accuracy = float(np.mean(predicted == shown.truth))
    return {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy(shown.truth, predicted)}
