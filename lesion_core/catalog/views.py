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

import faiss
import numpy as np

from lesion_core import settings
from lesion_core.acquire.opencv import single_thread
from lesion_core.progress import track
from lesion_core.seeding import granted_threads

AREA = 40_000  # pixels a photograph is scaled to: lesion structure stays, sensor noise goes
CONTRAST, EDGE = 0.01, 20.0  # SIFT's thresholds, lowered for skin
MIN_FEATURES = 8
DEFAULT = settings.Views()
# Candidates
VOTE_DIMENSIONS = 32
SAMPLE = 50_000  # descriptors that the principal axes are taken from, about
CHUNK = 500  # images whose descriptors are floats at a time
CELL_SIZE = 500  # descriptors per cell of the inverted lists, on average
MAX_CELLS = 4096
NEIGHBOURS = 2  # a descriptor votes for the images of its nearest descriptors in other images
OWN = 6  # more neighbours are asked for, since some are of the same image
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
    sift = cv2.SIFT.create(nfeatures=views.features, contrastThreshold=CONTRAST, edgeThreshold=EDGE)
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

    with single_thread(), ThreadPoolExecutor(granted_threads(WORKERS)) as pool:
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
    """Pairs of images (i < j), intp (M, 2), sorted, that have many near descriptors.

    Each descriptor votes for the images of its nearest descriptors (faiss, inverted lists over principal axes), and an
    image keeps the candidates with most votes: far fewer comparisons than images squared.
    """
    owners = np.repeat(np.arange(len(descriptors)), [len(part) for part in descriptors])
    if len(owners) < 2:
        return np.empty((0, 2), np.intp)
    index = _index(descriptors, len(owners))
    voters, voted = [], []
    for start in range(0, len(descriptors), CHUNK):
        asking = np.concatenate(descriptors[start : start + CHUNK]).astype(np.float32)
        own = np.repeat(
            np.arange(start, min(start + CHUNK, len(descriptors))), [len(p) for p in descriptors[start : start + CHUNK]]
        )
        _, nearest = index.search(asking, NEIGHBOURS + OWN)
        found = np.where(nearest < 0, own[:, None], owners[nearest])
        foreign = found != own[:, None]
        foreign &= np.cumsum(foreign, axis=1) <= NEIGHBOURS
        voters.append(np.repeat(own, foreign.sum(axis=1)))
        voted.append(found[foreign])
    return _elect(np.concatenate(voters), np.concatenate(voted), len(descriptors), views)


def _index(descriptors: Sequence[np.ndarray], count: int) -> faiss.Index:
    """All descriptors on their principal axes, in inverted lists around cell centres; row = place in all of them."""
    step = max(1, count // SAMPLE)
    sample = np.concatenate([part[::step] for part in descriptors]).astype(np.float32)
    dimensions = min(VOTE_DIMENSIONS, len(sample))
    cells = min(max(1, count // CELL_SIZE), MAX_CELLS, len(sample))
    flat = faiss.IndexFlatL2(dimensions)
    inverted = faiss.IndexIVFFlat(flat, dimensions, cells)
    inverted.nprobe, inverted.cp.seed, inverted.cp.niter, inverted.cp.min_points_per_centroid = 2, 0, 4, 1
    index = faiss.IndexPreTransform(faiss.PCAMatrix(128, dimensions), inverted)
    index.train(sample)
    for start in range(0, len(descriptors), CHUNK):
        index.add(np.concatenate(descriptors[start : start + CHUNK]).astype(np.float32))
    return index


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
