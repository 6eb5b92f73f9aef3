"""Histogram specification per channel by 256-entry tables (paper A, section 3.1).

The tables give, bit for bit, what ``skimage.exposure.match_histograms`` gives for uint8 images when the
reference is a histogram of counts; nothing is computed per pixel but one table look-up.
"""

from __future__ import annotations

import cv2
import numpy as np

LEVELS = 256
CHANNELS = 3
# cv2.calcHist counts in float32, which is exact up to 2**24 pixels.
EXACT_PIXELS = 1 << 24
# A normalised histogram has lost its counts: its cumulative sums are off by some 1e-16, and a table value
# that should be 127 comes out as 126.99999999999. The guard is far above that and far below one level.
ROUNDING_GUARD = 1e-6


def channel_histograms(image: np.ndarray) -> np.ndarray:
    """Counts of the 256 levels in each channel.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        int64 (3, 256); each row sums to H * W.
    """
    counts = np.zeros((CHANNELS, LEVELS), np.int64)
    step = max(1, EXACT_PIXELS // image.shape[1])
    for top in range(0, len(image), step):
        for channel in range(CHANNELS):
            found = cv2.calcHist([image[top : top + step]], [channel], None, [LEVELS], [0, LEVELS])
            counts[channel] += found.ravel().astype(np.int64)
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
    if not np.isfinite(reference).all() or (reference < 0).any() or (reference.sum(axis=1) <= 0).any():
        raise ValueError("a reference histogram must be finite, not negative and not empty")
    values = np.empty(shape)
    for channel, wanted in enumerate(reference):
        levels = np.flatnonzero(wanted)
        reached = np.cumsum(wanted[levels]) / wanted.sum()
        values[channel] = np.interp(quantiles[channel], reached, levels)
    if not np.issubdtype(reference.dtype, np.integer):
        values = np.minimum(values + ROUNDING_GUARD, LEVELS - 1)
    return values.astype(np.uint8)


def apply_tables(image: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Look up each channel of uint8 (H, W, 3) in its table; ``tables``: uint8 (3, 256)."""
    return cv2.LUT(image, np.ascontiguousarray(tables.T)[None])


def specify_histogram(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give an image the reference's histogram, per channel.

    Args:
        image: uint8 (H, W, 3) RGB.
        reference: (3, 256), counts or frequencies, rows in the image's channel order.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: see ``specification_tables``.
    """
    return apply_tables(image, specification_tables(channel_histograms(image), reference))
