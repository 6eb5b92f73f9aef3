"""Maps brought from what a network saw to the image: a crop's map goes back to the crop's place."""

from __future__ import annotations

import cv2
import numpy as np


def to_image_size(values: np.ndarray, size: tuple[int, ...], box: np.ndarray | None = None) -> np.ndarray:
    """A map at the image's size, zero outside what was seen; not negative stays not negative.

    Args:
        values: float32 (g, g).
        size: (height, width) of the image, in pixels.
        box: (centre x, centre y, side) of the square crop as shares of the sides; None: the whole image was seen.

    Returns:
        float32 (height, width), bilinear.
    """
    height, width = size
    values = np.ascontiguousarray(values, dtype=np.float32)
    if box is None:
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    centre_x, centre_y, side = (float(part) for part in box)
    # where each pixel's centre lies within the crop, 0..1
    x = ((np.arange(width) + 0.5) / width - (centre_x - side / 2)) / side
    y = ((np.arange(height) + 0.5) / height - (centre_y - side / 2)) / side
    grid = values.shape[0]
    columns, rows = (np.clip(place * grid - 0.5, 0.0, grid - 1.0).astype(np.float32) for place in (x, y))
    seen = ((y >= 0) & (y < 1))[:, None] & ((x >= 0) & (x < 1))[None, :]
    map_x = np.ascontiguousarray(np.broadcast_to(columns, seen.shape))
    map_y = np.ascontiguousarray(np.broadcast_to(rows[:, None], seen.shape))
    placed = cv2.remap(values, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(seen, placed, np.float32(0.0))
