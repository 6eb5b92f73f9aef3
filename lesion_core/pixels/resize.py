"""One resize rule for photographs and masks."""

from __future__ import annotations

import numpy as np


def resize_square(image: np.ndarray, size: int, *, cubic: bool = True) -> np.ndarray:
    """Squeeze an image into a square: pixel areas where an axis shrinks, then interpolation where one grows.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        size: side of the result, in pixels.
        cubic: bicubic (photographs) or bilinear (masks, which must not ring) for growing axes.

    Returns:
        uint8 (size, size) or (size, size, 3); the input itself if it has that size already.
    """
    import cv2

    height, width = image.shape[:2]
    shrunk = (min(width, size), min(height, size))
    if shrunk != (width, height):
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR)
    return image
