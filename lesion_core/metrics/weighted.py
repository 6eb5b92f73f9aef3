"""Classification metrics of many weightings at once: a bootstrap resample is a whole number of copies of each image.

With weights of 1 every metric equals the one in ``lesion_core.metrics.classification`` or ``calibration``; their rules
for absent classes, ties and one-class cases hold here too.
"""

from __future__ import annotations

import numpy as np

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "auc",
    "average_precision",
    "melanoma_sensitivity_at_95_specificity",
    "brier",
    "ece",
)
ECE_BINS = 15
SPECIFICITY = 0.95


def weighted_scores(
    truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, melanoma: int
) -> dict[str, np.ndarray]:
    """Every metric of ``METRICS`` for every weighting.

    Args:
        truth: int (N,), class indices.
        probabilities: float (N, C), rows sum to 1.
        weights: float (R, N), not negative, e.g. how often a resample drew each image.
        melanoma: index of melanoma.

    Returns:
        metric -> float64 (R,); NaN where a weighting leaves it undefined (no image, one class alone).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        found = _counts(truth, probabilities, weights)
        curves = [_curves(truth == c, probabilities[:, c], weights) for c in range(probabilities.shape[1])]
        found["auc"] = _nan_mean(np.array([curve[0] for curve in curves]))
        found["average_precision"] = _nan_mean(np.array([curve[1] for curve in curves]))
        found["melanoma_sensitivity_at_95_specificity"] = curves[melanoma][2]
    return {name: found[name] for name in METRICS}


def _counts(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of the confusion matrix, Brier score and expected calibration error."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    pairs = np.zeros((len(truth), classes * classes))
    pairs[np.arange(len(truth)), truth * classes + predicted] = 1.0
    matrices = (weights @ pairs).reshape(-1, classes, classes)
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    support, guessed, total = matrices.sum(axis=2), matrices.sum(axis=1), weights.sum(axis=1)
    used = support + guessed > 0
    recall = np.where(support > 0, hits / support, 0.0)
    precision = np.where(guessed > 0, hits / guessed, 0.0)
    f1 = np.where(used, 2 * hits / (support + guessed), 0.0)
    errors = probabilities.copy()
    errors[np.arange(len(truth)), truth] -= 1.0
    confidence = probabilities.max(axis=1)
    index = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps = np.zeros((len(truth), ECE_BINS))
    gaps[np.arange(len(truth)), index] = (predicted == truth) - confidence
    return {
        "accuracy": hits.sum(axis=1) / total,
        "balanced_accuracy": recall.sum(axis=1) / (support > 0).sum(axis=1),
        "precision": precision.sum(axis=1) / used.sum(axis=1),
        "recall": recall.sum(axis=1) / used.sum(axis=1),
        "f1": f1.sum(axis=1) / used.sum(axis=1),
        "brier": weights @ (errors**2).sum(axis=1) / total,
        "ece": np.abs(weights @ gaps).sum(axis=1) / total,
    }


def _curves(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUC, average precision and sensitivity at the specificity of one class against the rest, (R,) each."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn = weights[:, order]
    tied = np.add.reduceat(drawn * positive[order], starts, axis=1)
    tp = np.cumsum(tied, axis=1)
    others = np.add.reduceat(drawn * ~positive[order], starts, axis=1)
    fp = np.cumsum(others, axis=1)
    positives, negatives = tp[:, -1], fp[:, -1]
    auc = (tied * (negatives[:, None] - fp + others / 2)).sum(axis=1) / (positives * negatives)
    precision = np.where(tp + fp > 0, tp / (tp + fp), 0.0)
    average = (tied * precision).sum(axis=1) / positives
    allowed = fp <= negatives[:, None] * (1.0 - SPECIFICITY) + 1e-9
    sensitivity = np.where(allowed, tp, 0.0).max(axis=1) / positives
    one_class = (positives == 0) | (negatives == 0)
    return np.where(one_class, np.nan, auc), average, np.where(one_class, np.nan, sensitivity)


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is defined, NaN where nothing is."""
    defined = ~np.isnan(values)
    return np.where(defined, values, 0.0).sum(axis=0) / np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)
