"""Correction for many tests."""

from __future__ import annotations

import numpy as np

from lesion_core.errors import ScoreError


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p values (family-wise error), float64 (m,), in the order given.

    NaN (a test that could not be made) stays NaN and is not counted.

    Raises:
        ScoreError: a value outside 0..1.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p_values.shape, np.nan)
    defined = np.flatnonzero(~np.isnan(p_values))
    values = p_values[defined]
    if values.size and (values.min() < 0 or values.max() > 1):
        raise ScoreError("A p value lies outside 0..1")
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted[defined[order]] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted
