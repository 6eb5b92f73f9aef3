"""Calibration: Brier score, expected calibration error, temperature scaling (Guo et al., ICML 2017)."""

from __future__ import annotations

import numpy as np

from lesion_core.errors import ScoreError

TEMPERATURE_RANGE = (0.01, 100.0)
LEAST_PROBABILITY = 1e-12


def brier(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Multi-class Brier score: mean over samples of sum_c (p_c - [y = c])^2, 0 (best) to 2.

    For two classes this is twice the Brier score of the positive class alone.

    Args:
        truth: int (N,), class indices.
        probabilities: float (N, C), rows sum to 1.
    """
    truth, probabilities = _inputs(truth, probabilities)
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
    truth, probabilities = _inputs(truth, probabilities)
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
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """log p, float64 (N, C), which serve as logits; a probability of 0 counts as 1e-12."""
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), LEAST_PROBABILITY))


def negative_log_likelihood(truth: np.ndarray, logits: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the truth, nats."""
    truth, logits = _inputs(truth, logits)
    scaled = logits / temperature
    top = scaled.max(axis=1)
    log_sum = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float(np.mean(log_sum - scaled[np.arange(len(truth)), truth]))


def fit_temperature(truth: np.ndarray, logits: np.ndarray) -> float:
    """The temperature that minimises the negative log-likelihood of *validation* logits.

    The likelihood is convex in 1/T, so its slope is bisected. Logits that are right throughout (or worse than
    none) have no finite optimum: the nearer end of ``TEMPERATURE_RANGE`` is returned. Log-probabilities serve as
    logits.

    Args:
        truth: int (N,), class indices.
        logits: float (N, C), finite.
    """
    truth, logits = _inputs(truth, logits)
    logits = logits - logits.max(axis=1, keepdims=True)
    target = logits[np.arange(len(truth)), truth]

    def slope(inverse: float) -> float:
        return float(np.mean(np.sum(softmax(logits, 1.0 / inverse) * logits, axis=1) - target))

    low, high = 1.0 / TEMPERATURE_RANGE[1], 1.0 / TEMPERATURE_RANGE[0]
    if slope(low) >= 0.0:
        return TEMPERATURE_RANGE[1]
    if slope(high) <= 0.0:
        return TEMPERATURE_RANGE[0]
    while high / low > 1.0 + 1e-12:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if slope(middle) < 0.0 else (low, middle)
    return float(1.0 / np.sqrt(low * high))


def _inputs(truth: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, values = np.asarray(truth), np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or truth.shape != (len(values),) or not len(values):
        raise ScoreError(f"Expected labels (N,) and values (N, C), got {truth.shape} and {values.shape}")
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= values.shape[1]:
        raise ScoreError(f"Labels are class indices 0..{values.shape[1] - 1}")
    if not np.isfinite(values).all():
        raise ScoreError("The probabilities or logits are not all finite")
    return truth, values


def _check_distributions(probabilities: np.ndarray) -> None:
    if probabilities.min() < 0.0 or not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-4):
        raise ScoreError("Rows of probabilities are not negative and sum to 1", remedy="pass softmax(logits)")
