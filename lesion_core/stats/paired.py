"""Paired comparison of two methods: normality, t, Wilcoxon, effect sizes, interval, and what n can show at all.

The pairs are seeds (n = 3 in most papers) or images; the caller says which by what it passes. Images of one lesion are
not independent: for them take ``bootstrap`` by lesion for the interval, or average within lesions first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pingouin
from scipy import stats

from lesion_core.errors import ScoreError
from lesion_core.stats.power import critical_d_z, smallest_p_wilcoxon

EXACT_WILCOXON = 50
SHAPIRO_RANGE = (3, 5000)
SHAPIRO_POWERLESS = 8
HUGE_EFFECT = 1.5  # |d_z| that a t test must not need: n = 3 and 4 do (2.48, 1.59), n = 5 does not (1.24)


@dataclass(frozen=True)
class PairedResult:
    """Differences are a - b. NaN where a number is not defined; ``notes`` say why.

    Attributes:
        n: pairs. n_nonzero: pairs that differ (all that Wilcoxon uses).
        mean, sd: of the differences; sd with n - 1.
        ci_low, ci_high: t interval of the mean difference at 1 - alpha.
        shapiro_w, shapiro_p: normality of the differences.
        t, df, p_t: two-sided paired t test.
        wilcoxon, p_wilcoxon: smaller signed-rank sum; two-sided p, exact up to 50 pairs (ties included).
        p_wilcoxon_smallest: what n_nonzero pairs could reach at best.
        d_z: mean / sd of the differences. d_av: mean / sqrt((var a + var b) / 2).
        critical_d_z: |d_z| beyond which the t test reaches alpha with this n.
        n_too_small: True if Wilcoxon or t cannot be judged with this n; ``notes`` give the reason.
    """

    n: int
    n_nonzero: int
    mean: float
    sd: float
    ci_low: float
    ci_high: float
    shapiro_w: float
    shapiro_p: float
    t: float
    df: int
    p_t: float
    wilcoxon: float
    p_wilcoxon: float
    p_wilcoxon_smallest: float
    d_z: float
    d_av: float
    critical_d_z: float
    n_too_small: bool
    notes: tuple[str, ...]


def compare(a: np.ndarray, b: np.ndarray, alpha: float = 0.05) -> PairedResult:
    """Compare two methods on the same n seeds or images.

    Args:
        a, b: float (n,), row i of both from the same seed or image.
        alpha: level of the interval (1 - alpha) and of the notes.

    Raises:
        ScoreError: different lengths, no pair, or values that are not finite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ScoreError(f"Paired values are (n,) twice, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ScoreError("Paired values are not all finite", remedy="score every image with both methods")
    difference = a - b
    n, mean = len(a), float(difference.mean())
    # Equal differences leave rounding noise of about 1e-17; it is not a spread.
    scale = max(float(np.abs(a).max()), float(np.abs(b).max()))
    sd = float(difference.std(ddof=1)) if n > 1 else float("nan")
    if n > 1 and sd <= 1e-12 * scale:
        sd = 0.0
    t = p_t = w = p_w = d_z = d_av = critical = nan = math.nan
    ci_low, ci_high = (mean, mean) if sd == 0 else (nan, nan)
    if n > 1:
        critical = critical_d_z(n, alpha)
        if a.std() > 1e-12 * scale or b.std() > 1e-12 * scale:
            d_av = float(pingouin.compute_effsize(a, b, paired=True, eftype="cohen"))
    if sd > 0:
        test = stats.ttest_rel(a, b)
        t, p_t, d_z = float(test.statistic), float(test.pvalue), mean / sd
        ci_low, ci_high = map(float, test.confidence_interval(1 - alpha))
        if SHAPIRO_RANGE[0] <= n <= SHAPIRO_RANGE[1]:
            w, p_w = map(float, stats.shapiro(difference))
    statistic, p_wilcoxon, n_nonzero = wilcoxon(np.where(np.abs(difference) <= 1e-12 * scale, 0.0, difference))
    smallest = smallest_p_wilcoxon(n_nonzero)
    notes, too_small = _notes(n, n_nonzero, sd, alpha, smallest, critical)
    return PairedResult(
        n=n,
        n_nonzero=n_nonzero,
        mean=mean,
        sd=sd,
        ci_low=ci_low,
        ci_high=ci_high,
        shapiro_w=w,
        shapiro_p=p_w,
        t=t,
        df=n - 1,
        p_t=p_t,
        wilcoxon=statistic,
        p_wilcoxon=p_wilcoxon,
        p_wilcoxon_smallest=smallest,
        d_z=d_z,
        d_av=d_av,
        critical_d_z=critical,
        n_too_small=too_small,
        notes=notes,
    )


def wilcoxon(difference: np.ndarray) -> tuple[float, float, int]:
    """Two-sided signed-rank test of differences (n,): (smaller rank sum, p, pairs that differ).

    Zeros are dropped (Wilcoxon's rule), equal sizes share their mid-rank. Up to 50 pairs p is exact, from all sign
    patterns of the ranks as they are; beyond, normal with the ties' correction and no continuity correction.
    """
    kept = np.asarray(difference, dtype=np.float64)
    kept = kept[kept != 0]
    n = len(kept)
    if n == 0:
        return 0.0, 1.0, 0
    if n > EXACT_WILCOXON:
        result = stats.wilcoxon(kept, method="asymptotic", correction=False)
        return float(result.statistic), float(result.pvalue), n
    ranks = stats.rankdata(np.abs(kept))
    statistic = min(float(ranks[kept > 0].sum()), float(ranks[kept < 0].sum()))
    return statistic, _exact_signed_rank(ranks, statistic), n


def _exact_signed_rank(ranks: np.ndarray, statistic: float) -> float:
    # By hand: scipy's exact p refuses ties, and its permutation test draws 2^n patterns.
    # Twice the mid-ranks are integers, so the distribution of the rank sum is a product of (1 + x^(2r)) / 2.
    doubled = np.rint(2 * ranks).astype(np.int64)
    distribution = np.zeros(int(doubled.sum()) + 1)
    distribution[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(distribution)
        shifted[rank:] = distribution[: len(distribution) - rank]
        distribution = (distribution + shifted) / 2.0
    return min(1.0, 2.0 * float(distribution[: round(2 * statistic) + 1].sum()))


def _notes(
    n: int, n_nonzero: int, sd: float, alpha: float, smallest: float, critical: float
) -> tuple[tuple[str, ...], bool]:
    notes, too_small = [], False
    if n < 2:
        return (f"n too small: n = {n} has no spread, so neither test nor interval exists",), True
    if sd == 0:
        notes.append("all differences are equal: t, d_z and Shapiro-Wilk are not defined")
    if n_nonzero == 0:
        notes.append("no pair differs: Wilcoxon p is 1 by rule")
    elif smallest > alpha:
        too_small = True
        notes.append(
            f"n too small: with {n_nonzero} differing pairs a two-sided Wilcoxon cannot go below p = {smallest:.4g}"
        )
    if critical > HUGE_EFFECT:
        too_small = True
        notes.append(f"n too small: with n = {n} a paired t reaches {alpha:g} only for |d_z| > {critical:.2f}")
    if n < SHAPIRO_POWERLESS:
        notes.append(f"Shapiro-Wilk has almost no power at n = {n}: not rejecting normality shows nothing")
    elif n > SHAPIRO_RANGE[1]:
        notes.append(f"Shapiro-Wilk is not computed beyond n = {SHAPIRO_RANGE[1]}: its p is unreliable there")
    return tuple(notes), too_small
