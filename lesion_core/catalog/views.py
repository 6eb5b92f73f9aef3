"""Other views of one lesion: images of which one can be laid over the other by an affine map.

A lesion with two images (another zoom, angle, day or camera) shares no hash, and no id where a release does not
tell its lesions. It shares hairs, vessels, pigment dots. So: SIFT features (Lowe, IJCV 2004) with square-rooted
descriptors (Arandjelovic, Zisserman, CVPR 2012) in and near the lesion; candidates by votes of near descriptors; each
candidate verified by a map close to a similarity that mutual matches agree on (RANSAC), and by the correlation of fine
detail on the lesions laid over each other. Rulers, ink, hairs and field borders that images share are left out
(`lesion_map`); a map that agrees on what is left of them does not lay one lesion over the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import faiss
import numpy as np

from lesion_core import settings
from lesion_core.acquire.opencv import single_thread
from lesion_core.catalog.lesion_map import lesion_map, markings
from lesion_core.progress import track
from lesion_core.seeding import granted_threads

AREA = 40_000  # pixels an image is scaled to: lesion structure stays, sensor noise goes
CONTRAST, EDGE = 0.01, 20.0  # SIFT's thresholds, lowered for skin
MIN_FEATURES = 8
MARGIN = 80  # pixels from the lesion; chosen on HAM10000: within 50 there are 1.3 % fewer true candidates
DEFAULT = settings.Views()
# Candidates: chosen on HAM10000 for recall of its lesion ids and seconds
VOTE_DIMENSIONS = 32
SAMPLE = 50_000  # descriptors that the principal axes are taken from, about
CHUNK = 500  # images whose descriptors are floats at a time
CELL_SIZE = 1000  # descriptors per cell of the inverted lists, on average
MAX_CELLS = 4096
FEW = 10_000  # descriptors; more are compared as codes of 4 bits a dimension
NEIGHBOURS = 2  # a descriptor votes for the images of its nearest descriptors in other images
OWN = 4  # more neighbours are asked for, since some are of the same image
# Verification
MIN_SCALE, MAX_SCALE, MAX_STRETCH = 0.25, 4.0, 1.5
SPREAD = 3.0  # pixels: inliers closer than this count once
FINE, COARSE = 0.7, 1.7  # sigmas in pixels of the half-size image; between them lies detail, above them every dark blob
MIN_PIXELS = 20
MIN_CORRELATION = 0.3  # chosen on HAM10000's lesion ids, where 3 of 1,073 true pairs have less, and Task 1 by eye
WORKERS = 2


@dataclass(frozen=True)
class Features:
    """Local features of one image scaled to AREA, and the same image at half of that size.

    Attributes:
        points: float32 (K, 2), (x, y) in pixels of the image scaled to AREA, within MARGIN of the lesion.
        descriptors: uint8 (K, 128), square-rooted SIFT, norm 255.
        grey: uint8 (H, W), half size.
        lesion: bool (H, W), where the lesion is.
        skin: bool (H, W), where there are no markings.
    """

    points: np.ndarray
    descriptors: np.ndarray
    grey: np.ndarray
    lesion: np.ndarray
    skin: np.ndarray


def local_features(image: np.ndarray, views: settings.Views = DEFAULT) -> Features:
    """Features of an image, uint8 (H, W, 3) RGB; at most ``views.features``, the strongest near the lesion."""
    height, width = image.shape[:2]
    scale = (AREA / (height * width)) ** 0.5
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    grey = cv2.cvtColor(scaled, cv2.COLOR_RGB2GRAY)
    skin = ~markings(scaled)
    lesion = lesion_map(scaled, skin)
    distance = cv2.distanceTransform((~lesion).astype(np.uint8), cv2.DIST_L2, 3)
    sift = cv2.SIFT.create(nfeatures=views.features, contrastThreshold=CONTRAST, edgeThreshold=EDGE)
    keypoints, descriptors = sift.detectAndCompute(grey, 255 * (skin & (distance <= MARGIN)).astype(np.uint8))
    small = [
        cv2.resize(part.astype(np.uint8), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        for part in (grey, lesion, skin)
    ]
    halves = small[0], small[1] > 0, small[2] > 0
    if not keypoints:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), *halves)
    points = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float32)[: views.features]
    descriptors = descriptors[: views.features]
    rooted = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9))
    return Features(points, np.rint(255 * rooted).astype(np.uint8), *halves)


def find_views(features: Sequence[Features], views: settings.Views = DEFAULT) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images of one lesion.

    Args:
        features: of N images that are no copies of each other.
        views: thresholds.

    Returns:
        pairs intp (M, 2) with i < j, sorted, and float64 (M,) their `agreement`, >= ``min_agreement``.
    """
    pairs = view_candidates([feature.descriptors for feature in features], views)

    def verify(pair: np.ndarray) -> float:
        return agreement(features[pair[0]], features[pair[1]], views)

    with single_thread(), ThreadPoolExecutor(granted_threads(WORKERS)) as pool:
        agreed = np.fromiter(
            track(pool.map(verify, pairs), "comparing views", total=len(pairs)), dtype=np.float64, count=len(pairs)
        )
    kept = agreed >= views.min_agreement
    return pairs[kept], agreed[kept]


