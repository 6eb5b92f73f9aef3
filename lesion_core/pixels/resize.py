"""One resize rule for images and masks."""

from __future__ import annotations

import cv2
import numpy as np


def resize_square(image: np.ndarray, size: int, *, cubic: bool = True) -> np.ndarray:
    """Resize to a square without preserving the aspect ratio: areas where an axis shrinks, else interpolation.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        size: side of the result, in pixels.
        cubic: bicubic (images) or bilinear (masks, which must not ring) for growing axes.

    Returns:
        uint8 (size, size) or (size, size, 3); the input itself if it has that size already.
    """
    height, width = image.shape[:2]
    shrunk = (min(width, size), min(height, size))
    if shrunk != (width, height):
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR)
    return image


def resize_masks(masks: np.ndarray, size: int) -> np.ndarray:
    """Soft masks uint8 (N, S', S') -> uint8 (N, size, size): area average down, bilinear up; the same array
    if S' = size."""
    if masks.shape[1] == size:
        return masks
    how = cv2.INTER_AREA if masks.shape[1] > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(mask, (size, size), interpolation=how) for mask in masks])
