"""Can published effect sizes, t and p be true together? With n pairs t = d_z sqrt(n); p follows with n - 1 df."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtr, stdtrit

from lesion_core.errors import ScoreError
from lesion_core.metrics.printed import TINY


@dataclass(frozen=True)
class EffectVerdict:
    """What n seeds (or images) allow a paired comparison to claim.

    Attributes:
        n, alpha: pairs and level.
        d_z, t, p: implied by what was given, as intervals (least, greatest in size) after rounding; NaN if nothing was
            given that fixes them. p falls as |t| grows: ``p`` is (least, greatest).
        critical_d_z: |d_z| beyond which p < alpha. smallest_p_wilcoxon: 2 / 2^n.
        least_correlation: least correlation between the methods' scores with which a standardised difference of the
            given size *by the SD of the scores* (d_av) has p < alpha; NaN without d or with no need for one.
        verdict: "impossible" if the claims contradict each other or n.
        explanation: one sentence.
    """

    n: int
    alpha: float
    d_z: tuple[float, float]
    t: tuple[float, float]
    p: tuple[float, float]
    critical_d_z: float
    smallest_p_wilcoxon: float
    least_correlation: float
    verdict: Literal["impossible", "possible"]
    explanation: str


def check_effect(
    n: int,
    *,
    d: float | None = None,
    t: float | None = None,
    p: float | None = None,
    p_below: float | None = None,
    test: Literal["t", "wilcoxon"] = "t",
    decimals: int = 2,
    p_decimals: int = 3,
    alpha: float = 0.05,
) -> EffectVerdict:
    """Judge a published paired test of n pairs: are d_z, t and "p < p_below" possible together?

    Args:
        n: pairs (seeds, images), at least 2.
        d: Cohen's d of the paired differences (d_z), as printed.
        t: t statistic, as printed.
        p: two-sided p of the paired t test, as printed with ``p_decimals`` decimals.
        p_below: the claim p < p_below. test: which test claims it; for "wilcoxon" only n counts.
        decimals: printed decimals of d and t.
    """
    if n < 2 or not 0 < alpha < 1:
        raise ScoreError(f"A paired test needs 2 pairs and 0 < alpha < 1, not n = {n}, alpha = {alpha}")
    if p_below is not None and not 0 < p_below <= 1:
        raise ScoreError(f"p < {p_below} is no claim")
    if p is not None and not 0 <= p <= 1:
        raise ScoreError(f"p = {p} lies outside 0..1")
    half, root = 0.5 * 10.0**-decimals, math.sqrt(n)
    smallest = min(1.0, 2.0 ** (1 - n))
    critical = float(stdtrit(n - 1, 1 - alpha / 2)) / root
    by_d = (max(0.0, abs(d) - half), abs(d) + half) if d is not None else (0.0, math.inf)
    by_t = (max(0.0, abs(t) - half) / root, (abs(t) + half) / root) if t is not None else (0.0, math.inf)
    low, high = max(by_d[0], by_t[0]), min(by_d[1], by_t[1])
    nothing = d is None and t is None
    unknown = (math.nan, math.nan)
    p_range = unknown if nothing else (float(2 * stdtr(n - 1, -high * root)), float(2 * stdtr(n - 1, -low * root)))
    reasons = []
    if d is not None and t is not None and low > high:
        reasons.append(f"t = {t:g} gives d_z = {abs(t) / root:.3g} with n = {n}, not {abs(d):g}")
    if p_below is not None and test == "wilcoxon" and smallest >= p_below:
        reasons.append(f"a two-sided Wilcoxon test of {n} pairs cannot go below p = {smallest:g}")
    if p is not None and not nothing and low <= high:
        half_p = 0.5 * 10.0**-p_decimals
        if p + half_p < p_range[0] - TINY or p - half_p > p_range[1] + TINY:
            given = f"d_z = {d:g}" if d is not None else f"t = {t:g}"
            reasons.append(f"{given} with {n} pairs gives p = {_span(p_range)}, not {p:g}")
    if p_below is not None and test == "t" and not nothing and low <= high and p_range[0] >= p_below:
        given = f"d_z = {d:g}" if d is not None else f"t = {t:g}"
        reasons.append(f"{given} with {n} pairs gives p = {p_range[0]:.3g} at best")
    correlation = float("nan")
    if d is not None and 0 < abs(d) < critical:
        correlation = 1.0 - (abs(d) / critical) ** 2 / 2.0
    if reasons:
        explanation = "Impossible: " + "; ".join(reasons)
        if test == "t" and not math.isnan(correlation):
            explanation += f" (a d by the scores' own SD would need a correlation of at least {correlation:.3f})"
    else:
        explanation = f"Possible; with {n} pairs p < {alpha:g} needs |d_z| > {critical:.3f} in a paired t test"
        explanation += f" and a Wilcoxon test cannot go below p = {smallest:.3g}"
    return EffectVerdict(
        n=n,
        alpha=alpha,
        d_z=unknown if nothing else (low, high),
        t=unknown if nothing else (low * root, high * root),
        p=p_range,
        critical_d_z=critical,
        smallest_p_wilcoxon=smallest,
        least_correlation=correlation,
        verdict="impossible" if reasons else "possible",
        explanation=explanation + ".",
    )


def _span(interval: tuple[float, float]) -> str:
    low, high = (f"{value:.3g}" for value in interval)
    return low if low == high else f"{low} to {high}"
