"""Segmentation scores of binary masks, by the rules of the ISIC challenge's scorer (isic-challenge-scoring).

Rule for empty masks, as the challenge's: a ratio without a denominator counts 1.0. So an empty prediction of an empty
truth has Dice and IoU 1.0, a truth without lesion pixels has sensitivity 1.0, a truth without background pixels has
specificity 1.0. An empty prediction of a lesion has Dice, IoU and sensitivity 0.0.

Every score takes a ``Confusion`` of one image (integers) or of N images (arrays (N,)) and returns a float or float64
(N,). Two ways of averaging exist and must not be mixed: ``dice(c).mean()`` over images, and ``dice(pooled(c))`` over
all their pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lesion_core.errors import ScoreError

JACCARD_THRESHOLD = 0.65
Score = float | np.ndarray


class Confusion(NamedTuple):
    """Pixel counts: integers of one image, or int64 (N,) of N images."""

    tp: int | np.ndarray
    fp: int | np.ndarray
    fn: int | np.ndarray
    tn: int | np.ndarray


def confusion(prediction: np.ndarray, truth: np.ndarray) -> Confusion:
    """Count the pixels of one image.

    Args:
        prediction, truth: bool arrays of one shape, usually (H, W); True is lesion.

    Raises:
        ScoreError: not bool, of different shapes, or without pixels.
    """
    _check(prediction, truth)
    tp = int(np.count_nonzero(prediction & truth))
    positive = int(np.count_nonzero(prediction))
    lesion = int(np.count_nonzero(truth))
    return Confusion(tp, positive - tp, lesion - tp, truth.size - positive - lesion + tp)


def pooled(counts: Confusion) -> Confusion:
    """Add the counts of N images, as if all pixels belonged to one image.

    Raises:
        ScoreError: no image.
    """
    if np.size(counts.tp) == 0:
        raise ScoreError("Pooled scores need at least one image")
    return Confusion(*(int(np.sum(part)) for part in counts))


def dice(counts: Confusion) -> Score:
    """2 TP / (2 TP + FP + FN), 0..1; both masks empty: 1.0."""
    tp, fp, fn, _ = _arrays(counts)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def iou(counts: Confusion) -> Score:
    """Jaccard index TP / (TP + FP + FN), 0..1; both masks empty: 1.0."""
    tp, fp, fn, _ = _arrays(counts)
    return _ratio(tp, tp + fp + fn)


def thresholded_iou(counts: Confusion, threshold: float = JACCARD_THRESHOLD) -> Score:
    """IoU, but 0.0 where it is below ``threshold``: the goal metric of ISIC 2018 Task 1. Per image only."""
    value = np.asarray(iou(counts))
    return _plain(np.where(value >= threshold, value, 0.0))


def sensitivity(counts: Confusion) -> Score:
    """TP / (TP + FN), 0..1; no lesion pixel in the truth: 1.0."""
    tp, _, fn, _ = _arrays(counts)
    return _ratio(tp, tp + fn)


def specificity(counts: Confusion) -> Score:
    """TN / (TN + FP), 0..1; no background pixel in the truth: 1.0."""
    _, fp, _, tn = _arrays(counts)
    return _ratio(tn, tn + fp)


def accuracy(counts: Confusion) -> Score:
    """(TP + TN) / pixels, 0..1."""
    tp, fp, fn, tn = _arrays(counts)
    return _ratio(tp + tn, tp + fp + fn + tn)


def scores(counts: Confusion) -> dict[str, Score]:
    """All scores by their column names: dice, iou, thresholded_iou, sensitivity, specificity, accuracy."""
    return {
        "dice": dice(counts),
        "iou": iou(counts),
        "thresholded_iou": thresholded_iou(counts),
        "sensitivity": sensitivity(counts),
        "specificity": specificity(counts),
        "accuracy": accuracy(counts),
    }


def _check(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise ScoreError(
                f"The {name} is not a bool array but {getattr(mask, 'dtype', type(mask).__name__)}",
                remedy="threshold it first: probabilities at tau, mask files at > 128",
            )
    if prediction.shape != truth.shape:
        raise ScoreError(
            f"The prediction is {prediction.shape}, the truth {truth.shape}",
            remedy="resize the probabilities to the truth's size, then threshold",
        )
    if truth.size == 0:
        raise ScoreError("The masks have no pixel")


def _arrays(counts: Confusion) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(part, dtype=np.float64) for part in counts)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> Score:
    """The quotient, 1.0 where the denominator is 0 (the challenge's rule)."""
    one = np.ones(np.shape(denominator))
    return _plain(np.divide(numerator, denominator, out=one, where=denominator != 0))


def _plain(value: np.ndarray) -> Score:
    return float(value) if np.ndim(value) == 0 else value
