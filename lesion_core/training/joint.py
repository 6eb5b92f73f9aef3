"""Joint fine-tuning of a segmenter's adapters and a classifier, the classifier's gradient flowing through the
soft mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion_core.errors import RunError, SettingsError
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.models.trained import CLASSIFIER_PREFIX, load_classifier, load_segmenter
from lesion_core.paths import Layout
from lesion_core.pixels.augment import Augmenter
from lesion_core.record.attempts import Attempts
from lesion_core.record.provenance import write_provenance
from lesion_core.seeding import generator, make_deterministic
from lesion_core.settings import CLASSES, JointMethod
from lesion_core.settings.run import Run
from lesion_core.training.balance import draw_mixup
from lesion_core.training.checkpoint import folder_lock, write_safetensors
from lesion_core.training.class_losses import classification_loss, loss_weights, one_hot
from lesion_core.training.classification import (
    augmented_batch,
    epoch_order,
    fit_extra,
    read_reference,
    validation_batches,
    validation_metrics,
)
from lesion_core.training.classification_data import TRUE_MASKS, LabelledImages, load_labelled_images
from lesion_core.training.engine import CHECKPOINT, fit
from lesion_core.training.identity import input_identity
from lesion_core.training.launch import process_rank
from lesion_core.training.losses import segmentation_loss

SEGMENTER_PREFIX = "segmenter."


class JointModel(nn.Module):
    """A segmenter and a classifier that reads the segmenter's soft mask.

    forward(images float32 (B, 3, S, S) in 0..255) -> mask logits float32 (B, 1, s, s) and class logits (B,
    7). S is the segmenter's input size; image and soft mask are brought to the classifier's size by
    antialiased bilinear resizing, so that the class loss reaches the adapters.
    """

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

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        self.segmenter.load_trainable_state(part(SEGMENTER_PREFIX))
        self.classifier.load_trainable_state(part(CLASSIFIER_PREFIX))


class JointTask:
    """The engine's view of joint training: L = l1 * L_seg + l2 * L_cls (paper A, section 3.7).

    Mixup mixes images, masks and labels before the segmenter, with one share for all. ``threshold`` (of the
    probability, 0..1) is where the validation cuts masks.
    """

    selection_metric = "selection"
    selection_mode = "max"

    def __init__(
        self, model: JointModel, images: LabelledImages, spec: JointMethod, *, threshold: float, seed: int, device: str
    ) -> None:
        self.module = model.to(device)
        self.images, self.spec, self.threshold, self.seed, self.device = images, spec, threshold, seed, device
        self.weights = loss_weights(images.counts(), spec.classification_loss).to(device)
        self.augment = Augmenter(spec.augmentation)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Adapters and classifier, by name."""
        return dict(sorted(self.module.trainable_parameters()))

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers in the order of ``epoch``; a function of seed and epoch alone."""
        labels = self.images.labels[self.images.train]
        sampling = self.spec.classification_loss.sampling
        return self.images.train[epoch_order(labels, sampling, self.seed, epoch)]

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """Augmented samples at the segmenter's size: images, masks (B, 1, S, S) in 0..1, targets (B, 7)."""
        keys = (self.seed, "augment", epoch, step)
        pixels, masks = augmented_batch(self.images, rows, self.augment, keys)
        targets = one_hot(self.images.labels[rows], len(CLASSES))
        alpha = self.spec.classification_loss.mixup_alpha
        if alpha > 0:
            share, partner = draw_mixup(len(rows), alpha, generator(self.seed, "mixup", epoch, step))
            pixels, masks, targets = (share * part + (1.0 - share) * part[partner] for part in (pixels, masks, targets))
        return {"images": pixels, "masks": masks, "targets": targets}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """l1 * L_seg + l2 * L_cls and its two parts."""
        images, masks, targets = (batch[key].to(self.device) for key in ("images", "masks", "targets"))
        mask_logits, class_logits = self.module(images)
        spec = self.spec
        segmentation, _ = segmentation_loss(mask_logits, masks, spec.segmentation_loss)
        classification = classification_loss(
            class_logits,
            targets,
            self.weights,
            label_smoothing=spec.classification_loss.label_smoothing,
            focal_gamma=spec.classification_loss.focal_gamma,
        )
        loss = spec.weight_segmentation * segmentation + spec.weight_classification * classification
        return loss, {
            "segmentation_loss": float(segmentation.detach()),
            "classification_loss": float(classification.detach()),
        }

    def validate(self) -> dict[str, float]:
        """Classification metrics with the segmenter's own soft masks, and Dice against the mask source, on
        validation images."""
        self.module.eval()
        all_logits, labels, dices = [], [], []
        with torch.inference_mode():
            for images, masks, truth in validation_batches(self.images):
                mask_logits, class_logits = self.module(images.to(self.device))
                all_logits.append(class_logits.float().cpu())
                labels.append(truth)
                dices.extend(_dice(mask_logits.float().cpu(), masks, self.threshold))
        metrics = validation_metrics(torch.cat(all_logits), np.concatenate(labels))
        return {**metrics, "dice": float(np.mean(dices))}

    def state(self) -> dict[str, Tensor]:
        """Adapters and classifier."""
        return self.module.trainable_state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put them back."""
        self.module.load_trainable_state(state)


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
        run_dir: where it lives. root: ``results/<profile>``. device: ``cpu`` or ``cuda``.

    Raises:
        RunError: a starting run is not named or not there.
        SettingsError: the segmenter has nothing to learn, or cannot segment without a prompt.
        SplitError, CatalogError, MaskError: see ``load_labelled_images``.
    """
    attempts = Attempts(root)
    layout, run_dir, spec = Layout(Path(root)), Path(run_dir), run.spec
    make_deterministic(run.threads)
    if run.segmenter_run is None or run.classifier_run is None:
        raise RunError(
            f"{run.method} names no run to start from",
            file=run_dir,
            remedy="set segmenter_run and classifier_run to trained runs",
        )
    starts = layout.run("segmentation", run.segmenter_run), layout.run("classification", run.classifier_run)
    with folder_lock(run_dir):
        segmenter = load_segmenter(starts[0], layout.root / "weights", device)
        if (prompt := segmenter.run.spec.model.prompt) != "none":
            raise SettingsError(
                f"{run.segmenter_run}, the segmenter of {run.method}, cannot segment without a prompt ({prompt})",
                file=run_dir,
                remedy="choose a segmenter whose model.prompt is none",
            )
        classifier = load_classifier(starts[1], device)
        model = build_joint(segmenter.model, classifier.model, classifier.size, run.method)
        images = load_labelled_images(
            root,
            spec.train_on,
            segmenter.size,
            masks=TRUE_MASKS if spec.mask_source == "true" else spec.segmenter,
            segmenter_run=run.segmenter_run,
        )
        reference, files = read_reference(root, run)
        inputs = [*images.inputs, *files, *(start / "weights.safetensors" for start in starts)]
        if process_rank() == 0:
            run.save(run_dir)
        task = JointTask(model, images, spec, threshold=run.extraction.threshold, seed=run.seed, device=device)
        identity = input_identity(run, inputs)
        result = fit(task, spec.training, run_dir, seed=run.seed, device=device, identity=identity, attempts=attempts)
        kept = {SEGMENTER_PREFIX + name: tensor for name, tensor in reference.items()}
        write_safetensors(run_dir / "weights.safetensors", {**task.state(), **kept})
        extra = fit_extra(model, task, result)
        write_provenance(run_dir, run, inputs=inputs, device=device, attempts=attempts, extra=extra)
        (run_dir / CHECKPOINT).unlink(missing_ok=True)


def build_joint(segmenter: nn.Module, classifier: nn.Module, classifier_size: int, method: str) -> JointModel:
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
