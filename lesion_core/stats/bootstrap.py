"""Cluster bootstrap: lesions are drawn with replacement, each with all its images (BCa interval of `scipy.stats`).

Every statistic is a function of *totals over images* (sum of Dice and number of images; pooled pixel counts ...), so
scipy resamples the lesions' sums, and all comparisons share the same resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

from lesion_core.errors import ScoreError
from lesion_core.seeding import generator

BATCH_VALUES = 4_000_000  # numbers held at a time: bounds memory, changes no result
DECIMALS = 12  # equal totals of different draws round differently; BCa counts ties with the estimate
FEW_CLUSTERS = 20
MIN_RESAMPLES = 100


@dataclass(frozen=True)
class Interval:
    """One entry per statistic, float64 (K,), all of them from the same resamples.

    Attributes:
        estimate: the statistic of the data as they are.
        standard_error: standard deviation over resamples.
        low, high: bias-corrected and accelerated interval (Efron 1987), acceleration from the jackknife over lesions;
            the percentile interval where BCa is not defined (no resample lies on one side of the estimate).
        clusters: how many lesions.
        notes: reasons to distrust the interval.
    """

    estimate: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    clusters: int
    notes: tuple[str, ...]


def bootstrap_means(
    values: np.ndarray, clusters: Sequence[str] | np.ndarray, *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Intervals of means over images, e.g. of the per-image Dice difference of K pairs of methods.

    Args:
        values: float (N,) or (N, K), row i belongs to image i.
        clusters: (N,) lesion ids.
        seed, resamples, level: of the resampling.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    parts = np.column_stack([values, np.ones(len(values))])
    return bootstrap_totals(
        parts, lambda totals: totals[:-1] / totals[-1:], clusters, seed=seed, resamples=resamples, level=level
    )


def bootstrap_totals(
    parts: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: Sequence[str] | np.ndarray,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """Intervals of any function of totals over images.

    Args:
        parts: float (N, P), what image i adds to each total.
        statistic: maps totals (P, ...) to statistics (K, ...); finite for every resample.
        clusters: (N,) lesion ids.

    Raises:
        ScoreError: lengths do not fit, values are not finite, fewer than 2 clusters or 100 resamples, or a statistic is
            not finite (e.g. recall of a class that a resample misses).
    """
    parts, clusters = np.asarray(parts, dtype=np.float64), np.asarray(clusters)
    if parts.ndim != 2 or clusters.shape != (len(parts),):
        raise ScoreError(f"Expected values (N, P) and clusters (N,), got {parts.shape} and {clusters.shape}")
    if not np.isfinite(parts).all():
        raise ScoreError("The values to be resampled are not all finite")
    if resamples < MIN_RESAMPLES or not 0.0 < level < 1.0:
        raise ScoreError(f"{resamples} resamples at level {level} make no interval", remedy="take 10,000 at 0.95")
    names, index = np.unique(clusters, return_inverse=True)
    count = len(names)
    if count < 2:
        raise ScoreError(f"{count} lesion cannot be resampled", remedy="score at least two lesions")
    sums = np.array([np.bincount(index, part, count) for part in parts.T])

    def of_lesions(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = statistic(np.stack([part[drawn].sum(axis=axis) for part in sums]))
        if not np.isfinite(values).all():
            raise ScoreError(
                f"The statistic is not finite in {np.sum(~np.isfinite(values))} resamples",
                remedy="a rare class is missing from some: bootstrap a statistic that needs no such class",
            )
        return np.round(values, DECIMALS)

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)  # the percentile interval is the answer then
        found = bootstrap(
            (np.arange(count),),
            of_lesions,
            n_resamples=resamples,
            batch=max(1, BATCH_VALUES // count),
            confidence_level=level,
            method="BCa",
            rng=generator(seed, "cluster bootstrap"),
        )
    ends = np.quantile(found.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2], axis=-1)
    low, high = (
        np.where(np.isnan(bca), percentile, bca)
        for bca, percentile in zip(found.confidence_interval, ends, strict=True)
    )
    few = f"{count} lesions are few: bootstrap intervals are too narrow below about {FEW_CLUSTERS}"
    return Interval(
        estimate=of_lesions(np.arange(count)),
        standard_error=found.standard_error,
        low=low,
        high=high,
        clusters=count,
        notes=(few,) if count < FEW_CLUSTERS else (),
    )
