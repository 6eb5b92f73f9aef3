"""Lesion extraction: probability map to refined mask, crop box and blend (paper A, section 3.4)."""

from __future__ import annotations

import cv2
import numpy as np

from lesion_core.settings import Extraction

REFERENCE_SIDE = 512  # the settings give pixels at this side length


def refine_mask(probability: np.ndarray, settings: Extraction) -> np.ndarray:
    """Threshold, close, smooth the boundary, keep the largest component.

    Args:
        probability: (H, W) float32 in [0, 1], already at the size at which the mask is wanted.
        settings: radii and sigmas in pixels at 512; scaled by the longer side.

    Returns:
        (H, W) bool; all False where nothing reaches the threshold.
    """
    mask = (probability >= settings.threshold).astype(np.uint8)
    if not mask.any():
        return mask.astype(bool)
    scale = max(mask.shape) / REFERENCE_SIDE
    radius = round(settings.closing * scale)
    if radius > 0:
        # a replicated border keeps the closing from eroding the lesion along the image's edge
        padded = cv2.copyMakeBorder(mask, radius, radius, radius, radius, cv2.BORDER_REPLICATE)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)
        mask = closed[radius:-radius, radius:-radius].astype(np.uint8)
    sigma = settings.smoothing * scale
    if sigma > 0:
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        mask = (soft >= 0.5).astype(np.uint8)
    if settings.largest_component:
        mask = largest_component(mask)
    return mask.astype(bool)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the largest 8-connected component of an (H, W) uint8 0/1 mask; ties go to the first in scan order."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:
        return mask
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return (labels == largest).astype(np.uint8)


def count_components(mask: np.ndarray) -> int:
    """Number of 8-connected components of an (H, W) mask."""
    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1


def upsample(probability: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring an (h, w) float32 probability map to (height, width); thresholding comes after, or borders are serrated."""
    if probability.shape == (height, width):
        return probability
    shrinking = height * width < probability.size
    return cv2.resize(probability, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
