"""Optional appearance corrections before resizing: colour constancy and removal of hair."""

from __future__ import annotations

from functools import reduce

import cv2
import numpy as np

from lesion_core.pixels.histogram import LEVELS, apply_tables, channel_histograms

# Finlayson & Trezzi (Shades of gray and colour constancy, CIC 2004) found p = 6 the best Minkowski norm.
SHADES_OF_GREY_NORM = 6.0
# Pixel units below are those of an image whose shorter side is 450 (HAM10000's 600 x 450).
HAIR_REFERENCE_SIDE = 450
HAIR_LINE_LENGTH = 11
HAIR_CONTRAST = 24
HAIR_SURROUNDINGS = 41
HAIR_MIN_LENGTH = 30
HAIR_MAX_WIDTH = 9
# A line one pixel wide has distance 1 everywhere, which reads as width 4.
MIN_WIDTH = 4.0
HAIR_MARGIN = 1
INPAINT_RADIUS = 3


def shades_of_grey(image: np.ndarray, norm: float = SHADES_OF_GREY_NORM) -> np.ndarray:
    """Divide out the illuminant, estimated as the Minkowski norm of each channel.

    With norm 1 this is grey world (Buchsbaum 1980). The illuminant is scaled to the mean of its three
    components, so that a neutral image keeps its brightness. A channel that is black stays black.

    Args:
        image: uint8 (H, W, 3) RGB.
        norm: the Minkowski exponent p >= 1.

    Returns:
        uint8 (H, W, 3), rounded, clipped to 255.
    """
    levels = np.arange(LEVELS, dtype=np.float64)
    frequencies = channel_histograms(image) / (image.shape[0] * image.shape[1])
    illuminant = (frequencies @ levels**norm) ** (1.0 / norm)
    gains = np.divide(illuminant.mean(), illuminant, out=np.ones(3), where=illuminant > 0)
    tables = np.minimum(np.rint(gains[:, None] * levels), LEVELS - 1).astype(np.uint8)
    return apply_tables(image, tables)


def grey_world(image: np.ndarray) -> np.ndarray:
    """Make the mean of uint8 (H, W, 3) RGB grey: ``shades_of_grey`` with norm 1 (paper D, ISIC 2017)."""
    return shades_of_grey(image, norm=1.0)


def hair_mask(image: np.ndarray) -> np.ndarray:
    """Find dark hair by DullRazor's first two steps (Lee et al., Comput Biol Med 27:533, 1997).

    A grey closing by a line fills a dark structure that the line crosses; the largest of the closings in
    four directions fills thin structures of any direction. Where it differs from the image by more than
    ``HAIR_CONTRAST`` grey levels in any channel, and the pixel is darker than its surroundings, there may be hair;
    long and thin components are kept.

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        bool (H, W).
    """
    scale = min(image.shape[:2]) / HAIR_REFERENCE_SIDE
    kernels = _lines(max(3, round(HAIR_LINE_LENGTH * scale) | 1))
    closed = reduce(cv2.max, (cv2.morphologyEx(image, cv2.MORPH_CLOSE, kernel) for kernel in kernels))
    # The gap between two highlights is filled by a closing too, but it is no darker than what surrounds it.
    around = cv2.medianBlur(image, max(3, round(HAIR_SURROUNDINGS * scale) | 1))
    dark = (cv2.subtract(closed, image) > HAIR_CONTRAST) & (cv2.subtract(around, image) > HAIR_CONTRAST // 2)
    candidate = np.asarray(dark.any(axis=2), np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(candidate, connectivity=8)
    if count == 1:
        return np.zeros(image.shape[:2], bool)
    length = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    # In a ribbon of width w the mean distance to the edge is w / 4, also where hairs cross and form a net.
    distance = cv2.distanceTransform(candidate, cv2.DIST_L2, 3)
    width = 4.0 * np.bincount(labels.ravel(), distance.ravel()) / stats[:, cv2.CC_STAT_AREA]
    hair = (length >= HAIR_MIN_LENGTH * scale) & (width <= max(MIN_WIDTH, HAIR_MAX_WIDTH * scale))
    hair[0] = False
    return hair[labels]


def remove_hair(image: np.ndarray) -> np.ndarray:
    """Replace dark hair by its surroundings (after DullRazor; Telea's inpainting in place of its interpolation).

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        uint8 (H, W, 3); pixels away from hair are unchanged.
    """
    hair = hair_mask(image)
    if not hair.any():
        return image.copy()
    margin = max(1, round(HAIR_MARGIN * min(image.shape[:2]) / HAIR_REFERENCE_SIDE))
    grown = cv2.dilate(hair.astype(np.uint8), np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    return cv2.inpaint(image, grown, INPAINT_RADIUS, cv2.INPAINT_TELEA)


def _lines(length: int) -> list[np.ndarray]:
    """Line-shaped structuring elements, 0, 45, 90 and 135 degrees; ``length`` is odd."""
    horizontal = np.zeros((length, length), np.uint8)
    horizontal[length // 2] = 1
    diagonal = np.eye(max(3, round(length / np.sqrt(2)) | 1), dtype=np.uint8)
    return [horizontal, diagonal, horizontal.T.copy(), diagonal[::-1].copy()]
