"""Two classifiers on the same images: McNemar's exact test of hits, DeLong's test of AUCs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, chi2, norm, rankdata

from lesion_core.errors import ScoreError


@dataclass(frozen=True)
class McNemarResult:
    """``only_a`` images are right with A alone, ``only_b`` with B alone; ``p`` two-sided exact;
    ``p_smallest`` what this number of disagreements could reach at best."""

    only_a: int
    only_b: int
    p: float
    p_smallest: float


@dataclass(frozen=True)
class DeLongResult:
    """AUCs of two scores, their difference a - b with standard error and interval, z and two-sided p.

    ``z`` and ``p`` are NaN where the difference has no variance but is not 0; equal AUCs without variance have p = 1.
    """

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    ci_low: float
    ci_high: float
    z: float
    p: float


def mcnemar_exact(correct_a: np.ndarray, correct_b: np.ndarray) -> McNemarResult:
    """Exact two-sided McNemar test: the disagreements against Binomial(n, 1/2), smaller tail doubled.

    Args:
        correct_a, correct_b: bool (N,), image by image. No disagreement: p = 1.
    """
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.dtype != np.bool_ or b.dtype != np.bool_ or a.ndim != 1 or a.shape != b.shape:
        raise ScoreError(f"Expected bool (N,) twice, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    n = only_a + only_b
    p = float(binomtest(only_a, n).pvalue) if n else 1.0
    return McNemarResult(only_a, only_b, p, min(1.0, 2.0 ** (1 - n)))


@dataclass(frozen=True)
class ClusteredMcNemarResult:
    """``statistic`` is chi-squared with one degree of freedom; ``clusters`` lesions were seen, ``informative`` of them
    with more images right under one method than under the other."""

    statistic: float
    p: float
    clusters: int
    informative: int


def mcnemar_clustered(
    correct_a: np.ndarray, correct_b: np.ndarray, clusters: Sequence[str] | np.ndarray
) -> ClusteredMcNemarResult:
    """McNemar's test for images in lesions (Durkalski et al., Statistics in Medicine 22:2417, 2003).

    With b_k and c_k images of lesion k, of size n_k, right under A alone and under B alone:
    X2 = (sum (b_k - c_k) / n_k)^2 / sum ((b_k - c_k) / n_k)^2. One image per lesion: McNemar's own statistic.

    Args:
        correct_a, correct_b: bool (N,), image by image. clusters: (N,) lesion ids. No lesion differs: p = 1.
    """
    a, b, groups = np.asarray(correct_a), np.asarray(correct_b), np.asarray(clusters)
    if a.dtype != np.bool_ or b.dtype != np.bool_ or a.ndim != 1 or not a.shape == b.shape == groups.shape:
        raise ScoreError(f"Expected bool (N,) twice and N lesions, got {a.shape}, {b.shape} and {groups.shape}")
    _, index = np.unique(groups, return_inverse=True)
    sizes = np.bincount(index)
    shares = np.bincount(index, a.astype(np.float64) - b) / np.maximum(sizes, 1)
    spread = float(np.sum(shares**2))
    if spread == 0.0:
        return ClusteredMcNemarResult(0.0, 1.0, len(sizes), 0)
    statistic = float(np.sum(shares)) ** 2 / spread
    return ClusteredMcNemarResult(statistic, float(chi2.sf(statistic, 1)), len(sizes), int((shares != 0).sum()))


def delong(
    positive: np.ndarray,
    score_a: np.ndarray,
    score_b: np.ndarray,
    clusters: Sequence[str] | np.ndarray | None = None,
    level: float = 0.95,
) -> DeLongResult:
    """Paired test of two AUCs (DeLong et al., Biometrics 1988), for images in lesions by Obuchowski (Biometrics 1997).

    Args:
        positive: bool (N,).
        score_a, score_b: float (N,), greater means more likely positive; ties count half.
        clusters: (N,) lesion ids, whose images are not independent; None: every image stands alone (plain DeLong).
        level: coverage of the interval of the difference.

    Raises:
        ScoreError: shapes do not fit, NaN, fewer than two positive or two negative clusters.
    """
    positive = np.asarray(positive)
    values = np.array([score_a, score_b], dtype=np.float64)
    if positive.dtype != np.bool_ or positive.ndim != 1 or values.shape != (2, len(positive)):
        raise ScoreError(f"Expected bool (N,) and scores (N,) twice, got {positive.shape} and {values.shape[1:]}")
    if not np.isfinite(values).all():
        raise ScoreError("The scores are not all finite")
    groups = np.arange(len(positive)) if clusters is None else np.asarray(clusters)
    if groups.shape != positive.shape:
        raise ScoreError(f"{len(positive)} images but {groups.shape} clusters")
    aucs, covariance = _auc_covariance(positive, values, groups)
    difference = float(aucs[0] - aucs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = math.sqrt(variance) if variance > 1e-15 else 0.0
    if error > 0:
        z = difference / error
        p = float(2 * norm.sf(abs(z)))
    else:
        z, p = (0.0, 1.0) if abs(difference) < 1e-12 else (float("nan"), float("nan"))
    half = float(norm.isf((1 - level) / 2)) * error
    return DeLongResult(
        auc_a=float(aucs[0]),
        auc_b=float(aucs[1]),
        difference=difference,
        standard_error=error,
        ci_low=difference - half,
        ci_high=difference + half,
        z=z,
        p=p,
    )


def _auc_covariance(positive: np.ndarray, values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUCs (K,) and their covariance (K, K) of K scores (K, N), from placement values summed by cluster."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    _, index = np.unique(groups, return_inverse=True)
    n_groups = int(index.max()) + 1 if len(index) else 0
    with_positive = np.bincount(index[positive], minlength=n_groups)
    with_negative = np.bincount(index[~positive], minlength=n_groups)
    i10, i01 = int((with_positive > 0).sum()), int((with_negative > 0).sum())
    if i10 < 2 or i01 < 2:
        raise ScoreError(f"DeLong needs two positive and two negative lesions, not {i10} and {i01}")
    ranks = rankdata(values, axis=1)
    inner_positive = rankdata(values[:, positive], axis=1)
    inner_negative = rankdata(values[:, ~positive], axis=1)
    # Share of negatives below each positive, and of positives above each negative.
    v10 = (ranks[:, positive] - inner_positive) / n_negative
    v01 = 1.0 - (ranks[:, ~positive] - inner_negative) / n_positive
    aucs = v10.mean(axis=1)
    d10 = np.array([np.bincount(index[positive], row, n_groups) for row in v10]) - aucs[:, None] * with_positive
    d01 = np.array([np.bincount(index[~positive], row, n_groups) for row in v01]) - aucs[:, None] * with_negative
    s10 = i10 / ((i10 - 1) * n_positive) * (d10 @ d10.T)
    s01 = i01 / ((i01 - 1) * n_negative) * (d01 @ d01.T)
    cross = n_groups / (n_groups - 1) * (d10 @ d01.T)
    return aucs, s10 / n_positive + s01 / n_negative + (cross + cross.T) / (n_positive * n_negative)
