"""Histogram specification per channel by 256-entry tables (paper A, section 3.1).

The tables give, bit for bit, what ``skimage.exposure.match_histograms`` gives for uint8 images when the
reference is a histogram of counts; nothing is computed per pixel but one table look-up.
"""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np

LEVELS = 256
CHANNELS = 3
# cv2.calcHist counts in float32, which is exact up to 2**24 pixels.
EXACT_PIXELS = 1 << 24
APART = 4
APART_FROM = 1 << 19  # values; below, the further passes cost more than they save
# The planes of images up to this many pixels lie in the same memory for all images of a thread: to ask the system for
# new memory would cost as much as the work on a small image.
KEPT_PIXELS = 1 << 20
APART_BYTES = 1088  # between planes: at a distance of a power of two they would push each other out of the cache
# A normalised histogram has lost its counts: its cumulative sums are off by some 1e-16, and a table value
# that should be 127 comes out as 126.99999999999. The guard is far above that and far below one level.
ROUNDING_GUARD = 1e-6
_scratch = threading.local()


def channel_histograms(image: np.ndarray) -> np.ndarray:
    """Counts of the 256 levels in each channel.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        int64 (3, 256); each row sums to H * W.
    """
    import cv2

    height, width = image.shape[:2]
    counts = np.zeros((CHANNELS, LEVELS), np.int64)
    step = max(1, EXACT_PIXELS // max(1, width))
    for top in range(0, height, step):
        strip = image[top : top + step]
        # Neighbours are often equal, and counting one level twice in a row waits for memory: take every fourth pixel.
        if strip.size >= APART_FROM and width % APART == 0 and strip.flags.c_contiguous:
            strip = strip.reshape(len(strip), width // APART, APART * CHANNELS)
        found = np.empty((strip.shape[2], LEVELS), np.float32)
        for part in range(len(found)):
            found[part] = cv2.calcHist([strip], [part], None, [LEVELS], [0, LEVELS]).ravel()
        counts += found.reshape(-1, CHANNELS, LEVELS).sum(axis=0, dtype=np.int64)
    return counts


def median_histogram(counts: np.ndarray) -> np.ndarray:
    """The reference: per channel and level the median over images of the normalised histograms, renormalised.

    Args:
        counts: (N, 3, 256) non-negative counts of N >= 1 images.

    Returns:
        float64 (3, 256); each row sums to 1.

    Raises:
        ValueError: there is no image, an image has no pixels, or no level has mass in half of the images.
    """
    if counts.ndim != 3 or counts.shape[0] == 0 or counts.shape[1:] != (CHANNELS, LEVELS):
        raise ValueError(f"expected counts of shape (N >= 1, 3, 256), got {counts.shape}")
    totals = counts.sum(axis=2)
    if (totals == 0).any():
        raise ValueError("a histogram without pixels")
    reference = np.empty((CHANNELS, LEVELS))
    for channel in range(CHANNELS):
        reference[channel] = np.median(counts[:, channel] / totals[:, channel, None], axis=0)
    sums = reference.sum(axis=1, keepdims=True)
    if (sums == 0).any():
        raise ValueError("no level is present in half of the images, so the median histogram is empty")
    return reference / sums


def specification_tables(source: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Tables that give an image the reference's histogram, per channel.

    A level v maps to the level at which the reference's cumulative distribution reaches that of the source at
    v (linear between levels that occur), truncated to an integer as scikit-image does.

    Args:
        source: integer counts (3, 256) of the image.
        reference: (3, 256), integer counts (then bit-identical to ``match_histograms``) or float frequencies.

    Returns:
        uint8 (3, 256).

    Raises:
        ValueError: a shape is wrong, or a histogram is empty or has a negative or non-finite entry.
    """
    shape = (CHANNELS, LEVELS)
    if source.shape != shape or reference.shape != shape:
        raise ValueError(f"expected two (3, 256) histograms, got {source.shape} and {reference.shape}")
    cumulative = np.cumsum(source, axis=1)
    if source.min() < 0 or cumulative[:, -1].min() <= 0:
        raise ValueError("a source histogram must be not negative and not empty")
    quantiles = cumulative / cumulative[:, -1:]
    values = np.empty(shape)
    for channel, (levels, reached) in enumerate(_steps(reference.tobytes(), reference.dtype.str)):
        values[channel] = np.interp(quantiles[channel], reached, levels)
    if not np.issubdtype(reference.dtype, np.integer):
        values = np.minimum(values + ROUNDING_GUARD, LEVELS - 1)
    return values.astype(np.uint8)


def apply_tables(image: np.ndarray, tables: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Look up each channel in its table.

    Args:
        image: uint8 (H, W, 3).
        tables: uint8 (3, 256).
        out: uint8 (H, W, 3), contiguous, that receives the result; None makes a new array.

    Returns:
        uint8 (H, W, 3): ``out`` if it was given.
    """
    import cv2

    planes = _planes(image)
    # A table for one channel is looked up faster than one for three interleaved channels.
    for plane, table in zip(planes, tables, strict=True):
        cv2.LUT(plane, table, plane)
    return cv2.merge(planes, out)


def specify_histogram(image: np.ndarray, reference: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Give an image the reference's histogram, per channel.

    Args:
        image: uint8 (H, W, 3) RGB.
        reference: (3, 256), counts or frequencies, rows in the image's channel order.
        out: see ``apply_tables``.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: see ``specification_tables``.
    """
    return apply_tables(image, specification_tables(channel_histograms(image), reference), out)


def _planes(image: np.ndarray) -> list[np.ndarray]:
    """The three channels apart, uint8 (H, W); the thread's next call overwrites those of a small image."""
    import cv2

    height, width = image.shape[:2]
    if height * width > KEPT_PIXELS:
        return list(cv2.split(image))
    if getattr(_scratch, "shape", None) != (height, width):
        memory = np.empty((CHANNELS, height * width + APART_BYTES), np.uint8)
        _scratch.planes = [plane[: height * width].reshape(height, width) for plane in memory]
        _scratch.shape = (height, width)
    cv2.split(image, _scratch.planes)
    return _scratch.planes


@lru_cache(maxsize=16)
def _steps(content: bytes, kind: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Per channel of a reference the levels that occur, and its cumulative distribution there; all photographs of a
    run share the reference."""
    reference = np.frombuffer(content, kind).reshape(CHANNELS, LEVELS)
    if not np.isfinite(reference).all() or (reference < 0).any() or (reference.sum(axis=1) <= 0).any():
        raise ValueError("a reference histogram must be finite, not negative and not empty")
    steps = []
    for wanted in reference:
        levels = np.flatnonzero(wanted)
        steps.append((levels.astype(np.float64), np.cumsum(wanted[levels]) / wanted.sum()))
    return tuple(steps)
