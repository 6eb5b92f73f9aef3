"""Classification scores of labels and probabilities, by scikit-learn.

Labels are class indices 0..C-1, int (N,); probabilities are float (N, C), or scores (N,) of one class against the rest.

Degenerate cases, decided here once:
- Class absent from truth *and* predictions: left out of macro precision, recall and F1.
- Class predicted but absent from the truth: its recall and F1 count 0 in the macro means, and it is left out of
  balanced accuracy (as the ISIC scorer does).
- Class never predicted: precision 0.
- One class alone (no positives or no negatives): AUC and sensitivity at a specificity are NaN, and the class is
  left out of their macro means; average precision is NaN without positives and 1.0 without negatives.
- Equal scores: AUC counts a tied pair 1/2; average precision and ROC points take equal scores together.
- Equal largest probabilities: the class with the lowest index is predicted (the ISIC scorer calls the sample wrong).
"""

from __future__ import annotations

import numpy as np
from sklearn import metrics

from lesion_core.errors import ScoreError


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall over the classes that occur in the truth, the goal metric of ISIC 2018 Task 3; int (N,) twice."""
    present = np.unique(truth)
    return float(metrics.recall_score(truth, predicted, labels=present, average="macro", zero_division=0))


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; NaN if one class is missing.

    Args:
        positive: bool (N,).
        score: float (N,), greater means more likely positive.
    """
    return float("nan") if _is_one_class(positive) else float(metrics.roc_auc_score(positive, score))


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Sum of (R_k - R_{k-1}) P_k over the distinct scores, descending, without interpolation; NaN without positives."""
    return float(metrics.average_precision_score(positive, score)) if positive.any() else float("nan")


def sensitivity_at_specificity(positive: np.ndarray, score: np.ndarray, specificity: float = 0.95) -> float:
    """Greatest sensitivity of a threshold (positive if score >= it) whose specificity is at least ``specificity``.

    No interpolation between ROC points; "nothing is positive" is a threshold too, so 0.0 is the least. NaN if one class
    is missing. For melanoma: ``sensitivity_at_specificity(truth == mel, probabilities[:, mel])``.
    """
    if _is_one_class(positive):
        return float("nan")
    false_positive, sensitivity, _ = metrics.roc_curve(positive, score, drop_intermediate=False)
    return float(sensitivity[false_positive <= 1.0 - specificity + 1e-9].max())


def scores(truth: np.ndarray, probabilities: np.ndarray, melanoma: int | None = None) -> dict[str, float]:
    """All scores of one run by name.

    Args:
        truth: int (N,), class indices.
        probabilities: float (N, C).
        melanoma: index of melanoma, for ``melanoma_sensitivity_at_95_specificity``; None leaves it out.

    Raises:
        ScoreError: no samples, different lengths, labels that are no class indices, or NaN.
    """
    truth, probabilities = checked(truth, probabilities)
    predicted = probabilities.argmax(axis=1)
    result = {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "balanced_accuracy": balanced_accuracy(truth, predicted),
    }
    for average, suffix in (("macro", ""), ("weighted", "_weighted")):
        means = metrics.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        result |= {
            f"{name}{suffix}": float(mean) for name, mean in zip(("precision", "recall", "f1"), means[:3], strict=True)
        }
    each = [(truth == c, probabilities[:, c]) for c in range(probabilities.shape[1])]
    result["auc"] = _mean_of_defined([auc(*one) for one in each])
    result["average_precision"] = _mean_of_defined([average_precision(*one) for one in each])
    if melanoma is not None:
        result["melanoma_sensitivity_at_95_specificity"] = sensitivity_at_specificity(*each[melanoma])
    return result


def checked(truth: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class indices int (N,) and finite probabilities or logits float64 (N, C), N at least 1; else a ScoreError."""
    truth, values = np.asarray(truth), np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or truth.shape != (len(values),) or not len(values):
        raise ScoreError(f"Expected labels (N,) and values (N, C), got {truth.shape} and {values.shape}")
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= values.shape[1]:
        raise ScoreError(f"Labels are class indices 0..{values.shape[1] - 1}")
    if not np.isfinite(values).all():
        raise ScoreError("The probabilities or logits are not all finite")
    return truth, values


def _is_one_class(positive: np.ndarray) -> bool:
    return bool(positive.all() or not positive.any())


def _mean_of_defined(values: list[float]) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
