"""Training of a classifier: the fusion network through the engine, the classical baselines in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lesion_core.files import write_csv
from lesion_core.metrics.classification import balanced_accuracy
from lesion_core.models.classical import ColourHistogram, Majority, colour_histogram
from lesion_core.models.registry import build_classifier
from lesion_core.models.trainable import to_input, to_mask_input
from lesion_core.models.trained import VOCABULARY_KEY, starting_weights
from lesion_core.pixels.augment import Augmenter
from lesion_core.progress import say
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES, NETWORKS, Augmentation, ClassificationLoss, ClassificationMethod
from lesion_core.settings.pretrained import weights_name
from lesion_core.settings.run import Run
from lesion_core.training.classification_data import LabelledImages, load_labelled_images
from lesion_core.training.device import first_process
from lesion_core.training.engine import FitResult
from lesion_core.training.history import HISTORY
from lesion_core.training.losses import classification_loss, loss_weights, one_hot
from lesion_core.training.run import Job, fit_extra, started
from lesion_core.training.task import TrainingTask

VALIDATION_BATCH = 64
# Balanced accuracies of two epochs differ by at least 1 / (7 * n_class) or not at all; this only decides
# between equals.
TIE_BREAK = 1e-6
LOSS_CEILING = 20.0


def selection_value(score: float, loss: float) -> float:
    """What the best epoch is chosen by: balanced accuracy, and among equals the smaller validation loss."""
    return score - TIE_BREAK * min(loss, LOSS_CEILING)


def epoch_order(labels: np.ndarray, sampling: str, seed: int, epoch: int) -> np.ndarray:
    """Positions 0..n - 1 in the order of one epoch: a permutation, or n draws with replacement with p ~ 1 /
    n_c.

    Args:
        labels: int (n,), 0..6, of the training images.
        sampling: ``uniform`` or ``inverse_frequency``.
    """
    rng = generator(seed, "order", epoch)
    if sampling == "uniform":
        return rng.permutation(len(labels))
    counts = np.bincount(labels)
    return rng.choice(len(labels), size=len(labels), p=1.0 / (np.count_nonzero(counts) * counts[labels]))


def mixed(parts: Sequence[Tensor], alpha: float, rng: np.random.Generator) -> list[Tensor]:
    """Mixup (Zhang et al., ICLR 2018): l x_i + (1 - l) x_j with l ~ Beta(alpha, alpha), partners j a permutation.

    Args:
        parts: float (B, ...): images, masks, class probabilities; all mixed alike.
        alpha: positive.
        rng: the source of randomness.
    """
    share, partner = float(rng.beta(alpha, alpha)), rng.permutation(len(parts[0]))
    return [share * part + (1.0 - share) * part[partner] for part in parts]


def augmented_batch(
    images: LabelledImages, rows: np.ndarray, augment: Augmenter, keys: tuple[int | str, ...]
) -> tuple[Tensor, Tensor]:
    """Augmented samples: images float32 (B, 3, S, S) in 0..255 and soft masks float32 (B, 1, S, S) in 0..1.

    A sample's randomness depends on ``keys`` and its place in the batch alone.
    """
    pixels, masks = [], []
    for place, row in enumerate(rows):
        pixel, mask = augment(images.image(row), images.mask(row), *keys, place)
        pixels.append(pixel)
        masks.append(mask)
    return to_input(np.stack(pixels), "cpu"), to_mask_input(np.stack(masks), "cpu")


def validation_batches(images: LabelledImages) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    """Validation images, soft masks and labels, batch by batch, not augmented."""
    for start in range(0, len(images.val), VALIDATION_BATCH):
        rows = images.val[start : start + VALIDATION_BATCH]
        pixels = np.stack([images.image(row) for row in rows])
        masks = np.stack([images.mask(row) for row in rows])
        yield to_input(pixels, "cpu"), to_mask_input(masks, "cpu"), images.labels[rows]


def validation_metrics(logits: Tensor, labels: np.ndarray) -> dict[str, float]:
    """Of logits (N, 7) and labels int (N,): balanced accuracy, accuracy, unweighted loss in nats, selection."""
    loss = float(torch.nn.functional.cross_entropy(logits.double(), torch.as_tensor(labels)))
    predicted = logits.argmax(dim=1).numpy()
    score = balanced_accuracy(labels, predicted)
    return {
        "balanced_accuracy": score,
        "accuracy": float((predicted == labels).mean()),
        "loss": loss,
        "selection": selection_value(score, loss),
    }


class ClassificationTask(TrainingTask):
    """The engine's view of a classifier's training.

    ``model`` is a ClassifierModule, or a JointModel.
    """

    selection_metric = "selection"
    selection_mode: Literal["min", "max"] = "max"
    module: Any

    def __init__(
        self,
        model: Any,
        images: LabelledImages,
        *,
        loss: ClassificationLoss,
        augmentation: Augmentation,
        seed: int,
        device: str,
    ) -> None:
        self.module = model.to(device)
        self.images, self.settings, self.augment = images, loss, Augmenter(augmentation)
        self.seed, self.device = seed, device
        self.weights = loss_weights(images.counts(), loss).to(device)
        self.metadata = None
        if model.needs_metadata:
            self.metadata = torch.from_numpy(model.vocabulary.encode(images.data.index))

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers in the order of ``epoch``; a function of seed and epoch alone."""
        labels = self.images.labels[self.images.train]
        return self.images.train[epoch_order(labels, self.settings.sampling, self.seed, epoch)]

    def batch(self, rows: np.ndarray, epoch: int, step: int) -> dict[str, Tensor]:
        """Augmented and, if asked for, mixed samples: images, masks, targets (B, 7), and metadata (B, 3) if used."""
        pixels, masks = augmented_batch(self.images, rows, self.augment, (self.seed, "augment", epoch, step))
        parts = [pixels, masks, one_hot(self.images.labels[rows], len(CLASSES))]
        if self.settings.mixup_alpha > 0:
            parts = mixed(parts, self.settings.mixup_alpha, generator(self.seed, "mixup", epoch, step))
        known = {} if self.metadata is None else {"metadata": self.metadata[rows]}
        return {**dict(zip(("images", "masks", "targets"), parts, strict=True)), **known}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Weighted (focal) cross-entropy of a batch, and the share of samples classified right."""
        images, masks, targets = (batch[key].to(self.device) for key in ("images", "masks", "targets"))
        logits = self.module(images, masks, *(batch[key].to(self.device) for key in ("metadata",) if key in batch))
        loss = classification_loss(logits, targets, self.weights, self.settings)
        right = (logits.detach().argmax(dim=1) == targets.argmax(dim=1)).float().mean()
        return loss, {"train_accuracy": float(right)}

    def validate(self) -> dict[str, float]:
        """Metrics on the validation images, see ``validation_metrics``."""
        self.module.eval()
        logits, labels = [], []
        with torch.inference_mode():
            for start, (images, masks, truth) in enumerate(validation_batches(self.images)):
                rows = self.images.val[start * VALIDATION_BATCH :][: len(truth)]
                known = () if self.metadata is None else (self.metadata[rows].to(self.device),)
                logits.append(self.module(images.to(self.device), masks.to(self.device), *known).float().cpu())
                labels.append(truth)
        return validation_metrics(torch.cat(logits), np.concatenate(labels))


def open_images(run: Run, root: Path) -> LabelledImages:
    """The images and masks of a classification run; masks only where the model looks at them.

    Raises:
        SettingsError: the model needs masks and the run names none.
    """
    spec = run.spec
    assert isinstance(spec, ClassificationMethod)
    needs_masks = spec.model.uses_masks
    return load_labelled_images(
        root,
        run.pixels,
        spec.train_on,
        spec.model.image_size,
        masks=spec.masks if needs_masks else None,
        segmenter_run=run.segmenter_run,
        shuffle_seed=run.seed if spec.mask_order == "shuffled" else None,
    )


def train_run(run: Run, run_dir: Path, root: Path, device: str) -> None:
    """Train one classification run: writes settings.yaml, history.csv, weights.safetensors and provenance.json.

    The best epoch is the one with the highest balanced accuracy on validation images, ties broken by their loss. A run
    that was stopped goes on where its checkpoint stands.

    Args:
        run: its settings; ``run.spec`` is a ClassificationMethod.

    Raises:
        SplitError, CatalogError, MaskError: the data cannot train it; see ``load_labelled_images``.
        SettingsError: the model's settings contradict each other.
        WeightsError: published weights are missing or do not fit.
    """
    spec = run.spec
    assert isinstance(spec, ClassificationMethod)
    with started(run, run_dir, root, device) as job:
        images = open_images(run, root)
        reference, files = job.reference()
        weights = starting_weights(weights_name(spec.model), Path(root) / "weights")
        inputs = [*images.inputs, *files, *([weights] if weights else [])]
        if spec.model.kind in NETWORKS:
            tensors, extra = _train_network(job, spec, images, weights, inputs)
        else:
            tensors, extra = _fit_classical(job.run_dir, spec, images)
        job.finish(tensors | reference, inputs, extra)


def best_score(result: FitResult) -> float | None:
    """Balanced accuracy of the selected epoch; None if nothing was trained."""
    if result.best_epoch == 0:
        return None
    return result.history[result.best_epoch - 1]["val_balanced_accuracy"]


def _train_network(
    job: Job, spec: ClassificationMethod, images: LabelledImages, weights: Path | None, inputs: list[Path]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    seed, vocabulary = job.run.seed, images.vocabulary() if spec.model.metadata != "none" else None
    model = build_classifier(spec.model, job.run.extraction, seed=seed, vocabulary=vocabulary, weights=weights)
    task = ClassificationTask(
        model, images, loss=spec.loss, augmentation=spec.augmentation, seed=seed, device=job.device
    )
    result = job.fit(task, spec.training, inputs)
    kept = {} if vocabulary is None else {VOCABULARY_KEY: torch.from_numpy(vocabulary.to_bytes())}
    return {**task.state(), **kept}, fit_extra(task, result, "balanced_accuracy", best_score(result))


def _fit_classical(
    run_dir: Path, spec: ClassificationMethod, images: LabelledImages
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Fit a baseline in closed form; history.csv has a row per candidate of C, or one row."""
    labels = images.labels
    if spec.model.kind == "majority":
        model: Majority | ColourHistogram = Majority.fit(labels[images.train])
        predicted = model.class_probabilities(images.val).argmax(axis=1)
        history = [{"val_balanced_accuracy": balanced_accuracy(labels[images.val], predicted)}]
    else:
        masked = spec.model.input != "full"

        def features(rows: np.ndarray) -> np.ndarray:
            return np.stack([colour_histogram(images.image(row), images.mask(row) if masked else None) for row in rows])

        model, history = ColourHistogram.fit(
            (features(images.train), labels[images.train]),
            (features(images.val), labels[images.val]),
            masked=masked,
        )
    best = max(row["val_balanced_accuracy"] for row in history)
    if first_process():
        write_csv(run_dir / HISTORY, list(history[0]), history)
    say(f"{run_dir.name}: balanced accuracy {best:.4f} on {len(images.val)} validation images")
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in model.state().items()}
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return tensors, {"parameters": parameters, "best_validation_balanced_accuracy": best}
