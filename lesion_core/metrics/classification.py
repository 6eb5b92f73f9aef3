"""Classification scores of labels and probabilities, pure NumPy.

Labels are class indices 0..C-1, int (N,); probabilities are float (N, C), or scores (N,) of one class against the rest.

Degenerate cases, decided here once:
- Class absent from truth *and* predictions: left out of macro precision, recall and F1 (as scikit-learn).
- Class predicted but absent from the truth: its recall and F1 count 0 in the macro means (as scikit-learn), and it is
  left out of balanced accuracy (as the ISIC scorer and scikit-learn).
- Class never predicted: precision 0.
- One class alone (no positives or no negatives): AUC and sensitivity at a specificity are NaN, and the class is
  left out of their macro means; average precision is NaN without positives and 1.0 without negatives.
- Equal scores: AUC counts a tied pair 1/2 (mid-ranks); average precision and ROC points take equal scores together.
- Equal largest probabilities: the class with the lowest index is predicted (the ISIC scorer calls the sample wrong).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lesion_core.errors import ScoreError


class PerClass(NamedTuple):
    """Scores of each class, float64 (C,); ``support`` int64 (C,) is its number of true samples."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray


class Averages(NamedTuple):
    """Means over classes, 0..1."""

    precision: float
    recall: float
    f1: float


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts, int64 (C, C): rows are true classes, columns predicted ones.

    Raises:
        ScoreError: no samples, different lengths, not integers, or an index outside 0..C-1.
    """
    truth, predicted = _labels(truth, n_classes, "truth"), _labels(predicted, n_classes, "prediction")
    if truth.shape != predicted.shape:
        raise ScoreError(f"{truth.size} true labels but {predicted.size} predictions")
    return np.bincount(truth * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(matrix: np.ndarray) -> float:
    """Share of samples on the diagonal of a confusion matrix (C, C)."""
    return float(np.trace(matrix) / matrix.sum())


def balanced_accuracy(matrix: np.ndarray) -> float:
    """Mean recall over the classes that occur in the truth: the goal metric of ISIC 2018 Task 3."""
    support = matrix.sum(axis=1)
    present = support > 0
    return float(np.mean(np.diag(matrix)[present] / support[present]))


def per_class(matrix: np.ndarray) -> PerClass:
    """Precision, recall and F1 of each class; a ratio without a denominator is 0 (see the module's rules)."""
    hits, support, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return PerClass(
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, support + predicted),
        support=support,
        predicted=predicted,
    )


def macro(matrix: np.ndarray) -> Averages:
    """Unweighted means over the classes that occur in the truth or the predictions."""
    each = per_class(matrix)
    used = (each.support + each.predicted) > 0
    return Averages(*(float(np.mean(part[used])) for part in each[:3]))


def weighted(matrix: np.ndarray) -> Averages:
    """Means weighted by the classes' true counts; weighted recall equals accuracy."""
    each = per_class(matrix)
    share = each.support / each.support.sum()
    return Averages(*(float(np.sum(share * part)) for part in each[:3]))


def midranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1..N of float (N,), equal values share the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], len(values)]
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + ends + 1) / 2.0, ends - starts)
    return ranks


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve by the rank sum (Mann-Whitney); NaN if one class is missing.

    Args:
        positive: bool (N,).
        score: float (N,), greater means more likely positive.
    """
    positive, score = _binary(positive, score)
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = midranks(score)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def auc_per_class(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """One-versus-rest AUC of each class, float64 (C,); NaN where a class is absent or alone."""
    truth, probabilities = _truth_and_probabilities(truth, probabilities)
    return np.array([auc(truth == c, probabilities[:, c]) for c in range(probabilities.shape[1])])


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Sum of (R_k - R_{k-1}) P_k over the distinct scores, descending, without interpolation; NaN without positives."""
    positive, score = _binary(positive, score)
    if not positive.any():
        return float("nan")
    tp, fp = _cumulative(positive, score)
    recall = tp / tp[-1]
    return float(np.sum(np.diff(np.r_[0.0, recall]) * tp / (tp + fp)))


