"""Seconds that the image-level statistics take: 20 comparisons of 2,000 images in 1,500 lesions, 10,000 resamples."""

from __future__ import annotations

import time

import numpy as np

from lesion_core.seeding import generator
from lesion_core.stats.bootstrap import bootstrap_means
from lesion_core.stats.paired import compare

COMPARISONS, IMAGES, LESIONS, RESAMPLES = 20, 2_000, 1_500, 10_000
LIMIT_SECONDS = 120.0


def measure() -> dict[str, float]:
    """Seconds of the bootstrap, whose resamples all comparisons share, and of the paired tests."""
    rng = generator(2026, "statistics benchmark")
    scores = np.clip(rng.normal(0.88, 0.1, (COMPARISONS + 1, IMAGES)), 0.0, 1.0)
    lesions = rng.integers(0, LESIONS, IMAGES)
    differences = (scores[0] - scores[1:]).T
    seconds = {}
    started = time.perf_counter()
    bootstrap_means(differences, lesions, seed=1, resamples=RESAMPLES)
    seconds["bootstrap"] = time.perf_counter() - started
    _, cluster = np.unique(lesions, return_inverse=True)
    sizes = np.bincount(cluster)
    means = [np.bincount(cluster, row) / sizes for row in scores]
    started = time.perf_counter()
    for other in means[1:]:
        compare(means[0], other)
    seconds["paired tests"] = time.perf_counter() - started
    return seconds


def main() -> None:
    """Print the seconds; exit status 1 above the limit."""
    seconds = measure()
    print(f"{COMPARISONS} comparisons of {IMAGES:,} images in {LESIONS:,} lesions, {RESAMPLES:,} resamples (BCa)")
    for name, value in seconds.items():
        print(f"{name:<24}{value:8.2f} s")
    total = sum(seconds.values())
    print(f"{'in all':<24}{total:8.2f} s, limit {LIMIT_SECONDS:g} s")
    raise SystemExit(total > LIMIT_SECONDS)


if __name__ == "__main__":
    main()
