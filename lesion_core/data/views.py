"""Other views of one lesion: photographs of which one can be laid over the other by an affine map.

A lesion photographed twice (another zoom, angle, day or camera) shares no hash, and no id where a release does not
tell its lesions. It shares hairs, vessels, pigment dots. So: SIFT features (Lowe, IJCV 2004) with square-rooted
descriptors (Arandjelovic, Zisserman, CVPR 2012); candidates by votes of near descriptors; each candidate verified
by an affine map that enough mutual matches agree on (RANSAC).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lesion_core.data.opencv import single_thread
from lesion_core.progress import track
from lesion_core.seeding import generator

AREA = 40_000  # pixels a photograph is scaled to: lesion structure stays, sensor noise goes
FEATURES = 200
CONTRAST, EDGE = 0.01, 20.0  # SIFT's thresholds, lowered for skin
MIN_FEATURES = 8
# Candidates
VOTE_DIMENSIONS = 32
CELL_SIZE = 500  # descriptors per cell of the inverted lists, on average
CELLS_PER_QUERY = 2
NEIGHBOURS = 4  # a descriptor votes for its nearest descriptors in other photographs
CANDIDATES = 8  # photographs verified for each photograph
MIN_VOTES = 3
# Verification
RATIO = 0.9  # nearest to second nearest descriptor
REPROJECTION = 4.0  # pixels at AREA
MIN_SCALE, MAX_SCALE, MAX_STRETCH = 0.25, 4.0, 2.0
SPREAD = 3.0  # pixels: inliers closer than this count once
WORKERS = 2


@dataclass(frozen=True)
class Features:
    """Local features of one photograph.

    Attributes:
        points: float32 (K, 2), (x, y) in pixels of the photograph scaled to AREA.
        descriptors: uint8 (K, 128), square-rooted SIFT, norm 255.
    """

    points: np.ndarray
    descriptors: np.ndarray


def local_features(image: np.ndarray) -> Features:
    """SIFT features of a photograph, uint8 (H, W, 3) RGB; at most FEATURES of them, strongest first."""
    import cv2

    height, width = image.shape[:2]
    scale = (AREA / (height * width)) ** 0.5
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=method), cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT_create(nfeatures=FEATURES, contrastThreshold=CONTRAST, edgeThreshold=EDGE)
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    if not keypoints:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    points = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float32)[:FEATURES]
    rooted = np.sqrt(descriptors[:FEATURES] / np.maximum(descriptors[:FEATURES].sum(axis=1, keepdims=True), 1e-9))
    return Features(points, np.rint(255 * rooted).astype(np.uint8))


def find_views(features: Sequence[Features], min_inliers: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of photographs of one lesion.

    Args:
        features: of N photographs that are no copies of each other.
        min_inliers: matches, SPREAD pixels apart, that must agree on one affine map.

    Returns:
        pairs intp (M, 2) with i < j, sorted, and their inliers int64 (M,).
    """
    pairs = view_candidates([feature.descriptors for feature in features])

    def verify(pair: np.ndarray) -> int:
        return count_inliers(features[pair[0]], features[pair[1]])

    with single_thread(), ThreadPoolExecutor(WORKERS) as pool:
        inliers = np.fromiter(
            track(pool.map(verify, pairs), "comparing views", total=len(pairs)), dtype=np.int64, count=len(pairs)
        )
    kept = inliers >= min_inliers
    return pairs[kept], inliers[kept]


def count_inliers(first: Features, second: Features) -> int:
    """Spread-out mutual matches that agree on one plausible affine map; 0 if none is plausible."""
    import cv2

    if min(len(first.points), len(second.points)) < MIN_FEATURES:
        return 0
    similarity = _floats(first.descriptors) @ _floats(second.descriptors).T
    nearest = similarity.argmax(axis=1)
    rows = np.arange(len(nearest))
    best = similarity[rows, nearest]
    mutual = similarity.argmax(axis=0)[nearest] == rows
    similarity[rows, nearest] = -1.0
    # Descriptors have norm 1, so distance^2 = 2 - 2 cos.
    distinct = 2 - 2 * best < RATIO**2 * (2 - 2 * similarity.max(axis=1))
    kept = mutual & distinct
    if kept.sum() < 4:
        return 0
    source, target = first.points[kept], second.points[nearest[kept]]
    affine, inliers = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=REPROJECTION, maxIters=500, confidence=0.99
    )
    if affine is None or not _plausible(affine[:, :2]):
        return 0
    agreed = inliers.ravel() == 1
    return min(_spread(source[agreed]), _spread(target[agreed]))


