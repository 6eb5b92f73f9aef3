"""How far apart the colours of two datasets are, before and after harmonization."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.files import write_json
from lesion_core.pixels.histogram import LEVELS, channel_histograms
from lesion_core.progress import say

SAMPLED_SIDE = 256  # pixels are taken in steps that leave at least so many along the shorter side
WHEN = ("before", "after")


def colour_frequencies(image: np.ndarray) -> np.ndarray:
    """Share of each level in each channel, from a regular grid of pixels.

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        float64 (3, 256); rows sum to 1.
    """
    step = max(1, min(image.shape[:2]) // SAMPLED_SIDE)
    counts = channel_histograms(np.ascontiguousarray(image[::step, ::step]))
    return counts / counts.sum(axis=1, keepdims=True)


def mapped(frequencies: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Frequencies after each level was looked up in its table.

    Args:
        frequencies: float (3, 256).
        tables: uint8 (3, 256), as ``histogram.specification_tables`` gives them.

    Returns:
        float64 (3, 256) with the same sums.
    """
    pairs = zip(tables, frequencies, strict=True)
    return np.stack([np.bincount(table, weights=row, minlength=LEVELS) for table, row in pairs])


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Wasserstein-1 distance of two colour distributions, mean over the channels, in grey levels.

    Per channel it is the mean amount by which levels must be moved to make one distribution the other.

    Args:
        first: float (3, 256); rows sum to 1.
        second: the same.
    """
    return float(np.abs(np.cumsum(first - second, axis=1)).sum(axis=1).mean())


def colour_distances(profiles: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Distances between all pairs of datasets.

    Args:
        profiles: dataset -> float64 (2, 3, 256), mean colour frequencies of its images before and after.

    Returns:
        One {first, second, before, after} per pair, in grey levels, sorted by names.
    """
    return [
        {
            "first": first,
            "second": second,
            **{when: distance(profiles[first][k], profiles[second][k]) for k, when in enumerate(WHEN)},
        }
        for first, second in combinations(sorted(profiles), 2)
    ]


def write_colour_distances(profiles: Mapping[str, np.ndarray], out: Path) -> dict[str, Any]:
    """Compare datasets and write {unit, pairs, mean: {before, after}, profiles} as JSON, atomically.

    Args:
        profiles: see ``colour_distances``; also stored, rounded to 1e-6.
        out: the file; distances are rounded to 1e-4 grey levels, means are None without a pair.
    """
    pairs = colour_distances(profiles)
    means = {when: float(np.mean([pair[when] for pair in pairs])) for when in WHEN if pairs}
    for pair in pairs:
        say(f"colour distance {pair['first']} - {pair['second']}: {pair['before']:.2f} -> {pair['after']:.2f} levels")
    if pairs:
        say(f"colour distance, mean of {len(pairs)} pairs: {means['before']:.2f} -> {means['after']:.2f} grey levels")
    content = {
        "unit": "grey levels (Wasserstein-1, mean over red, green and blue)",
        "pairs": [{**pair, **{when: round(pair[when], 4) for when in WHEN}} for pair in pairs],
        "mean": {when: round(means[when], 4) if pairs else None for when in WHEN},
        "profiles": {
            name: {when: np.round(profile[k], 6).tolist() for k, when in enumerate(WHEN)}
            for name, profile in sorted(profiles.items())
        },
    }
    write_json(out, content)
    return content
