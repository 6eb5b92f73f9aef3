"""Near-duplicate search: candidates by perceptual hash, each verified on pixels; and groups of connected images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lesion_core import settings
from lesion_core.catalog.hashing import BAND_BITS, BANDS, hash_orientations, thumbnail_orientations

VERIFY_CHUNK = 500  # pairs whose thumbnails are compared at a time: few enough for the processor's cache


def near_duplicates(
    hashes: np.ndarray, thumbnails: np.ndarray, duplicates: settings.Duplicates
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images that are the same up to size, compression, flips and quarter turns.

    Args:
        hashes: uint32 (N, 4) of :func:`lesion_core.catalog.hashing.fingerprint`.
        thumbnails: float32 (N, S, S) of the same.
        duplicates: the largest Hamming distance of a candidate, and the smallest correlation of a duplicate.

    Returns:
        pairs intp (M, 2) with i < j, sorted, and their correlation float64 (M,), both over the best orientation.
    """
    pairs = candidate_pairs(hashes, duplicates.max_hamming)
    correlation = best_correlation(thumbnails, pairs)
    kept = correlation >= duplicates.min_correlation
    return pairs[kept], correlation[kept]


def candidate_pairs(hashes: np.ndarray, max_hamming: int) -> np.ndarray:
    """All pairs (i < j), intp (M, 2), sorted, with Hamming distance <= ``max_hamming`` in some orientation.

    Multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012): if 80 bits differ in at most r places, then one of the
    four bands b = 0..3 of 20 bits differs in at most (r - b) // 4, since otherwise they would add up to more than r.
    So every band's table is asked for the keys near the query's, and only what lies there is compared in full.
    Exact, and far fewer comparisons than N^2.

    Args:
        hashes: uint32 (N, 4) of :func:`lesion_core.catalog.hashing.fingerprint`.
        max_hamming: of 80 bits.
    """
    count = len(hashes)
    found = [np.empty((0, 2), np.intp)]
    versions = [np.ascontiguousarray(version) for version in hash_orientations(hashes)]
    whole = np.ascontiguousarray(hashes).view(np.uint64)
    for band in range(BANDS):
        masks = _masks((max_hamming - band) // BANDS)
        order = np.argsort(hashes[:, band], kind="stable")
        keys = hashes[order, band]
        present = np.zeros(1 << BAND_BITS, bool)
        present[keys] = True
        for version in versions:
            left, probed = _probe(version[:, band], masks, present)
            starts = np.searchsorted(keys, probed)
            sizes = np.searchsorted(keys, probed, side="right") - starts
            firsts = np.cumsum(sizes) - sizes
            within = np.arange(sizes.sum()) - np.repeat(firsts, sizes)
            left, right = np.repeat(left, sizes), order[np.repeat(starts, sizes) + within]
            ahead = left < right
            left, right = left[ahead], right[ahead]
            distance = np.bitwise_count(version.view(np.uint64)[left] ^ whole[right]).sum(axis=1, dtype=np.int64)
            near = distance <= max_hamming
            found.append(np.stack([left[near], right[near]], axis=1))
    codes = np.unique(np.concatenate(found) @ np.array([max(count, 1), 1]))
    return np.stack(np.divmod(codes, max(count, 1)), axis=1).astype(np.intp)


def _probe(queries: np.ndarray, masks: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which queries have a key in the table when a mask is laid over them, intp (H,), and that key, uint32 (H,)."""
    asking, probed = [np.empty(0, np.intp)], [np.empty(0, np.uint32)]
    for mask in masks:
        keys = queries ^ mask
        hit = np.flatnonzero(present[keys])
        asking.append(hit)
        probed.append(keys[hit])
    return np.concatenate(asking), np.concatenate(probed)


def best_correlation(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Largest correlation over the eight orientations of each pair's thumbnails, float64 (M,), in [-1, 1]."""
    flat = thumbnails.reshape(len(thumbnails), -1)
    out = np.empty(len(pairs))
    for start in range(0, len(pairs), VERIFY_CHUNK):
        chunk = pairs[start : start + VERIFY_CHUNK]
        right = flat[chunk[:, 1]]
        versions = thumbnail_orientations(thumbnails[chunk[:, 0]]).reshape(8, len(chunk), -1)
        out[start : start + len(chunk)] = np.einsum("opk,pk->op", versions, right).max(axis=0)
    return np.clip(out, -1.0, 1.0)


def components(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """For each of ``count`` items the smallest item connected with it, intp (count,)."""
    first, second = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    _, smallest = np.unique(labels, return_index=True)
    return smallest[labels]


def _masks(radius: int) -> np.ndarray:
    """All 20-bit numbers with at most ``radius`` bits set, uint32."""
    return np.array(
        [
            sum(1 << bit for bit in bits)
            for weight in range(radius + 1)
            for bits in combinations(range(BAND_BITS), weight)
        ],
        dtype=np.uint32,
    )
