"""How diagnoses were confirmed, as a leak: what was only followed up is benign, so the way tells the class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.stats.contingency import association

from lesion_core.catalog.entries import SPLITS


def confirmed_by(images: Iterable[tuple[str, str, str | None, str | None]]) -> dict[str, dict[str, Any]]:
    """dataset -> split -> {images, cramers_v, classes}, of datasets whose release says how diagnoses were confirmed.

    ``cramers_v``: association of way and class, 0 (none) to 1 (one tells the other), not corrected for bias; None
    where there are fewer than two of either. ``classes``: way -> class -> images.

    Args:
        images: (dataset, split, way, class); an image without way or class does not count.
    """
    found: dict[str, dict[str, Counter[tuple[str, str]]]] = defaultdict(lambda: defaultdict(Counter))
    for dataset, split, way, label in images:
        if way is not None and label is not None:
            found[dataset][split][way, label] += 1
    return {
        dataset: {split: _told(splits[split]) for split in SPLITS if split in splits}
        for dataset, splits in sorted(found.items())
    }


def _told(counts: Counter[tuple[str, str]]) -> dict[str, Any]:
    ways, labels = (sorted({key[side] for key in counts}) for side in (0, 1))
    table = np.array([[counts[way, label] for label in labels] for way in ways])
    defined = min(table.shape) > 1
    return {
        "images": int(table.sum()),
        "cramers_v": round(float(association(table, method="cramer")), 4) if defined else None,
        "classes": {way: {label: counts[way, label] for label in labels if counts[way, label]} for way in ways},
    }
