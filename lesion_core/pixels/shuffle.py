"""Masks handed to the wrong images: the control that tells a mask's shape from its mere presence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lesion_core.errors import MaskError
from lesion_core.seeding import generator


def foreign_places(groups: Sequence[str], *keys: int | str) -> np.ndarray:
    """A permutation of 0..n - 1 that gives every place one of another group: no image keeps its lesion's mask.

    The groups are put in a random order, each in one piece, and everything moves on by the size of the largest; that
    is a derangement over groups whenever no group holds more than half of the places.

    Args:
        groups: (n,) group of each place, e.g. the lesion's split group.
        keys: of the random order.

    Returns:
        int64 (n,), ``groups[result[i]] != groups[i]``.

    Raises:
        MaskError: one group holds more than half of the places.
    """
    names, index, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(groups) and 2 * sizes.max() > len(groups):
        raise MaskError(
            f"Masks cannot be exchanged: {sizes.max()} of {len(groups)} images belong to one group",
            ids=[str(names[sizes.argmax()])],
            remedy="score more lesions",
        )
    order = np.argsort(generator("foreign masks", *keys).permutation(len(names))[index], kind="stable")
    result = np.empty(len(groups), np.int64)
    if len(groups):
        result[order] = np.roll(order, -int(sizes.max()))
    return result


def foreign_rows(index: Sequence[Mapping[str, Any]], rows: np.ndarray, seed: int) -> np.ndarray:
    """For each of ``rows`` of a harmonized index, the row whose mask it is given: of the same split, another group.

    Args:
        index: entries with dataset, split, image_id, group_id.
        rows: int64 (n,), all of one split and dataset.
        seed: of the exchange.
    """
    if not len(rows):
        return rows
    first = index[int(rows[0])]
    groups = [index[int(row)]["group_id"] or index[int(row)]["image_id"] for row in rows]
    return rows[foreign_places(groups, seed, first["dataset"], first["split"])]
