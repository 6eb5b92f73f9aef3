"""What n pairs can show: power of the paired t test, smallest detectable effect, smallest attainable p."""

from __future__ import annotations

import math

import numpy as np

from lesion_core.errors import ScoreError
from lesion_core.stats.paired import smallest_p_wilcoxon

__all__ = ["critical_d_z", "needed_n", "power_paired_t", "smallest_detectable_d_z", "smallest_p_wilcoxon"]

LARGEST_N = 10_000_000
SIMPSON_POINTS = 20_001
TAIL_SD = 12.0


def critical_d_z(n: int, alpha: float = 0.05) -> float:
    """|d_z| beyond which a two-sided paired t test of n pairs has p < alpha: t_crit / sqrt(n); 2.484 for n = 3."""
    _check(n, alpha)
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - alpha / 2)) / math.sqrt(n)


def power_paired_t(d_z: float, n: int, alpha: float = 0.05) -> float:
    """Probability that a two-sided paired t test of n pairs has p < alpha if the true effect is d_z."""
    _check(n, alpha)
    from scipy.special import ndtr

    # P(|T| > c) is the mean of P(|Z + shift| > c s) over the sampling distribution of s = sd / sigma. Integrated here
    # because the library's noncentral t gives NaN once a tail underflows (n = 50, d_z = 1.5).
    df, shift = n - 1, abs(d_z) * math.sqrt(n)
    critical = critical_d_z(n, alpha) * math.sqrt(n)
    reach = TAIL_SD / math.sqrt(2 * df)
    s = np.linspace(max(1e-12, 1 - reach), 1 + reach, SIMPSON_POINTS)
    log_density = (df - 1) * np.log(s) - df * s**2 / 2
    weights = np.exp(log_density - log_density.max())
    weights[1:-1:2] *= 4
    weights[2:-1:2] *= 2
    beyond = ndtr(shift - critical * s) + ndtr(-shift - critical * s)
    return float(np.sum(weights * beyond) / np.sum(weights))


def smallest_detectable_d_z(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Least |d_z| that a two-sided paired t test of n pairs finds with probability ``power``."""
    _check(n, alpha)
    if not alpha < power < 1:
        raise ScoreError(f"A power lies between alpha and 1, not {power}")
    low, high = 0.0, critical_d_z(n, alpha)
    while power_paired_t(high, n, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if power_paired_t(middle, n, alpha) < power else (low, middle)
    return (low + high) / 2


def needed_n(d_z: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Least number of pairs with which a two-sided paired t test finds d_z with probability ``power``."""
    if not abs(d_z) > 0:
        raise ScoreError("No number of pairs shows an effect of 0")
    high = 2
    while power_paired_t(d_z, high, alpha) < power:
        high *= 2
        if high > LARGEST_N:
            raise ScoreError(f"More than {LARGEST_N:,} pairs would be needed for d_z = {d_z:g}")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle >= 2 and power_paired_t(d_z, middle, alpha) < power else (low, middle)
    return high


def _check(n: int, alpha: float) -> None:
    if n < 2 or not 0 < alpha < 1:
        raise ScoreError(f"A paired t test needs 2 pairs and 0 < alpha < 1, not n = {n}, alpha = {alpha}")
