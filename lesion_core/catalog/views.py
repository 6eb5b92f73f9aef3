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
from itertools import pairwise

import numpy as np

from lesion_core import settings
from lesion_core.acquire.opencv import single_thread
from lesion_core.progress import track
from lesion_core.seeding import generator

AREA = 40_000  # pixels a photograph is scaled to: lesion structure stays, sensor noise goes
CONTRAST, EDGE = 0.01, 20.0  # SIFT's thresholds, lowered for skin
MIN_FEATURES = 8
DEFAULT = settings.Views()
# Candidates
VOTE_DIMENSIONS = 32
SAMPLE = 50_000  # descriptors that the principal axes are taken from, about
PROJECTED = 500  # photographs whose descriptors are projected at a time
CELL_SIZE = 500  # descriptors per cell of the inverted lists, on average
MAX_CELLS = 4096
NEIGHBOURS = 2  # a descriptor votes for its nearest descriptors in other photographs
# Verification
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


def local_features(image: np.ndarray, views: settings.Views = DEFAULT) -> Features:
    """SIFT features of a photograph, uint8 (H, W, 3) RGB; at most ``views.features``, the strongest."""
    import cv2

    height, width = image.shape[:2]
    scale = (AREA / (height * width)) ** 0.5
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=method), cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT_create(nfeatures=views.features, contrastThreshold=CONTRAST, edgeThreshold=EDGE)
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    if not keypoints:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    points = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float32)[: views.features]
    rooted = np.sqrt(
        descriptors[: views.features] / np.maximum(descriptors[: views.features].sum(axis=1, keepdims=True), 1e-9)
    )
    return Features(points, np.rint(255 * rooted).astype(np.uint8))


