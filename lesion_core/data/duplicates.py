"""Near-duplicate search: candidates by perceptual hash, each verified on pixels; and groups by union-find."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np

from lesion_core import settings
from lesion_core.data.hashing import hash_orientations, thumbnail_orientations

BANDS = 4
BAND_BITS = 16
VERIFY_CHUNK = 20_000  # pairs whose thumbnails are compared at a time, to bound the memory


def near_duplicates(
    hashes: np.ndarray, thumbnails: np.ndarray, duplicates: settings.Duplicates
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of photographs that are the same up to size, compression, flips and quarter turns.

    Args:
        hashes: uint64 (N,) of :func:`lesion_core.data.hashing.fingerprint`.
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

    Multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012): if 64 bits differ in at most r places, one of four
    bands of 16 bits differs in at most r // 4. So every band's table is asked for the keys near the query's,
    and only what lies there is compared in full. Exact, and far fewer comparisons than N^2.
    """
    count = len(hashes)
    found = [np.empty((0, 2), np.intp)]
    masks = _masks(min(max_hamming // BANDS, BAND_BITS))
    versions = hash_orientations(hashes)
    for band in range(BANDS):
        shift = np.uint64(band * BAND_BITS)
        keys = ((hashes >> shift) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        offsets = np.searchsorted(keys[order], np.arange((1 << BAND_BITS) + 1))
        for version in versions:
            queries = ((version >> shift) & np.uint64(0xFFFF)).astype(np.int64)
            for mask in masks:
                probed = queries ^ mask
                sizes = offsets[probed + 1] - offsets[probed]
                hit = np.flatnonzero(sizes)
                if not len(hit):
                    continue
                left = np.repeat(hit, sizes[hit])
                firsts = np.cumsum(sizes[hit]) - sizes[hit]
                within = np.arange(len(left)) - np.repeat(firsts, sizes[hit])
                right = order[np.repeat(offsets[probed[hit]], sizes[hit]) + within]
                ahead = left < right
                left, right = left[ahead], right[ahead]
                near = np.bitwise_count(version[left] ^ hashes[right]) <= max_hamming
                found.append(np.stack([left[near], right[near]], axis=1))
    codes = np.unique(np.concatenate(found) @ np.array([max(count, 1), 1]))
    return np.stack(np.divmod(codes, max(count, 1)), axis=1).astype(np.intp)


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


def components(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Union-find: for each of ``count`` items the smallest item connected with it, intp (count,)."""
    parent = list(range(count))

    def find(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for first, second in pairs:
        low, high = sorted((find(first), find(second)))
        parent[high] = low
    return np.array([find(item) for item in range(count)], dtype=np.intp)


def _masks(radius: int) -> np.ndarray:
    """All 16-bit numbers with at most ``radius`` bits set."""
    return np.array(
        [
            sum(1 << bit for bit in bits)
            for weight in range(radius + 1)
            for bits in combinations(range(BAND_BITS), weight)
        ],
        dtype=np.int64,
    )
