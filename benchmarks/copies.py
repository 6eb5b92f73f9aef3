"""Copies of an image as they may stand in another release, and changes that go beyond."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lesion_core.seeding import generator

SCALES, QUALITIES = (0.5, 2.0), (50, 95)


def copy_of(image: np.ndarray, number: int) -> np.ndarray:
    """A copy of uint8 (H, W, 3) as it may stand in another release: resized, recompressed, mirrored or turned."""
    rng = generator("planted copy", number)
    changed = _scaled(image, rng.uniform(*SCALES))
    if rng.random() < 0.5:
        changed = changed[:, ::-1]
    changed = np.ascontiguousarray(np.rot90(changed, int(rng.integers(4))))
    return _jpeg(changed, int(rng.integers(*QUALITIES)))


def _scaled(image: np.ndarray, factor: float) -> np.ndarray:
    import cv2

    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    import cv2

    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def _cropped(image: np.ndarray, share: float) -> np.ndarray:
    """Without ``share`` of the rows and columns, half of it at either border."""
    height, width = image.shape[:2]
    top, left = round(height * share / 2), round(width * share / 2)
    return np.ascontiguousarray(image[top : height - top, left : width - left])


def _brighter(image: np.ndarray, gain: float, bias: float) -> np.ndarray:
    return np.clip(np.rint(image * gain + bias), 0, 255).astype(np.uint8)


def _darker_tones(image: np.ndarray, gamma: float) -> np.ndarray:
    return np.rint(255 * (image / 255.0) ** gamma).astype(np.uint8)


# Beyond what the search by hash promises; the search for views is there for what moves pixels.
HEAVIER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG quality 30": lambda image: _jpeg(image, 30),
    "scale 0.3": lambda image: _scaled(image, 0.3),
    "scale 0.3, JPEG quality 30": lambda image: _jpeg(_scaled(image, 0.3), 30),
    "2 % cropped": lambda image: _cropped(image, 0.02),
    "10 % cropped": lambda image: _cropped(image, 0.10),
    "1.15 times as bright, +10": lambda image: _brighter(image, 1.15, 10.0),
    "gamma 1.3": lambda image: _darker_tones(image, 1.3),
}