def agreement(first: Features, second: Features, views: settings.Views = DEFAULT) -> float:
    """How many spread-out mutual matches agree on one plausible map, times the correlation of the lesions under it.

    0 if no map is plausible, fewer than ``min_agreement`` matches agree or the correlation is below MIN_CORRELATION.
    """
    if min(len(first.points), len(second.points)) < MIN_FEATURES:
        return 0.0
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
        return 0.0
    source, target = first.points[kept], second.points[nearest[kept]]
    affine, inliers = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=views.reprojection, maxIters=500, confidence=0.99
    )
    if affine is None or not _plausible(affine[:, :2]):
        return 0.0
    agreed = inliers.ravel() == 1
    count = min(_spread(source[agreed]), _spread(target[agreed]))
    if count < views.min_agreement:
        return 0.0
    correlation = _correlation(first, second, affine)
    return count * correlation if correlation >= MIN_CORRELATION else 0.0


def _correlation(first: Features, second: Features, affine: np.ndarray) -> float:
    """Of the fine detail on either lesion, ``second`` laid over ``first``; -1 if too few pixels are seen in both."""
    half = affine.copy()  # pixel x of the half-size image lies at 2 x + 0.5
    half[:, 2] = (affine[:, 2] + affine[:, :2] @ [0.5, 0.5] - 0.5) / 2
    size, inverse = first.grey.shape[::-1], cv2.WARP_INVERSE_MAP
    grey = cv2.warpAffine(second.grey, half, size, flags=cv2.INTER_LINEAR | inverse, borderMode=cv2.BORDER_REPLICATE)
    lesion, skin = (
        cv2.warpAffine(part.astype(np.uint8), half, size, flags=cv2.INTER_NEAREST | inverse)
        for part in (second.lesion, second.skin)
    )
    around = cv2.dilate((first.lesion | (lesion > 0)).astype(np.uint8), np.ones((5, 5), np.uint8))
    compared = (around > 0) & first.skin & (skin > 0)
    if compared.sum() < MIN_PIXELS:
        return -1.0
    ours, theirs = _detail(first.grey)[compared], _detail(grey)[compared]
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()
    return float(ours @ theirs / max(1e-6, np.linalg.norm(ours) * np.linalg.norm(theirs)))


def _detail(grey: np.ndarray) -> np.ndarray:
    floats = grey.astype(np.float32)
    return cv2.GaussianBlur(floats, (0, 0), FINE) - cv2.GaussianBlur(floats, (0, 0), COARSE)


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
    codes = "Flat" if count < FEW else f"PQ{dimensions}x4fs"
    index = faiss.index_factory(128, f"PCA{dimensions},IVF{cells},{codes}")
    inverted = faiss.extract_index_ivf(index)
    inverted.nprobe, inverted.cp.seed, inverted.cp.niter, inverted.cp.min_points_per_centroid = 4, 0, 4, 1
    index.train(sample)
    for start in range(0, len(descriptors), CHUNK):
        index.add(np.concatenate(descriptors[start : start + CHUNK]).astype(np.float32))
    return index


def _elect(voters: np.ndarray, voted: np.ndarray, count: int, views: settings.Views) -> np.ndarray:
    """The candidates with most votes of every image, as pairs (i < j)."""
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
    return descriptors.astype(np.float32) / 255  # of norm 1
