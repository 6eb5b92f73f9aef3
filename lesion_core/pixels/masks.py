"""Masks at the harmonized size: refinement (paper A, section 3.1) and the soft mask."""

from __future__ import annotations

import cv2
import numpy as np

from lesion_core.pixels.resize import resize_square
from lesion_core.settings import Harmonization

# Pixel settings are given for this size and scale with the size in use.
SETTINGS_SIZE = 512
HALF = 128


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize a mask by the share of each new pixel that is lesion; half or more counts as lesion.

    A lesion too small for that at the new size keeps its most covered pixels, so that no lesion vanishes.

    Args:
        mask: bool (H, W).
        size: side of the square result, in pixels.

    Returns:
        bool (size, size).
    """
    share = resize_square(mask.astype(np.uint8) * 255, size, cubic=False)
    return share >= min(HALF, max(1, int(share.max())))


def refine(mask: np.ndarray, settings: Harmonization) -> np.ndarray:
    """Closing and opening (dilation and erosion), small components dropped, contour smoothed.

    What lies outside the frame counts as background for the closing and as a continuation for opening and smoothing,
    so that a lesion cut by the frame is neither glued to it nor rounded off. A lesion never vanishes: the largest
    component stays however small, and an opening or smoothing that would erase everything is left out.

    Args:
        mask: bool (S, S).
        settings: ``mask_closing`` (radius of closing and opening) and ``mask_smoothing`` (sigma) in pixels at 512,
            scaled by S / 512; ``mask_min_component`` as a fraction of the image area.

    Returns:
        bool (S, S).
    """
    if not mask.any():
        return mask.copy()
    scale = mask.shape[0] / SETTINGS_SIZE
    refined = _close_and_open(mask, round(settings.mask_closing * scale))
    refined = drop_small_components(refined, settings.mask_min_component)
    smooth = _blur(refined, settings.mask_smoothing * scale) >= HALF
    if not smooth.any():
        return refined
    # Smoothing may cut a thin bridge: what falls off is judged once more.
    return drop_small_components(smooth, settings.mask_min_component)


def drop_small_components(mask: np.ndarray, min_fraction: float) -> np.ndarray:
    """Keep 8-connected components of at least ``min_fraction`` of the image area, and always the largest.

    Args:
        mask: bool (H, W).
        min_fraction: 0..1.

    Returns:
        bool (H, W).
    """
    pixels = mask.astype(np.uint8)
    # Nearly every mask is one component, and following its outline is far cheaper than labelling its pixels.
    _, nested = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if nested is None or np.count_nonzero(nested[0, :, 3] < 0) < 2:
        return mask.copy()
    _, labels, stats, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    keep = areas >= min_fraction * mask.size
    keep[1 + int(np.argmax(areas[1:]))] = True
    keep[0] = False
    return keep[labels]


def soften(mask: np.ndarray, settings: Harmonization) -> np.ndarray:
    """The soft mask: a Gaussian blur of the refined mask.

    Values are held on their side of one half, so that ``soft >= 128`` is the refined mask exactly.

    Args:
        mask: bool (S, S).
        settings: ``soft_mask_sigma`` in pixels at 512, scaled by S / 512; 0 gives 0 and 255 only.

    Returns:
        uint8 (S, S), 255 is lesion.
    """
    soft = _blur(mask, settings.soft_mask_sigma * mask.shape[0] / SETTINGS_SIZE)
    lowest = mask.astype(np.uint8) * np.uint8(HALF)
    return np.clip(soft, lowest, lowest + np.uint8(HALF - 1))


def harmonize_mask(mask: np.ndarray, size: int, settings: Harmonization) -> np.ndarray:
    """Resize, refine and soften: bool (H, W) to uint8 (size, size), binary by ``>= 128``."""
    return soften(refine(resize_mask(mask, size), settings), settings)


def _close_and_open(mask: np.ndarray, radius: int) -> np.ndarray:
    if radius < 1:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # Padded, since OpenCV's erosion takes what lies outside the frame for lesion.
    closed = cv2.morphologyEx(np.pad(mask.astype(np.uint8), radius), cv2.MORPH_CLOSE, disc)
    closed = np.ascontiguousarray(closed[radius:-radius, radius:-radius])
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, disc)
    return (opened if opened.any() else closed) > 0


def _blur(mask: np.ndarray, sigma: float) -> np.ndarray:
    scaled = mask.astype(np.uint8) * 255
    return scaled if sigma <= 0 else cv2.GaussianBlur(scaled, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
