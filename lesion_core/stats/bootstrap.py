"""Cluster bootstrap: lesions are drawn with replacement, each with all its images (percentile and BCa intervals).

Every statistic here is a function of *totals over images* (sum of Dice and number of images; pooled pixel counts; hits
per class ...). A resample's totals are a matrix product of draw counts and the lesions' sums, so all comparisons share
the same resamples and cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from lesion_core.errors import ScoreError
from lesion_core.seeding import generator

CHUNK_DRAWS = 2_000_000
FEW_CLUSTERS = 20
MIN_RESAMPLES = 100


@dataclass(frozen=True)
class BootstrapResult:
    """One entry per statistic, float64 (K,), all of them from the same resamples.

    Attributes:
        estimate: the statistic of the data as they are.
        standard_error: standard deviation over resamples.
        percentile_low, percentile_high: percentile interval.
        bca_low, bca_high: bias-corrected and accelerated interval (Efron 1987), acceleration from the jackknife over
            lesions. Falls back to the percentile interval where no resample lies on one side of the estimate.
        clusters, images, resamples: how many.
        level: coverage aimed at, e.g. 0.95.
        notes: reasons to distrust the intervals.
    """

    estimate: np.ndarray
    standard_error: np.ndarray
    percentile_low: np.ndarray
    percentile_high: np.ndarray
    bca_low: np.ndarray
    bca_high: np.ndarray
    clusters: int
    images: int
    resamples: int
    level: float
    notes: tuple[str, ...]


def bootstrap_means(
    values: np.ndarray,
    clusters: Sequence[str] | np.ndarray,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
) -> BootstrapResult:
    """Intervals of means over images, e.g. of the per-image Dice difference of K pairs of methods.

    Args:
        values: float (N,) or (N, K), row i belongs to image i.
        clusters: (N,) lesion (group) ids.
        seed, resamples, level: of the resampling.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise ScoreError(f"Values are (N,) or (N, K), not {values.shape}")
    parts = np.column_stack([values, np.ones(len(values))])
    return bootstrap_totals(
        parts, lambda totals: totals[:, :-1] / totals[:, -1:], clusters, seed=seed, resamples=resamples, level=level
    )


def bootstrap_totals(
    parts: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: Sequence[str] | np.ndarray,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
) -> BootstrapResult:
    """Intervals of any function of totals over images.

    Args:
        parts: float (N, P), what image i adds to each total.
        statistic: maps totals (R, P) to statistics (R, K), row by row; finite for every resample.
        clusters: (N,) lesion (group) ids.

    Raises:
        ScoreError: lengths do not fit, values are not finite, fewer than 2 clusters or 100 resamples, or a statistic is
            not finite (e.g. recall of a class that a resample misses).
    """
    parts, sums = _cluster_sums(parts, clusters)
    if resamples < MIN_RESAMPLES or not 0.0 < level < 1.0:
        raise ScoreError(f"{resamples} resamples at level {level} make no interval", remedy="take 10,000 at 0.95")
    estimate = _evaluate(statistic, sums.sum(axis=0, keepdims=True))[0]
    drawn = _evaluate(statistic, _resampled_totals(sums, resamples, seed))
    jackknife = _evaluate(statistic, sums.sum(axis=0, keepdims=True) - sums)
    tail = (1.0 - level) / 2.0
    percentile = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    bca = np.array([_bca(drawn[:, k], estimate[k], jackknife[:, k], tail) for k in range(len(estimate))])
    notes = ()
    if len(sums) < FEW_CLUSTERS:
        notes = (f"{len(sums)} lesions are few: bootstrap intervals are too narrow below about {FEW_CLUSTERS}",)
    return BootstrapResult(
        estimate=estimate,
        standard_error=drawn.std(axis=0, ddof=1),
        percentile_low=percentile[0],
        percentile_high=percentile[1],
        bca_low=bca[:, 0],
        bca_high=bca[:, 1],
        clusters=len(sums),
        images=len(parts),
        resamples=resamples,
        level=level,
        notes=notes,
    )


def _cluster_sums(parts: np.ndarray, clusters: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = np.asarray(parts, dtype=np.float64)
    clusters = np.asarray(clusters)
    if parts.ndim != 2 or clusters.shape != (len(parts),):
        raise ScoreError(f"Expected parts (N, P) and clusters (N,), got {parts.shape} and {clusters.shape}")
    if not np.isfinite(parts).all():
        raise ScoreError("The values to be resampled are not all finite")
    names, index = np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        raise ScoreError(f"{len(names)} lesion cannot be resampled", remedy="score at least two lesions")
    sums = np.zeros((len(names), parts.shape[1]))
    np.add.at(sums, index, parts)
    return parts, sums


def _resampled_totals(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Totals (R, P) of resamples that draw G of the G lesions each; chunked so that memory stays small."""
    groups = len(sums)
    rng = generator(seed, "cluster bootstrap")
    rows = max(1, CHUNK_DRAWS // groups)
    totals = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        draws = rng.integers(0, groups, size=(count, groups))
        draws += np.arange(count)[:, None] * groups
        counts = np.bincount(draws.ravel(), minlength=count * groups).reshape(count, groups)
        totals[start : start + count] = counts @ sums
    return totals


def _evaluate(statistic: Callable[[np.ndarray], np.ndarray], totals: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(statistic(totals), dtype=np.float64)
    if values.ndim != 2 or len(values) != len(totals):
        raise ScoreError(f"The statistic maps totals {totals.shape} to {values.shape}, not to (R, K)")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values).all(axis=1)).sum())
        raise ScoreError(
            f"The statistic is not finite in {bad} of {len(values)} resamples",
            remedy="a rare class is missing from some: bootstrap a statistic that needs no such class",
        )
    return values


def _bca(drawn: np.ndarray, estimate: float, jackknife: np.ndarray, tail: float) -> tuple[float, float]:
    normal = NormalDist()
    # Ties count half: a constant statistic has no bias.
    share = float(np.mean(drawn < estimate) + np.mean(drawn == estimate) / 2.0)
    if not 0.0 < share < 1.0:
        return float(np.quantile(drawn, tail)), float(np.quantile(drawn, 1.0 - tail))
    bias = normal.inv_cdf(share)
    deviation = jackknife.mean() - jackknife
    spread = float(np.sum(deviation**2))
    acceleration = 0.0 if spread == 0.0 else float(np.sum(deviation**3)) / (6.0 * spread**1.5)
    ends = []
    for quantile in (tail, 1.0 - tail):
        shifted = bias + normal.inv_cdf(quantile)
        denominator = 1.0 - acceleration * shifted
        # Beyond this pole BCa has no meaning; the end of the resamples is the cautious answer.
        level = normal.cdf(bias + shifted / denominator) if denominator > 0 else float(quantile > 0.5)
        ends.append(float(np.quantile(drawn, level)))
    return ends[0], ends[1]