def find_views(features: Sequence[Features], views: settings.Views = DEFAULT) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of photographs of one lesion.

    Args:
        features: of N photographs that are no copies of each other.
        views: thresholds.

    Returns:
        pairs intp (M, 2) with i < j, sorted, and int64 (M,) how many matches agree on the map, >= ``min_inliers``.
    """
    pairs = view_candidates([feature.descriptors for feature in features], views)

    def verify(pair: np.ndarray) -> int:
        return count_inliers(features[pair[0]], features[pair[1]], views)

    with single_thread(), ThreadPoolExecutor(WORKERS) as pool:
        inliers = np.fromiter(
            track(pool.map(verify, pairs), "comparing views", total=len(pairs)), dtype=np.int64, count=len(pairs)
        )
    kept = inliers >= views.min_inliers
    return pairs[kept], inliers[kept]


def count_inliers(first: Features, second: Features, views: settings.Views = DEFAULT) -> int:
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
    distinct = 2 - 2 * best < views.ratio**2 * (2 - 2 * similarity.max(axis=1))
    kept = mutual & distinct
    if kept.sum() < 4:
        return 0
    source, target = first.points[kept], second.points[nearest[kept]]
    affine, inliers = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=views.reprojection, maxIters=500, confidence=0.99
    )
    if affine is None or not _plausible(affine[:, :2]):
        return 0
    agreed = inliers.ravel() == 1
    return min(_spread(source[agreed]), _spread(target[agreed]))


def view_candidates(descriptors: Sequence[np.ndarray], views: settings.Views = DEFAULT) -> np.ndarray:
    """Pairs of photographs (i < j), intp (M, 2), sorted, that have many near descriptors.

    Inverted lists: descriptors are put in cells around pivots drawn from them; each looks for its nearest of
    other photographs in its own cell and the next, and votes for their photographs. A photograph keeps the
    candidates with most votes. Far fewer comparisons than photographs squared.
    """
    owners = np.repeat(np.arange(len(descriptors), dtype=np.int32), [len(part) for part in descriptors])
    if len(owners) < 2:
        return np.empty((0, 2), np.intp)
    vectors = _project(descriptors)
    cells = min(max(1, len(vectors) // CELL_SIZE), MAX_CELLS)
    pivots = vectors[np.sort(generator("view pivots", len(vectors)).choice(len(vectors), cells, replace=False))]
    nearest = _nearest_pivots(vectors, pivots)
    members = _lists(nearest[:, 0], cells)
    best = np.full((len(vectors), NEIGHBOURS), -1.0, np.float32)
    voted = np.full((len(vectors), NEIGHBOURS), -1, np.int32)
    for rank in range(2):
        for listed, asking in zip(members, _lists(nearest[:, rank], cells), strict=True):
            if len(listed) and len(asking):
                similarity = vectors[asking] @ vectors[listed].T
                similarity[owners[asking][:, None] == owners[listed][None, :]] = -1.0
                where, value = _largest(similarity)
                # What the first cell gave stays unless this one has nearer descriptors.
                values = np.concatenate([best[asking], value], axis=1)
                places = np.concatenate([voted[asking], owners[listed][where]], axis=1)
                order = np.argsort(-values, axis=1, kind="stable")[:, :NEIGHBOURS]
                best[asking] = np.take_along_axis(values, order, axis=1)
                voted[asking] = np.take_along_axis(places, order, axis=1)
    given = best.ravel() > 0
    return _elect(np.repeat(owners, NEIGHBOURS)[given], voted.ravel()[given], len(descriptors), views)


def _elect(voters: np.ndarray, voted: np.ndarray, count: int, views: settings.Views) -> np.ndarray:
    """The candidates with most votes of every photograph, as pairs (i < j)."""
    codes, votes = np.unique(voters.astype(np.int64) * count + voted, return_counts=True)
    codes, votes = codes[votes >= views.min_votes], votes[votes >= views.min_votes]
    voter, elected = np.divmod(codes, count)
    order = np.lexsort((elected, -votes, voter))
    voter, elected = voter[order], elected[order]
    chosen = np.arange(len(voter)) - np.searchsorted(voter, voter) < views.candidates
    low, high = np.minimum(voter, elected)[chosen], np.maximum(voter, elected)[chosen]
    return np.stack(np.divmod(np.unique(low * count + high), count), axis=1).astype(np.intp)


def _project(descriptors: Sequence[np.ndarray]) -> np.ndarray:
    """The descriptors of all photographs on their first principal axes, norm 1: float32 (N, VOTE_DIMENSIONS)."""
    counts = [len(part) for part in descriptors]
    step = max(1, sum(counts) // SAMPLE)
    sample = np.concatenate([part[::step] for part in descriptors]).astype(np.float64)
    mean = sample.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((sample - mean).T))
    axes = axes[:, ::-1][:, :VOTE_DIMENSIONS].astype(np.float32)
    ends = np.cumsum(counts)
    out = np.empty((sum(counts), axes.shape[1]), np.float32)
    # Some photographs at a time: all descriptors as floats would take gigabytes.
    for start in range(0, len(descriptors), PROJECTED):
        part = np.concatenate(descriptors[start : start + PROJECTED]).astype(np.float32)
        stop = ends[min(start + PROJECTED, len(descriptors)) - 1]
        out[stop - len(part) : stop] = (part - mean.astype(np.float32)) @ axes
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
    return out


def _nearest_pivots(vectors: np.ndarray, pivots: np.ndarray) -> np.ndarray:
    """Indices of the two nearest pivots, nearest first: intp (N, 2)."""
    if len(pivots) == 1:
        return np.stack([np.zeros(len(vectors), np.intp), np.full(len(vectors), -1)], axis=1)
    out = np.empty((len(vectors), 2), np.intp)
    for start in range(0, len(vectors), 20_000):
        part = slice(start, start + 20_000)
        out[part] = _largest(vectors[part] @ pivots.T)[0]
    return out


def _largest(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of each row's NEIGHBOURS largest entries, largest first; overwrites them.

    Searching the maximum twice is several times faster than a partial sort.
    """
    rows = np.arange(len(similarity))
    where = np.empty((len(similarity), NEIGHBOURS), np.intp)
    value = np.empty((len(similarity), NEIGHBOURS), similarity.dtype)
    for place in range(NEIGHBOURS):
        where[:, place] = similarity.argmax(axis=1)
        value[:, place] = similarity[rows, where[:, place]]
        similarity[rows, where[:, place]] = -1.0
    return where, value


def _lists(cell_of: np.ndarray, cells: int) -> list[np.ndarray]:
    """For each cell its items, in order; items of cell -1 are in none."""
    order = np.argsort(cell_of, kind="stable")
    bounds = np.searchsorted(cell_of[order], np.arange(cells + 1))
    return [order[start:stop] for start, stop in pairwise(bounds)]


def _plausible(linear: np.ndarray) -> bool:
    """No mirror image, no extreme zoom or stretch."""
    large, small = np.linalg.svd(linear, compute_uv=False)
    if np.linalg.det(linear) <= 0 or small < MIN_SCALE or large > MAX_SCALE:
        return False
    return bool(large <= MAX_STRETCH * small)


def _spread(points: np.ndarray) -> int:
    return len(np.unique((points // SPREAD).astype(np.int64), axis=0))


def _floats(descriptors: np.ndarray) -> np.ndarray:
    floats = descriptors.astype(np.float32)
    return floats / np.maximum(np.linalg.norm(floats, axis=1, keepdims=True), 1e-9)
