"""Many tests: correction for them, and one p value for several of the same hypothesis."""

from __future__ import annotations

import numpy as np
import pingouin

from lesion_core.errors import ScoreError


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p values (family-wise error), float64 (m,), in the order given.

    NaN (a test that could not be made) stays NaN and is not counted.

    Raises:
        ScoreError: a value outside 0..1.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if (p_values < 0).any() or (p_values > 1).any():
        raise ScoreError("A p value lies outside 0..1")
    if np.isnan(p_values).all():
        return p_values
    return pingouin.multicomp(p_values, method="holm")[1]


def combine_dependent(p_values: np.ndarray) -> float:
    """One p value for K tests of one hypothesis that may depend on each other in any way (Rueger, Metrika 25, 1978).

    K / k times the k-th smallest, with k = K // 2 + 1 (the upper median): a valid p value whatever the dependence,
    since under the hypothesis K u of the K values are at most u in the mean, so k of them with a probability of K u / k
    at most. K = 1: the p value itself. For such averages of p values see Vovk and Wang, Biometrika 107, 2020.

    Args:
        p_values: float (K,), K >= 1; NaN where any is.

    Raises:
        ScoreError: none is given, or one lies outside 0..1.
    """
    values = np.sort(np.asarray(p_values, dtype=np.float64))
    if values.ndim != 1 or not values.size or values.min() < 0 or values.max() > 1:
        raise ScoreError("p values (K,) within 0..1 are needed")
    if np.isnan(values).any():
        return float("nan")
    place = len(values) // 2
    return min(1.0, float(values[place]) * len(values) / (place + 1))
