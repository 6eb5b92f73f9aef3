"""Class balance and mixup (paper A, section 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np


def class_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """How often each class occurs.

    Args:
        labels: int (N,), 0..classes - 1; -1 (no label) is left out.
        classes: number of classes.

    Returns:
        int64 (classes,).

    Raises:
        ValueError: a label is outside -1..classes - 1.
    """
    labels = np.asarray(labels)
    if labels.size and (labels.min() < -1 or labels.max() >= classes):
        raise ValueError(f"labels must lie in -1..{classes - 1}, got {labels.min()}..{labels.max()}")
    return np.bincount(labels[labels >= 0], minlength=classes)


def sampling_probabilities(labels: np.ndarray, classes: int) -> np.ndarray:
    """A probability per sample such that every class present is drawn equally often, p ~ 1 / n_c.

    Args:
        labels: int (N,), 0..classes - 1; -1 (no label) gets probability 0.
        classes: number of classes.

    Returns:
        float64 (N,), sum 1.

    Raises:
        ValueError: no sample has a label, or a label is out of range.
    """
    counts = class_counts(labels, classes)
    if not counts.any():
        raise ValueError("no sample has a label")
    labels = np.asarray(labels)
    per_class = np.where(counts > 0, 1.0 / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
    return np.where(labels >= 0, per_class[labels], 0.0)


def inverse_frequency_weights(counts: np.ndarray) -> np.ndarray:
    """Class weights ~ 1 / n_c, scaled to sum to the number of classes present; 0 for a class without samples."""
    counts = np.asarray(counts, np.float64)
    return _scaled(np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0))


def effective_number_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Class weights (1 - beta) / (1 - beta^n_c), Cui et al., CVPR 2019, equation 6.

    Args:
        counts: (C,) samples per class, not negative.
        beta: 0 <= beta < 1; 0 gives equal weights, towards 1 the weights go to 1 / n_c.

    Returns:
        float64 (C,), scaled to sum to the number of classes present (as the paper does); 0 for an empty class.
    """
    counts = np.asarray(counts, np.float64)
    # expm1 and log1p keep the digits when beta^n is close to 1.
    missing = -np.expm1(counts * np.log(beta)) if beta > 0 else np.ones_like(counts)
    return _scaled(np.divide(1.0 - beta, missing, out=np.zeros_like(counts), where=counts > 0))


def class_weights(counts: np.ndarray, weighting: str, beta: float) -> np.ndarray:
    """Weights by name, as in ``settings.ClassificationLoss.weighting``.

    Args:
        counts: (C,) samples per class in the training set.
        weighting: ``none``, ``inverse_frequency`` or ``effective_number``.
        beta: for ``effective_number``.

    Returns:
        float64 (C,).

    Raises:
        ValueError: the name is unknown.
    """
    if weighting == "none":
        return np.ones(len(counts))
    if weighting == "inverse_frequency":
        return inverse_frequency_weights(counts)
    if weighting == "effective_number":
        return effective_number_weights(counts, beta)
    raise ValueError(f"unknown weighting {weighting!r}")


def draw_mixup(batch: int, alpha: float, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Draw what mixup needs: l ~ Beta(alpha, alpha) and each sample's partner.

    Args:
        batch: number of samples.
        alpha: not negative; 0 switches mixup off (l = 1).
        rng: the source of randomness.

    Returns:
        l in [0, 1], and an int64 permutation (batch,).
    """
    share = float(rng.beta(alpha, alpha)) if alpha > 0 else 1.0
    return share, rng.permutation(batch)


def mixup(images: Any, targets: Any, alpha: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Mix each sample with a partner: x = l xi + (1 - l) xj, labels alike (Zhang et al., ICLR 2018).

    Args:
        images: float (B, ...), NumPy array or torch tensor.
        targets: float (B, C) class probabilities (one-hot), of the same library.
        alpha: see ``draw_mixup``.
        rng: the source of randomness.

    Returns:
        Mixed images and targets, new arrays of the same kinds (the inputs themselves if alpha is 0).
    """
    share, partner = draw_mixup(len(images), alpha, rng)
    if share == 1.0:
        return images, targets
    return (
        share * images + (1.0 - share) * images[partner],
        share * targets + (1.0 - share) * targets[partner],
    )


def _scaled(weights: np.ndarray) -> np.ndarray:
    present = np.count_nonzero(weights)
    return weights * (present / weights.sum()) if present else weights
