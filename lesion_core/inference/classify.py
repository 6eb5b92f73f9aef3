"""Class probabilities of many images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lesion_core.errors import MaskError
from lesion_core.files import read_parquet
from lesion_core.models.classical import ColourHistogram, Majority
from lesion_core.models.classifier import ClassifierModule
from lesion_core.models.trainable import to_input, to_mask_input
from lesion_core.models.trained import load_classifier
from lesion_core.pixels.resize import resize_masks
from lesion_core.settings import CLASSES
from lesion_core.settings.run import Run

SCORES = {"classification": "scores.parquet", "joint": "scores_classification.parquet"}


class RunClassifier:
    """See ``segments.Classifies``: a classification or joint run's folder.

    Attributes:
        loaded: the classifier itself.
    """

    def __init__(self, run_dir: Path, device: str = "cpu") -> None:
        self.loaded = load_classifier(run_dir, device=device)
        self.run, self.reference, self.size = self.loaded.run, self.loaded.reference, self.loaded.size
        self.needs_masks, self.vocabulary = self.loaded.needs_masks, self.loaded.vocabulary
        self.temperature = fitted_temperature(run_dir)
        run = Run.load(run_dir)
        self.learnt_on = run.run_id if run.task == "joint" else run.segmenter_run

    def probabilities(self, images: np.ndarray, masks: np.ndarray | None, metadata: np.ndarray | None) -> np.ndarray:
        """See ``class_probabilities``."""
        return class_probabilities(self.loaded.model, images, masks, metadata)


def fitted_temperature(run_dir: Path) -> float | None:
    """The temperature in a classification or joint run's scores; None where it was not scored.

    Raises:
        FormatError: the scores cannot be read.
    """
    path = Path(run_dir) / SCORES[Run.load(run_dir).task]
    values = read_parquet(path, ["temperature"])["temperature"].to_pylist() if path.is_file() else []
    return values[0] if values else None


def class_probabilities(
    model: ClassifierModule | Majority | ColourHistogram,
    images: np.ndarray,
    masks: np.ndarray | None,
    metadata: np.ndarray | None = None,
    *,
    batch_size: int = 64,
) -> np.ndarray:
    """Class probabilities, order ``CLASSES``, rows summing to 1.

    Args:
        model: the ``model`` of a ``LoadedClassifier``.
        images: uint8 (N, S, S, 3) RGB, harmonized, S the classifier's size; may be memory-mapped.
        masks: uint8 (N, S', S') soft masks, 0..255, brought to S x S by ``resize_masks``; None where the
            model needs none.
        metadata: float32 (N, 3) of ``MetadataVocabulary.encode``; None where the model needs none, or nothing is known.

    Returns:
        float32 (N, 7).

    Raises:
        MaskError: the model needs masks and there are none, or not one per image.
    """
    if model.needs_masks and (masks is None or len(masks) != len(images)):
        raise MaskError(
            f"The classifier needs a mask for each of {len(images)} images; "
            f"{0 if masks is None else len(masks)} were given",
            remedy="give a segmenter whose masks the classifier is to use",
        )
    results = [np.zeros((0, len(CLASSES)), np.float32)]
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        soft = None
        if model.needs_masks and masks is not None:
            soft = resize_masks(np.asarray(masks[start : start + batch_size]), batch.shape[1])
        known = None if metadata is None else metadata[start : start + batch_size]
        results.append(_batch_probabilities(model, batch, soft, known))
    return np.concatenate(results)


def _batch_probabilities(
    model: Any, images: np.ndarray, masks: np.ndarray | None, metadata: np.ndarray | None
) -> np.ndarray:
    if hasattr(model, "class_probabilities"):
        return model.class_probabilities(images, masks)
    device = next(model.parameters()).device
    if masks is None:
        masks = np.zeros(images.shape[:3], np.uint8)
    with torch.inference_mode():
        given: tuple[torch.Tensor, ...] = (to_input(images, device), to_mask_input(masks, device))
        if metadata is not None and model.needs_metadata:
            given = (*given, torch.from_numpy(metadata).to(device))
        return model(*given).float().softmax(dim=1).cpu().numpy()
