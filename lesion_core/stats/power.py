"""What n pairs can show: power of the paired t test, smallest detectable effect, smallest attainable p."""

from __future__ import annotations

import math

import pingouin
from scipy.optimize import brentq
from scipy.stats import t as student

from lesion_core.errors import ScoreError


def critical_d_z(n: int, alpha: float = 0.05) -> float:
    """|d_z| beyond which a two-sided paired t test of n pairs has p < alpha: t_crit / sqrt(n); 2.484 for n = 3."""
    _check(n, alpha)
    return float(student.isf(alpha / 2, n - 1)) / math.sqrt(n)


def power_paired_t(d_z: float, n: int, alpha: float = 0.05) -> float:
    """Probability that a two-sided paired t test of n pairs has p < alpha if the true effect is d_z."""
    _check(n, alpha)
    return float(pingouin.power_ttest(d=d_z, n=n, alpha=alpha, contrast="paired"))


def smallest_detectable_d_z(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Least |d_z| that a two-sided paired t test of n pairs finds with probability ``power``."""
    if not alpha < power < 1:
        raise ScoreError(f"A power lies between alpha and 1, not {power}")
    # pingouin solves for d too, but within 10: two pairs need more
    highest = 10.0 * (critical_d_z(n, alpha) + 1.0)
    return float(brentq(lambda d: power_paired_t(d, n, alpha) - power, 0.0, highest))


def smallest_p_wilcoxon(n: int) -> float:
    """Least two-sided p that a signed-rank (or any sign-flip) test reaches with n differing pairs: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - n))


def _check(n: int, alpha: float) -> None:
    if n < 2 or not 0 < alpha < 1:
        raise ScoreError(f"A paired t test needs 2 pairs and 0 < alpha < 1, not n = {n}, alpha = {alpha}")
