"""A trained classifier's folder as a model ready to use, and class probabilities of many images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_core.errors import MaskError, RunError, about
from lesion_core.inference.load import REFERENCE_KEY, read_tensors
from lesion_core.settings import CLASSES, NETWORKS
from lesion_core.settings.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from lesion_core.catalog.metadata import MetadataVocabulary
    from lesion_core.models.classical import ColourHistogram, Majority
    from lesion_core.models.classifier import ClassifierModule

VOCABULARY_KEY = "metadata_vocabulary"
CLASSIFIER_PREFIX = "classifier."


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier in evaluation mode, its run, and the histogram its images were matched to.

    Attributes:
        model: what ``class_probabilities`` takes.
        run: the classification run (for a joint run: the classification run it started from).
        reference: (3, 256) float64 reference histogram, or None where the run used none.
    """

    model: ClassifierModule | Majority | ColourHistogram
    run: Run
    reference: np.ndarray | None

    @property
    def size(self) -> int:
        """Side length S of the model's square input, in pixels."""
        return self.run.spec.model.image_size

    @property
    def needs_masks(self) -> bool:
        """Whether its predictions depend on masks."""
        return self.model.needs_masks

    def metadata(self, records: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        """Index records as float32 (N, 3), as the model was taught to read them; None if it reads no metadata."""
        vocabulary = getattr(self.model, "vocabulary", None)
        return None if vocabulary is None else vocabulary.encode(records)


def load_classifier(run_dir: Path, device: str = "cpu") -> LoadedClassifier:
    """Build a classification (or joint) run's classifier and load its weights strictly.

    Args:
        run_dir: ``results/<profile>/runs/<place>/<run_id>``; a joint run needs its starting run beside it.
        device: ``cpu`` or ``cuda``.

    Raises:
        RunError: the folder is not a classification or joint run.
        WeightsError: tensors are missing, renamed or of another shape.
    """
    run_dir = Path(run_dir)
    run = Run.load(run_dir)
    tensors = read_tensors(run_dir / "weights.safetensors")
    if run.task == "joint":
        reference = tensors.get(f"segmenter.{REFERENCE_KEY}")
        tensors = {
            key.removeprefix(CLASSIFIER_PREFIX): value
            for key, value in tensors.items()
            if key.startswith(CLASSIFIER_PREFIX)
        }
        run = Run.load(run_dir.parents[1] / "classification" / str(run.classifier_run))
    elif run.task == "classification":
        reference = tensors.pop(REFERENCE_KEY, None)
    else:
        raise RunError(
            f"{run.run_id} is a {run.task} run; a classifier is needed",
            file=run_dir,
            remedy="give a classification run",
        )
    settings = run.spec.model
    if settings.kind in NETWORKS:
        from lesion_core.models.classifier import build_classifier

        # the stored weights hold the whole encoder: nothing is downloaded to load a run
        plain = settings.model_copy(update={"pretrained": False})
        model = build_classifier(plain, run.extraction, seed=run.seed, vocabulary=_vocabulary(tensors))
        with about(run_dir / "weights.safetensors"):
            model.load_trainable_state(tensors)
        model.eval().to(device)
    else:
        from lesion_core.models.classical import load_classical

        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        model = load_classical(settings.kind, arrays, masked=settings.input != "full")
    return LoadedClassifier(model, run, None if reference is None else reference.cpu().numpy())


def _vocabulary(tensors: dict[str, Tensor]) -> MetadataVocabulary | None:
    """Take the metadata vocabulary out of a run's tensors, if it has one."""
    from lesion_core.catalog.metadata import MetadataVocabulary

    content = tensors.pop(VOCABULARY_KEY, None)
    return None if content is None else MetadataVocabulary.from_bytes(content.numpy())


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
        batch_size: images per forward pass.

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
        if model.needs_masks:
            soft = resize_masks(np.asarray(masks[start : start + batch_size]), batch.shape[1])
        known = None if metadata is None else metadata[start : start + batch_size]
        results.append(_batch_probabilities(model, batch, soft, known))
    return np.concatenate(results)


def _batch_probabilities(
    model: object, images: np.ndarray, masks: np.ndarray | None, metadata: np.ndarray | None
) -> np.ndarray:
    if hasattr(model, "class_probabilities"):
        return model.class_probabilities(images, masks)
    import torch

    device = next(model.parameters()).device
    if masks is None:
        masks = np.zeros(images.shape[:3], np.uint8)
    with torch.inference_mode():
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float()
        soft = torch.from_numpy(np.ascontiguousarray(masks)).to(device)[:, None].float() / 255.0
        given = (pixels, soft)
        if metadata is not None and model.needs_metadata:
            given = (*given, torch.from_numpy(metadata).to(device))
        return model(*given).float().softmax(dim=1).cpu().numpy()


def resize_masks(masks: np.ndarray, size: int) -> np.ndarray:
    """Soft masks uint8 (N, S', S') -> uint8 (N, size, size): area average down, bilinear up; the same array
    if S' = size."""
    if masks.shape[1] == size:
        return masks
    import cv2

    how = cv2.INTER_AREA if masks.shape[1] > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(mask, (size, size), interpolation=how) for mask in masks])