def view_candidates(descriptors: Sequence[np.ndarray]) -> np.ndarray:
    """Pairs of photographs (i < j), intp (M, 2), sorted, whose descriptors vote for each other.

    Inverted lists: descriptors are put in cells around pivots drawn from them; each looks for its nearest in its
    own cell and the next, and votes for their photographs. A photograph keeps the CANDIDATES with most votes.
    Cost: photographs x FEATURES x CELL_SIZE, not photographs squared.
    """
    owners = np.repeat(np.arange(len(descriptors)), [len(part) for part in descriptors])
    if len(owners) < 2:
        return np.empty((0, 2), np.intp)
    vectors = _project(np.concatenate(descriptors))
    cells = max(1, len(vectors) // CELL_SIZE)
    pivots = vectors[np.sort(generator("view pivots", len(vectors)).choice(len(vectors), cells, replace=False))]
    probes = _nearest_rows(vectors, pivots, min(CELLS_PER_QUERY, cells))
    home_order = np.argsort(probes[:, 0], kind="stable")
    home_offsets = np.searchsorted(probes[home_order, 0], np.arange(cells + 1))
    votes = []
    for cell in range(cells):
        listed = home_order[home_offsets[cell] : home_offsets[cell + 1]]
        asking = np.flatnonzero((probes == cell).any(axis=1)) if cells == 1 else None
        votes.append((listed, asking))
    return _tally(vectors, owners, probes, [listed for listed, _ in votes], len(descriptors))


def _tally(
    vectors: np.ndarray, owners: np.ndarray, probes: np.ndarray, lists: Sequence[np.ndarray], count: int
) -> np.ndarray:
    """Votes of all descriptors, and from them the candidate pairs."""
    best = np.full((len(vectors), NEIGHBOURS), -1.0, np.float32)
    voted = np.full((len(vectors), NEIGHBOURS), -1, np.int64)
    for rank in range(probes.shape[1]):
        order = np.argsort(probes[:, rank], kind="stable")
        offsets = np.searchsorted(probes[order, rank], np.arange(len(lists) + 1))
        for cell, listed in enumerate(lists):
            asking = order[offsets[cell] : offsets[cell + 1]]
            if not len(asking) or not len(listed):
                continue
            similarity = vectors[asking] @ vectors[listed].T
            similarity[owners[asking][:, None] == owners[listed][None, :]] = -1.0
            top = min(NEIGHBOURS, len(listed))
            near = np.argpartition(-similarity, top - 1, axis=1)[:, :top]
            both = np.concatenate([best[asking], np.take_along_axis(similarity, near, axis=1)], axis=1)
            who = np.concatenate([voted[asking], owners[listed][near]], axis=1)
            keep = np.argsort(-both, axis=1, kind="stable")[:, :NEIGHBOURS]
            best[asking] = np.take_along_axis(both, keep, axis=1)
            voted[asking] = np.take_along_axis(who, keep, axis=1)
    voters = np.repeat(owners, NEIGHBOURS)
    good = (voted.ravel() >= 0) & (best.ravel() > 0)
    codes, votes = np.unique(voters[good] * count + voted.ravel()[good], return_counts=True)
    asker, asked = np.divmod(codes[votes >= MIN_VOTES], count)
    votes = votes[votes >= MIN_VOTES]
    order = np.lexsort((asked, -votes, asker))
    asker, asked = asker[order], asked[order]
    rank = np.arange(len(asker)) - np.searchsorted(asker, asker)
    chosen = rank < CANDIDATES
    low = np.minimum(asker, asked)[chosen]
    high = np.maximum(asker, asked)[chosen]
    return np.stack(np.divmod(np.unique(low * count + high), count), axis=1).astype(np.intp)


def _project(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors on their first principal axes, norm 1: float32 (N, VOTE_DIMENSIONS)."""
    step = max(1, len(descriptors) // 50_000)
    sample = descriptors[::step].astype(np.float64)
    mean = sample.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((sample - mean).T))
    axes = axes[:, ::-1][:, :VOTE_DIMENSIONS].astype(np.float32)
    out = np.empty((len(descriptors), axes.shape[1]), np.float32)
    for start in range(0, len(descriptors), 100_000):
        part = slice(start, start + 100_000)
        out[part] = (descriptors[part].astype(np.float32) - mean.astype(np.float32)) @ axes
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


def _nearest_rows(vectors: np.ndarray, pivots: np.ndarray, top: int) -> np.ndarray:
    """Indices of the ``top`` nearest pivots, nearest first: intp (N, top)."""
    out = np.empty((len(vectors), top), np.intp)
    for start in range(0, len(vectors), 20_000):
        part = slice(start, start + 20_000)
        similarity = vectors[part] @ pivots.T
        near = np.argpartition(-similarity, top - 1, axis=1)[:, :top]
        order = np.argsort(-np.take_along_axis(similarity, near, axis=1), axis=1, kind="stable")
        out[part] = np.take_along_axis(near, order, axis=1)
    return out


def _plausible(linear: np.ndarray) -> bool:
    """No mirror image, no extreme zoom or stretch."""
    large, small = np.linalg.svd(linear, compute_uv=False)
    return bool(np.linalg.det(linear) > 0 and small >= MIN_SCALE and large <= MAX_SCALE and large <= MAX_STRETCH * small)


def _spread(points: np.ndarray) -> int:
    return len(np.unique((points // SPREAD).astype(np.int64), axis=0))


def _floats(descriptors: np.ndarray) -> np.ndarray:
    floats = descriptors.astype(np.float32)
    return floats / np.maximum(np.linalg.norm(floats, axis=1, keepdims=True), 1e-9)
