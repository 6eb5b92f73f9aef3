"""Reasons why two images must share a split: the same lesion, id, pixels, or another view of the lesion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lesion_core import settings
from lesion_core.acquire.readers import Row, joining_id
from lesion_core.catalog.duplicates import near_duplicates
from lesion_core.catalog.inspection import Inspected
from lesion_core.catalog.views import find_views

REASONS = ("lesion", "image_id", "near_duplicate", "view")


@dataclass(frozen=True)
class Edge:
    """Rows ``first`` < ``second`` of the sorted catalog must share a split; ``value``: see :func:`find_edges`."""

    first: int
    second: int
    reason: str
    value: float


def find_edges(rows: Sequence[Row], inspected: Sequence[Inspected], duplicates: settings.Duplicates) -> list[Edge]:
    """All reasons to keep two images together, sorted by rows and reason.

    ``lesion``: equal lesion ids (HAM10000, ISIC 2018 Task 3 and ISIC 2019 name lesions alike); ``image_id``: equal
    ids in two datasets, ``_downsampled`` aside; ``near_duplicate``: equal bytes, or equal pixels up to size,
    compression and orientation, with their correlation as value; ``view``: another image of the same lesion,
    with their agreement (`views.agreement`) as value. Otherwise the value is 1. Of k images of equal
    lesion, id or bytes k - 1 edges make a chain.
    """
    edges = [
        *_chains([row.lesion_id for row in rows], "lesion"),
        *_chains([joining_id(row.image_id) for row in rows], "image_id"),
    ]
    same_bytes = _chains([seen.sha256 for seen in inspected], "near_duplicate")
    hashes = np.stack([seen.pixels.fingerprint.phash for seen in inspected])
    thumbnails = np.stack([seen.pixels.fingerprint.thumbnail for seen in inspected])
    pairs, correlation = near_duplicates(hashes, thumbnails, duplicates)
    known = {(edge.first, edge.second) for edge in same_bytes}
    edges += same_bytes
    edges += [
        Edge(first, second, "near_duplicate", round(value, 6))
        for (first, second), value in zip(pairs.tolist(), correlation.tolist(), strict=True)
        if (first, second) not in known
    ]
    edges += _view_edges(inspected, duplicates.views)
    return sorted(edges, key=lambda edge: (edge.first, edge.second, REASONS.index(edge.reason)))


def _view_edges(inspected: Sequence[Inspected], views: settings.Views) -> list[Edge]:
    """Views are looked for once per image: its copies are joined with it already."""
    first_of: dict[str, int] = {}
    for row, seen in enumerate(inspected):
        first_of.setdefault(seen.sha256, row)
    originals = list(first_of.values())
    pairs, agreed = find_views([inspected[row].pixels.features for row in originals], views)
    return [
        Edge(originals[first], originals[second], "view", round(value, 6))
        for (first, second), value in zip(pairs.tolist(), agreed.tolist(), strict=True)
    ]


def _chains(names: Sequence[str | None], reason: str) -> list[Edge]:
    """Edges between neighbours among the rows of equal name."""
    members: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        if name is not None:
            members[name].append(row)
    return [Edge(first, second, reason, 1.0) for rows in members.values() for first, second in pairwise(rows)]
