"""Joint fine-tuning of a segmenter's adapters and a classifier, the classifier's gradient flowing through the
soft mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion_core.errors import SettingsError
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.models.trained import (
    CLASSIFIER_PREFIX,
    SEGMENTER_PREFIX,
    load_classifier,
    load_segmenter,
    with_prefix,
)
from lesion_core.paths import Layout
from lesion_core.seeding import generator
from lesion_core.settings import JointMethod, SegmentationMethod
from lesion_core.settings.run import Run
from lesion_core.training.classification import (
    ClassificationTask,
    augmented_batch,
    best_score,
    validation_batches,
    validation_metrics,
)
from lesion_core.training.classification_data import (
    TRUE_MASKS,
    LabelledImages,
    load_labelled_images,
    load_masked_images,
)
from lesion_core.training.losses import classification_loss, segmentation_loss
from lesion_core.training.run import fit_extra, started


class JointModel(nn.Module):
    """A segmenter and a classifier that reads the segmenter's soft mask.

    forward(images float32 (B, 3, S, S) in 0..255) -> mask logits float32 (B, 1, s, s) and class logits (B,
    7). S is the segmenter's input size; image and soft mask are brought to the classifier's size by
    antialiased bilinear resizing, so that the class loss reaches the adapters.
    """

    needs_metadata = False
    segmenter: Any
    classifier: Any

    def __init__(self, segmenter: nn.Module, classifier: nn.Module, classifier_size: int) -> None:
        super().__init__()
        self.segmenter, self.classifier, self.classifier_size = segmenter, classifier, classifier_size
        self.smallest_batch = segmenter.smallest_batch

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.segmenter(images, None)
        full = functional.interpolate(logits.float(), size=images.shape[-2:], mode="bilinear", align_corners=False)
        small, soft = self.resize(images), self.resize(torch.sigmoid(full))
        return logits, self.classifier(small, soft)

    def resize(self, values: Tensor) -> Tensor:
        """(B, C, S, S) at the classifier's size, differentiable."""
        size = (self.classifier_size, self.classifier_size)
        if tuple(values.shape[-2:]) == size:
            return values
        return functional.interpolate(values, size=size, mode="bilinear", align_corners=False, antialias=True)

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The segmenter's trainable parameters (adapters; the foundation stays frozen) and all of the
        classifier's."""
        for name, parameter in self.segmenter.trainable_parameters():
            yield SEGMENTER_PREFIX + name, parameter
        for name, parameter in self.classifier.trainable_parameters():
            yield CLASSIFIER_PREFIX + name, parameter

    def trainable_state(self) -> dict[str, Tensor]:
        """Both models' trainable tensors under ``segmenter.`` and ``classifier.``."""
        segmenter, classifier = self.segmenter.trainable_state(), self.classifier.trainable_state()
        return {
            **{SEGMENTER_PREFIX + name: tensor for name, tensor in segmenter.items()},
            **{CLASSIFIER_PREFIX + name: tensor for name, tensor in classifier.items()},
        }

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Load both strictly (WeightsError)."""
        self.segmenter.load_trainable_state(with_prefix(state, SEGMENTER_PREFIX))
        self.classifier.load_trainable_state(with_prefix(state, CLASSIFIER_PREFIX))


class JointTask(ClassificationTask):
    """The engine's view of joint training: L = l1 * L_seg + l2 * L_cls (paper A, section 3.7).

    No released image has both a mask for the segmenter and a label, so L_seg has a batch of its own: each step takes as
    many images of ``masked`` as of ``images``. Mixup mixes labelled images, their masks and labels before the
    segmenter, with one share for all; ``masked`` stays as it is.

    Args:
        model: segmenter and classifier.
        images: the labelled images, of L_cls.
        spec: weights, losses, augmentation of both batches.
        masked: images with true masks, of L_seg and of the validation's Dice; None: ``images`` with their masks.
        threshold: of the probability, 0..1, where the validation cuts masks.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        model: JointModel,
        images: LabelledImages,
        spec: JointMethod,
        *,
        masked: LabelledImages | None,
        threshold: float,
        seed: int,
        device: str,
    ) -> None:
        loss, augmentation = spec.classification_loss, spec.augmentation
        super().__init__(model, images, loss=loss, augmentation=augmentation, seed=seed, device=device)
        self.spec, self.threshold, self.masked = spec, threshold, masked

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """The labelled samples ``rows`` and, with ``masked``, as many ``masked_images``, of which ``masks`` then are.

        Masked samples depend on seed, epoch, step and place in the batch alone.
        """
        made = super().batch(rows, epoch, step)
        if self.masked is not None:
            chosen, keys = self.masked_rows(step, len(rows)), (self.seed, "augment masked", epoch, step)
            made["masked_images"], made["masks"] = augmented_batch(self.masked, chosen, self.augment, keys)
        return made

    def masked_rows(self, step: int, count: int) -> np.ndarray:
        """Rows of ``masked``, int64 (count,), of global 0-based ``step``: one permutation of all follows the other."""
        assert self.masked is not None
        rows, places = self.masked.train, np.arange(step * count, (step + 1) * count)
        rounds = range(places[0] // len(rows), places[-1] // len(rows) + 1)
        orders = [generator(self.seed, "masked order", number).permutation(rows) for number in rounds]
        return np.concatenate(orders)[places - rounds[0] * len(rows)]

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """l1 * L_seg + l2 * L_cls and its two parts."""
        images, masks, targets = (batch[key].to(self.device) for key in ("images", "masks", "targets"))
        mask_logits, class_logits = self.module(images)
        if self.masked is not None:
            mask_logits = self.module.segmenter(batch["masked_images"].to(self.device), None)
        spec = self.spec
        segmentation, _ = segmentation_loss(mask_logits, masks, spec.segmentation_loss)
        classification = classification_loss(class_logits, targets, self.weights, self.settings)
        loss = spec.weight_segmentation * segmentation + spec.weight_classification * classification
        return loss, {
            "segmentation_loss": float(segmentation.detach()),
            "classification_loss": float(classification.detach()),
        }

    def validate(self) -> dict[str, float]:
        """On validation images: classification metrics with the segmenter's own soft masks, and Dice against the
        masks that L_seg learns from."""
        self.module.eval()
        all_logits, labels, dices = [], [], []
        with torch.inference_mode():
            for images, masks, truth in validation_batches(self.images):
                mask_logits, class_logits = self.module(images.to(self.device))
                all_logits.append(class_logits.float().cpu())
                labels.append(truth)
                if self.masked is None:
                    dices.extend(_dice(mask_logits.float().cpu(), masks, self.threshold))
            for images, masks, _ in () if self.masked is None else validation_batches(self.masked):
                mask_logits = self.module.segmenter(images.to(self.device), None)
                dices.extend(_dice(mask_logits.float().cpu(), masks, self.threshold))
        metrics = validation_metrics(torch.cat(all_logits), np.concatenate(labels))
        return {**metrics, "dice": float(np.mean(dices))}


def _dice(logits: Tensor, masks: Tensor, threshold: float) -> list[float]:
    """Of each image, Dice of probability >= threshold, upsampled first, against mask >= 0.5."""
    logits = functional.interpolate(logits, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    lesions, truths = (torch.sigmoid(logits) >= threshold).numpy(), (masks >= 0.5).numpy()
    return [float(dice(confusion(lesion, truth))) for lesion, truth in zip(lesions, truths, strict=True)]


def train_run(run: Run, run_dir: Path, root: Path, device: str) -> None:
    """Fine-tune a trained segmenter and a trained classifier together; writes the files of a run.

    weights.safetensors holds ``segmenter.*`` (with ``segmenter.harmonization.reference``) and
    ``classifier.*``. The best epoch has the highest balanced accuracy on validation images, ties broken by
    their classification loss.

    Args:
        run: its settings; ``segmenter_run`` and ``classifier_run`` are the runs to start from.

    Raises:
        RunError: a starting run is not there.
        SettingsError: the segmenter has nothing to learn, or cannot segment without a prompt.
        SplitError, CatalogError, MaskError: see ``load_labelled_images`` and ``load_masked_images``.
    """
    layout, spec = Layout(Path(root)), run.spec
    assert isinstance(spec, JointMethod)
    starts = layout.run("segmentation", str(run.segmenter_run)), layout.run("classification", str(run.classifier_run))
    with started(run, run_dir, root, device) as job:
        segmenter = load_segmenter(starts[0], layout.root / "weights", device)
        assert isinstance(segmenter.run.spec, SegmentationMethod)
        if (prompt := segmenter.run.spec.model.prompt) != "none":
            raise SettingsError(
                f"{run.segmenter_run}, the segmenter of {run.method}, cannot segment without a prompt ({prompt})",
                file=run_dir,
                remedy="choose a segmenter whose model.prompt is none",
            )
        classifier = load_classifier(starts[1], device)
        model = build_joint(segmenter.model, classifier.model, classifier.size, run.method)
        masks = {"segmenter_images": None, "labelled_images": TRUE_MASKS, "pseudo_masks": spec.segmenter}
        images = load_labelled_images(
            root,
            run.pixels,
            spec.train_on,
            segmenter.size,
            masks=masks[spec.segmentation_from],
            segmenter_run=run.segmenter_run,
        )
        masked = None
        if spec.segmentation_from == "segmenter_images":
            masked = load_masked_images(root, run.pixels, segmenter.run.spec.train_on, segmenter.size)
        reference, files = job.reference()
        inputs = [*images.inputs, *(masked.inputs if masked else ()), *files]
        inputs += [start / "weights.safetensors" for start in starts]
        threshold = run.extraction.threshold
        task = JointTask(model, images, spec, masked=masked, threshold=threshold, seed=run.seed, device=device)
        result = job.fit(task, spec.training, inputs)
        tensors = {**task.state(), **{SEGMENTER_PREFIX + name: tensor for name, tensor in reference.items()}}
        job.finish(tensors, inputs, fit_extra(task, result, "balanced_accuracy", best_score(result)))


def build_joint(segmenter: Any, classifier: object, classifier_size: int, method: str) -> JointModel:
    """Put two loaded models together.

    Raises:
        SettingsError: the segmenter has no trainable parameter, or the classifier is a classical baseline or
            looks at no mask: no gradient could flow from one to the other.
    """
    if not list(segmenter.trainable_parameters()):
        raise SettingsError(f"The segmenter of {method} has nothing to learn", remedy="choose one with adapters")
    if not isinstance(classifier, nn.Module) or not classifier.learns_masks:
        raise SettingsError(
            f"The classifier of {method} passes no gradient to a mask",
            remedy="choose a network with a fusion, or with masked or blend input",
        )
    if classifier.needs_metadata:
        raise SettingsError(
            f"The classifier of {method} looks at metadata, which joint training does not hand on",
            remedy="choose a classifier without metadata",
        )
    return JointModel(segmenter, classifier, classifier_size)
