"""Calibration: Brier score, expected calibration error, temperature scaling (Guo et al., ICML 2017)."""

from __future__ import annotations

import numpy as np
from scipy import special
from scipy.optimize import brentq

from lesion_core.errors import ScoreError
from lesion_core.metrics.classification import checked

TEMPERATURE_RANGE = (0.01, 100.0)
LEAST_PROBABILITY = 1e-12


def brier(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Multi-class Brier score: mean over samples of sum_c (p_c - [y = c])^2, 0 (best) to 2.

    For two classes this is twice the Brier score of the positive class alone.

    Args:
        truth: int (N,), class indices.
        probabilities: float (N, C), rows sum to 1.
    """
    truth, probabilities = checked(truth, probabilities)
    _check_distributions(probabilities)
    errors = probabilities.copy()
    errors[np.arange(len(truth)), truth] -= 1.0
    return float(np.mean(np.sum(errors**2, axis=1)))


def ece(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the predicted class, 0..1.

    Confidence is the largest probability; bins are of equal width, (l, u]; each bin's |accuracy - mean confidence| is
    weighted by its share of samples; empty bins count nothing. Equal largest probabilities: lowest index.
    """
    if bins < 1:
        raise ScoreError(f"At least one bin is needed, not {bins}")
    truth, probabilities = checked(truth, probabilities)
    _check_distributions(probabilities)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # Per bin: |sum(correct) - sum(confidence)| / N, which is the weighted gap without a division by the bin's count.
    gaps = np.bincount(index, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / temperature), float64 (N, C)."""
    if not temperature > 0:
        raise ScoreError(f"A temperature is positive, not {temperature}")
    return special.softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """log p, float64 (N, C), which serve as logits; a probability of 0 counts as 1e-12."""
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), LEAST_PROBABILITY))


def fit_temperature(truth: np.ndarray, logits: np.ndarray) -> float:
    """The temperature that minimises the negative log-likelihood of *validation* logits.

    The likelihood is convex in 1/T, so its slope has one root. Logits that are right throughout (or worse than
    none) have no finite optimum: the nearer end of ``TEMPERATURE_RANGE`` is returned. Log-probabilities serve as
    logits.

    Args:
        truth: int (N,), class indices.
        logits: float (N, C), finite.
    """
    truth, logits = checked(truth, logits)
    logits = logits - logits.max(axis=1, keepdims=True)
    target = logits[np.arange(len(truth)), truth]

    def slope(log_temperature: float) -> float:
        return float(np.mean(np.sum(softmax(logits, np.exp(log_temperature)) * logits, axis=1) - target))

    low, high = np.log(TEMPERATURE_RANGE)
    if slope(high) >= 0.0:
        return TEMPERATURE_RANGE[1]
    if slope(low) <= 0.0:
        return TEMPERATURE_RANGE[0]
    return float(np.exp(brentq(slope, low, high, xtol=1e-13)))


def _check_distributions(probabilities: np.ndarray) -> None:
    if probabilities.min() < 0.0 or not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-4):
        raise ScoreError("Rows of probabilities are not negative and sum to 1", remedy="pass softmax(logits)")