def average_precision_per_class(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """One-versus-rest average precision of each class, float64 (C,); NaN where a class is absent."""
    truth, probabilities = _truth_and_probabilities(truth, probabilities)
    return np.array([average_precision(truth == c, probabilities[:, c]) for c in range(probabilities.shape[1])])


def nan_mean(values: np.ndarray) -> float:
    """Mean of the numbers that are defined; NaN if none is."""
    values = np.asarray(values, dtype=np.float64)
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")


def sensitivity_at_specificity(positive: np.ndarray, score: np.ndarray, specificity: float = 0.95) -> float:
    """Greatest sensitivity of a threshold (positive if score >= it) whose specificity is at least ``specificity``.

    No interpolation between ROC points; "nothing is positive" is a threshold too, so 0.0 is the least. NaN if one class
    is missing. For melanoma: ``sensitivity_at_specificity(truth == mel, probabilities[:, mel])``.
    """
    if not 0.0 <= specificity <= 1.0:
        raise ScoreError(f"A specificity lies in 0..1, not {specificity}")
    positive, score = _binary(positive, score)
    n_negative = int((~positive).sum())
    if n_negative == 0 or n_negative == positive.size:
        return float("nan")
    tp, fp = _cumulative(positive, score)
    # Compared as counts: 1 - fp / n would lose 0.95 to rounding at fp = 1 of 20.
    allowed = fp <= n_negative * (1.0 - specificity) + 1e-9
    return float(tp[allowed].max() / tp[-1]) if allowed.any() else 0.0


def scores(truth: np.ndarray, probabilities: np.ndarray, melanoma: int | None = None) -> dict[str, float]:
    """All scores of one run by name.

    Args:
        truth: int (N,), class indices.
        probabilities: float (N, C).
        melanoma: index of melanoma, for ``melanoma_sensitivity_at_95_specificity``; None leaves it out.
    """
    truth, probabilities = _truth_and_probabilities(truth, probabilities)
    matrix = confusion_matrix(truth, probabilities.argmax(axis=1), probabilities.shape[1])
    macro_means, weighted_means = macro(matrix), weighted(matrix)
    result = {"accuracy": accuracy(matrix), "balanced_accuracy": balanced_accuracy(matrix)}
    for name in Averages._fields:
        result[name] = getattr(macro_means, name)
        result[f"{name}_weighted"] = getattr(weighted_means, name)
    result["auc"] = nan_mean(auc_per_class(truth, probabilities))
    result["average_precision"] = nan_mean(average_precision_per_class(truth, probabilities))
    if melanoma is not None:
        result["melanoma_sensitivity_at_95_specificity"] = sensitivity_at_specificity(
            truth == melanoma, probabilities[:, melanoma], 0.95
        )
    return result


def _cumulative(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at each distinct threshold, descending."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    tp = np.cumsum(positive[order])[last]
    return tp.astype(np.float64), (last + 1 - tp).astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(denominator)), where=denominator != 0)


def _labels(labels: np.ndarray, n_classes: int, name: str) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0:
        raise ScoreError(f"The {name} is not a list of labels: shape {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ScoreError(f"The {name} holds {labels.dtype}, not class indices")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ScoreError(f"The {name} holds indices outside 0..{n_classes - 1}")
    return labels.astype(np.int64)


def _binary(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positive, score = np.asarray(positive), np.asarray(score, dtype=np.float64)
    if positive.dtype != np.bool_ or positive.ndim != 1 or positive.shape != score.shape or positive.size == 0:
        raise ScoreError(f"Expected bool (N,) and scores (N,), got {positive.dtype} {positive.shape}, {score.shape}")
    if np.isnan(score).any():
        raise ScoreError("The scores hold NaN")
    return positive, score


def _truth_and_probabilities(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2:
        raise ScoreError(f"Probabilities are (N, C), not {probabilities.shape}")
    truth = _labels(truth, probabilities.shape[1], "truth")
    if len(truth) != len(probabilities):
        raise ScoreError(f"{len(truth)} true labels but {len(probabilities)} rows of probabilities")
    if np.isnan(probabilities).any():
        raise ScoreError("The probabilities hold NaN")
    return truth, probabilities
